import assert from "node:assert/strict";
import { test } from "node:test";
import type { Kysely } from "kysely";
import type pg from "pg";
import { freshDatabase, type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import type { TenantId } from "../../kernel/ids.ts";
import type { Database, TenantTransaction } from "./index.ts";
import { openDatabaseWith } from "./open.ts";
import { GLOBAL_TABLES } from "./schema.ts";
import type { PredicateVerb } from "./tenant-predicate.ts";

const VICTIM = "01900000-0000-7000-8000-00000000000a" as TenantId;
const CALLER = "01900000-0000-7000-8000-00000000000b" as TenantId;
const VERBS: readonly PredicateVerb[] = ["select", "insert", "update", "delete"];

/** One (table, verb) that role atrium_app is granted: the cells of the test. */
interface Cell {
  readonly table: string;
  readonly verb: PredicateVerb;
}

/** What the caller reached of the victim's rows: a wall held when it is zero. */
type Reached = number;

test("with any one policy gone the predicates hold, with any one predicate gone the policies hold, and with both gone the test sees the leak", async (t) => {
  await withDatabases(t, async (database, t) => {
    const cells = await database.asSuperuser(async (client) => {
      await seed(client);
      return grantedCells(client);
    });
    const omitted: { cell: Cell | null } = { cell: null };
    const walls = await openDatabaseWith(database.options, (table, verb) => omitted.cell?.table === table && omitted.cell.verb === verb);
    t.after(() => walls.close());

    for (const cell of cells) {
      const at = `${cell.verb} ${cell.table}`;
      omitted.cell = null;
      assert.equal(await attack(walls, cell), 0, `${at}: both walls`);
      await database.asSuperuser((client) => setPolicy(client, cell.table, "open"));
      assert.equal(await attack(walls, cell), 0, `${at}: without the policy`);
      omitted.cell = cell;
      assert.equal(await attack(walls, cell), 1, `${at}: with neither wall the attack must succeed, or it proves nothing`);
      await database.asSuperuser((client) => setPolicy(client, cell.table, "closed"));
      assert.equal(await attack(walls, cell), 0, `${at}: without the predicate`);
    }
    t.diagnostic(`${cells.length} cells (table × granted verb): held by either wall alone, leaking with neither`);
    assert.ok(cells.length >= 35, `only ${cells.length} cells`);
  });
});

test("a join reaches no foreign row when the policies of both its tables are gone", async (t) => {
  await withDatabases(t, async (database) => {
    await database.asSuperuser(async (client) => {
      await seed(client);
      for (const table of ["models", "deployments", "grants"]) await setPolicy(client, table, "open");
    });
    const walls = await database.open();
    const rows = await walls.forTenant(CALLER, (tx) =>
      tx
        .selectFrom("models")
        .leftJoin("deployments", "deployments.model_id", "models.id")
        .rightJoin("grants", "grants.model_id", "models.id")
        .select(["models.tenant_id as model", "deployments.tenant_id as deployment", "grants.tenant_id as grant"])
        .execute(),
    );
    assert.deepEqual(rows, [{ model: CALLER, deployment: CALLER, grant: CALLER }]);
  });
});

test("without a tenant set, the app's role sees and writes nothing", async (t) => {
  const database = await freshDatabase(t, "embedded");
  await database.asSuperuser(seed);
  await asAppRole(database, async (client) => {
    for (const setting of ["", CALLER]) {
      await client.query("BEGIN");
      if (setting !== "") await client.query("SELECT set_config('app.tenant_id', $1, true)", [setting]);
      const { rows } = await client.query<{ count: number }>("SELECT count(*)::int AS count FROM projects");
      assert.equal(rows[0]?.count, setting === "" ? 0 : 1);
      await client.query("COMMIT");
      // The setting has reverted to an empty string: no rows, and no error about a uuid.
      const after = await client.query<{ count: number }>("SELECT count(*)::int AS count FROM projects");
      assert.equal(after.rows[0]?.count, 0);
    }
  });
});

async function asAppRole(database: TestDatabase, work: (client: pg.Client) => Promise<void>): Promise<void> {
  await database.asSuperuser(async (client) => {
    const { rows } = await client.query<{ id: string }>("SELECT replace(id::text, '-', '') AS id FROM installation");
    await client.query(`SET ROLE atrium_app_${rows[0]?.id}`);
    await work(client);
  });
}

/** Thrown to end an attack's transaction without keeping what it did. */
class Undo extends Error {
  readonly reached: Reached;
  constructor(reached: Reached) {
    super("undo");
    this.reached = reached;
  }
}

/** The caller tries to reach the victim's one row of this table. Nothing is kept. */
async function attack(database: Database, cell: Cell): Promise<Reached> {
  try {
    return await database.forTenant(CALLER, async (tx) => {
      throw new Undo(await attempt(untyped(tx), cell));
    });
  } catch (error) {
    if (error instanceof Undo) return error.reached;
    if (/row-level security|a row of another tenant/.test(String(error))) return 0;
    throw error;
  }
}

async function attempt(tx: Untyped, { table, verb }: Cell): Promise<Reached> {
  const victims = (rows: readonly Record<string, unknown>[]) => rows.filter((row) => row["tenant_id"] === VICTIM).length;
  switch (verb) {
    case "select":
      return victims(await tx.selectFrom(table).selectAll().execute());
    case "insert":
      await tx
        .insertInto(table)
        .values(rowOf(table, VICTIM, "d"))
        // A table with one row a tenant has the victim's already: what counts is that neither wall refused.
        .onConflict((conflict) => conflict.doNothing())
        .execute();
      return 1;
    // No RETURNING and no column read: a policy for SELECT would hold in place of the one under test.
    case "update": {
      const [column, value] =
        Object.entries(rowOf(table, CALLER, "c")).find(([name]) => /_at$|^version$|^name_index$|^sequence$|^window_end$/.test(name)) ?? [];
      const result = await tx
        .updateTable(table)
        .set({ [column as string]: value })
        .executeTakeFirstOrThrow();
      return Number(result.numUpdatedRows) - 1;
    }
    case "delete": {
      const result = await tx.deleteFrom(table).executeTakeFirstOrThrow();
      return Number(result.numDeletedRows) - 1;
    }
    default:
      return verb satisfies never;
  }
}

type Untyped = Kysely<Record<string, Record<string, unknown>>>;

function untyped(tx: TenantTransaction): Untyped {
  return tx as unknown as Untyped;
}

async function grantedCells(client: pg.Client): Promise<Cell[]> {
  const { rows } = await client.query<{ table: string; verb: string }>(
    `SELECT table_name AS table, lower(privilege_type) AS verb FROM information_schema.role_table_grants
     WHERE grantee LIKE 'atrium_app_' || (SELECT replace(id::text, '-', '') FROM installation) ORDER BY 1, 2`,
  );
  const isVerb = (verb: string): verb is PredicateVerb => (VERBS as readonly string[]).includes(verb);
  return rows.flatMap(({ table, verb }) => (isVerb(verb) && !GLOBAL_TABLES.has(table) ? [{ table, verb }] : []));
}

async function setPolicy(client: pg.Client, table: string, state: "open" | "closed"): Promise<void> {
  const condition = state === "open" ? "true" : "tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid";
  await client.query(`ALTER POLICY tenant ON ${table} USING (${condition}) WITH CHECK (${condition})`);
}

/** One row of each table for each of the two tenants; ids are alike within a tenant, so every reference finds its row. */
async function seed(client: pg.Client): Promise<void> {
  for (const tenant of [VICTIM, CALLER]) {
    for (const table of Object.keys(ROWS)) {
      const row = rowOf(table, tenant, tenant.slice(-1));
      const columns = Object.keys(row);
      await client.query(
        `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${columns.map((_, index) => `$${index + 1}`).join(", ")})`,
        Object.values(row),
      );
    }
  }
}

/** `mark` makes ids, names and versions, so that a second row of the same tenant collides with nothing. */
function rowOf(table: string, tenant: TenantId, mark: string): Record<string, unknown> {
  const make = ROWS[table];
  if (make === undefined) throw new Error(`add a row of ${table} to this test`);
  return { tenant_id: tenant, ...make(mark, tenant.slice(-1)) };
}

const AT = new Date(0);
const uuid = (mark: string) => `01900000-0000-7000-8000-0000000000${mark.padStart(2, "0")}`;
const bytes = (mark: string) => Buffer.from(mark);
const named = (mark: string) => ({ id: uuid(mark), name_sealed: bytes(mark), name_index: bytes(mark), created_at: AT, updated_at: AT });

/** In the order of their references. `parent` is the mark of the tenant's seeded rows. */
const ROWS: Readonly<Record<string, (mark: string, parent: string) => Record<string, unknown>>> = {
  config_changes: (mark) => ({ version: Number.parseInt(mark, 16) }),
  key_directory: (mark) => ({ key_id: `key-${mark}` }),
  tenant_keys: (mark) => ({ version: Number.parseInt(mark, 16), wrapped: bytes(mark), created_at: AT }),
  tenants: (mark) => ({ ...named(mark), status: "active" }),
  projects: (mark) => named(mark),
  api_keys: (mark, parent) => ({
    id: `key-${mark}`,
    project_id: uuid(parent),
    name_sealed: bytes(mark),
    name_index: bytes(mark),
    hash: bytes(mark),
    permissions: [],
    created_by: "test",
    created_at: AT,
  }),
  members: (mark) => ({
    id: uuid(mark),
    kind: "user",
    email_sealed: bytes(mark),
    email_index: bytes(mark),
    created_by: "test",
    created_at: AT,
  }),
  project_members: (_, parent) => ({ project_id: uuid(parent), member_id: uuid(parent), created_at: AT }),
  invitations: (mark) => ({
    id: uuid(mark),
    email_sealed: bytes(mark),
    email_index: bytes(mark),
    roles: [],
    token_hash: bytes(mark),
    expires_at: AT,
    created_by: "test",
    created_at: AT,
  }),
  credentials: (mark) => ({ ...named(mark), provider: "simulated" }),
  models: (mark) => named(mark),
  deployments: (mark, parent) => ({ ...named(mark), model_id: uuid(parent), provider: "simulated", upstream_model: "m" }),
  prices: (mark, parent) => ({
    id: uuid(mark),
    deployment_id: uuid(parent),
    effective_at: AT,
    source: "free",
    rates: "{}",
    created_at: AT,
  }),
  grants: (mark, parent) => ({
    model_owner_id: mark === parent ? tenantOfMark(parent) : tenantOfMark("b"),
    model_id: uuid(mark === parent ? parent : "b"),
    created_at: AT,
  }),
  usage_rows: (mark) => ({
    id: uuid(mark),
    hop: uuid(mark),
    call: uuid(mark),
    feature_sealed: bytes(mark),
    feature_index: bytes(mark),
    kind: "generate",
    provider: "simulated",
    model_requested_sealed: bytes(mark),
    model_served: "m",
    model_id: uuid(mark),
    deployment_id: uuid(mark),
    price_version: uuid(mark),
    cost: 1n,
    charge: 1n,
    worst_case: 1n,
    bound: "rule",
    source: "counted",
    status: "completed",
    latency_ms: 1,
    started_at: AT,
    journal_id: uuid(mark),
    journal_sequence: 1,
  }),
  ledger_entries: (mark) => ({ id: uuid(mark), debit_spend: 2n, credit_provider: 1n, credit_margin: 1n, posted_at: AT }),
  audit_chains: (mark) => ({ sequence: Number.parseInt(mark, 16), hash: Buffer.alloc(32) }),
  // With its place, as a restore writes it: else its insertion would meet the walls of audit_chains.
  audit_rows: (mark) => ({
    id: uuid(mark),
    actor: "a",
    actor_kind: "key",
    action: "write",
    target: "t",
    status: 200,
    at: AT,
    sequence: Number.parseInt(mark, 16),
    hash: Buffer.alloc(32),
  }),
  tiers: (mark) => named(mark),
  limits: (mark) => ({
    ...named(mark),
    scope: "tenant",
    dimension: "requests",
    amount: 1,
    rate_window: "gcra",
    token_mode: "estimated",
  }),
  budgets: (mark) => ({
    ...named(mark),
    set_by_platform: false,
    scope: "tenant",
    unit: "usd",
    budget_window: "day",
    cap: 1n,
    mode: "reject",
    thresholds: [],
    definition: 1,
    epoch: 1,
  }),
  budget_openings: (mark) => ({ budget_id: uuid(mark), definition: 1, epoch: 1, time_zone: "UTC", counts_from: AT }),
  budget_balances: (mark, parent) => ({ budget_id: uuid(parent), subject: mark, window_start: AT, window_end: AT }),
  budget_alerts: (mark, parent) => ({ budget_id: uuid(parent), subject: mark, window_start: AT, threshold: 50, at: AT }),
  ledger_adjustments: (mark) => ({
    id: uuid(mark),
    debit_spend: 1n,
    credit_margin: 1n,
    reason_sealed: bytes(mark),
    created_by: "test",
    created_at: AT,
    effective_at: AT,
  }),
  webhooks: (mark) => ({ ...named(mark), url_sealed: bytes(mark), events: ["*"], status: "active", secret_sealed: bytes(mark) }),
  events: (mark) => ({ id: uuid(mark), type: "t", fact_key: mark, data_sealed: bytes(mark), created_at: AT }),
  event_deliveries: (_, parent) => ({
    webhook_id: uuid(parent),
    event_id: uuid(parent),
    status: "pending",
    next_attempt_at: AT,
    created_at: AT,
  }),
  idempotency_keys: (mark) => ({
    principal: "p",
    key_hash: bytes(mark),
    route: "r",
    body_hash: bytes(mark),
    created_at: AT,
    expires_at: AT,
  }),
  identity_providers: (mark) => ({ ...named(mark), issuer: "https://id.test", rules_sealed: bytes(mark) }),
  console_sessions: (mark) => ({
    id: uuid(mark),
    cookie_hash: Buffer.alloc(32, mark),
    subject_kind: "key",
    subject: "s",
    content_sealed: bytes(mark),
    created_at: AT,
    idle_at: AT,
    expires_at: AT,
  }),
};

function tenantOfMark(mark: string): TenantId {
  return mark === "a" ? VICTIM : CALLER;
}
