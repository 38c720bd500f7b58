import { NOTHING_IN_FLIGHT } from "../holds.ts";
import type { TestContext } from "node:test";
import { openConfiguration } from "../../../../../test/support/configuration.ts";
import { silentLog, type TestDatabase } from "../../../../../test/support/postgres.ts";
import { type Clock, systemClock } from "../../../../kernel/clock.ts";
import type { KeyId, ProjectId, TenantId } from "../../../../kernel/ids.ts";
import { systemRandom } from "../../../../kernel/random.ts";
import { NO_TOKENS } from "../../../../kernel/tokens.ts";
import type { Database } from "../../../../storage/database/index.ts";
import { insertSettled, UsageRows } from "../../store.ts";
import { Tags } from "../../tags.ts";
import { factsOf, newId } from "../../testing/facts.ts";
import type { AttemptFacts } from "../../model.ts";
import { createBudgets } from "../index.ts";
import type { BudgetEvent, WriteEvent } from "../needs.ts";
import { BudgetLedger } from "../postings.ts";

/** A settled attempt, as far as budgets see it. Charge and worst case in pico-dollars. */
export interface Spent extends Partial<Omit<AttemptFacts, "tenant">> {
  readonly charge?: bigint;
  readonly worstCase?: bigint;
  readonly input?: number;
  readonly output?: number;
}

/** Budgets on a real database, with the routes that configure them and a hand in place of the shipper. */
export async function openLedger(
  t: TestContext,
  server: TestDatabase,
  options: { readonly clock?: Clock; readonly writeEvent?: WriteEvent } = {},
) {
  const database: Database = await server.open();
  const clock = options.clock ?? systemClock;
  const sealing = new Tags(systemRandom);
  const events: BudgetEvent[] = [];
  const ledgers: BudgetLedger[] = [];
  const configuration = await openConfiguration(t, database, {
    clock,
    more({ snapshot, tenants, webhooks }) {
      const writeEvent: WriteEvent = async (tx, event) => {
        const isNew = await (options.writeEvent ?? webhooks.writeEvent)(tx, event);
        if (isNew) events.push(event);
        return isNew;
      };
      const ledger = new BudgetLedger({ database, clock, sealing, keyringOf: snapshot.keyringOf, writeEvent, log: silentLog });
      ledgers.push(ledger);
      const means = { sealing, flush: async () => {}, open: ledger.open.bind(ledger), inFlightOf: () => NOTHING_IN_FLIGHT };
      return createBudgets({ snapshot, clock, makeId: newId, projectOf: tenants.projects.idOf, findTenant: tenants.find, means }).routes;
    },
  });
  const ledger = ledgers[0] as BudgetLedger;
  t.after(() => ledger.close());
  const { act, snapshot, tenants } = configuration;
  const admin = await configuration.admin();
  return {
    ...configuration,
    database,
    ledger,
    admin,
    /** What was told, in order; also of transactions that were rolled back. */
    events,
    /** A tenant with a project and two keys. */
    async tenant(name: string, fields: Record<string, unknown> = {}) {
      await act(admin, "tenants.put", { params: { tenant: name }, body: fields });
      const params = { tenant: name, project: "shop" };
      const project = (await act(admin, "projects.put", { params })).body["id"] as ProjectId;
      const key = (await act(admin, "project_keys.create", { params })).body["id"] as KeyId;
      const other = (await act(admin, "project_keys.create", { params })).body["id"] as KeyId;
      return { id: (await tenants.find(name)) as TenantId, name, project, key, other };
    },
    putBudget: (tenant: string, budget: string, body: Record<string, unknown>) =>
      act(admin, "budgets.put", { params: { tenant, budget }, body }),
    budget: async (tenant: string, budget: string) => (await act(admin, "budgets.get", { params: { tenant, budget } })).body,
    /** Ships one batch, as one transaction. */
    async ship(tenant: TenantId, ...attempts: readonly Spent[]) {
      const rows = new UsageRows(newId(), sealing);
      const keyring = await snapshot.keyringOf(tenant);
      for (const attempt of attempts) rows.add(settledOf(tenant, attempt), keyring);
      await database.forSystem("ship", (tx) => insertSettled(tx, rows, new Date(clock.now()), ledger));
    },
  };
}

export type Ledger = Awaited<ReturnType<typeof openLedger>>;

function settledOf(tenant: TenantId, { charge = 0n, worstCase = charge, input = 10, output = 5, ...facts }: Spent) {
  const admitted = factsOf({ tenant, project: null, key: null, user: null, ...facts });
  return {
    admission: { facts: admitted, worstCase, inputRate: 1n, outputRate: 1n, tokensPerSecond: 100 },
    settlement: {
      attempt: admitted.attempt,
      status: "completed",
      usage: { tokens: { ...NO_TOKENS, input_uncached: input, output }, source: "reported" },
      cost: charge,
      charge,
      estimated: false,
      dispatchUnknown: false,
      modelServed: "m",
      latencyMs: 1,
      firstTokenMs: null,
    },
    sequence: 1,
  } as const;
}

/** Of USD, in pico-dollars. */
export function usd(dollars: number): bigint {
  return BigInt(Math.round(dollars * 1_000_000)) * 1_000_000n;
}
