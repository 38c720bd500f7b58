import { PLATFORM_TENANT } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import { type TenantTransaction, tenantOf } from "../../../storage/database/index.ts";
import {
  addressOf,
  afterId,
  existing,
  type ListQuery,
  openDisplayName,
  openName,
  type Page,
  requireRevision,
  sealDisplayName,
  sealName,
  toPage,
  toUnixSeconds,
  upsert,
  type Written,
} from "../../../storage/snapshot/index.ts";
import type { Allowed, Permission } from "../../identity/index.ts";
import {
  type BudgetId,
  DEFAULT_THRESHOLDS,
  formatAmount,
  isTemplate,
  MAX_BUDGETS,
  type Mode,
  parseAmount,
  subjectOf,
  type Unit,
} from "./model.ts";
import type { BudgetVerbsNeeds } from "./needs.ts";
import { subjectName } from "./postings.ts";
import { columnsOf, refuse, type ScopeColumns, type ScopeFields, scopeView } from "./scope.ts";
import { rulesOf } from "./source.ts";
import {
  archiveBudget,
  type BalanceSum,
  type BudgetRow,
  countBudgets,
  findBudget,
  findBudgetForUpdate,
  type Fresh,
  insertBudget,
  listBudgets,
  readOpened,
  sumBalances,
  updateBudget,
} from "./store.ts";
import { formatWindow, parseWindow, type Window, windowAt } from "./windows.ts";

/** Omitted keeps, null clears. */
export interface BudgetFields {
  readonly display_name?: string | null | undefined;
  readonly scope?: ScopeFields | undefined;
  readonly unit?: Unit | undefined;
  readonly window?: string | undefined;
  readonly cap?: string | undefined;
  readonly mode?: Mode | null | undefined;
  readonly thresholds?: readonly number[] | null | undefined;
}

/** What stands against a budget in the window in force. Amounts in the unit as decimal strings, times in Unix seconds. */
export interface StandingView {
  readonly spent: string;
  readonly held: string;
  /** What calls may still use; "0" where nothing. */
  readonly remaining: string;
  readonly exhausted: boolean;
  readonly window_start: number;
  /** Null: never. Of a rolling window, when its oldest part leaves. */
  readonly resets_at: number | null;
}

export interface BudgetView extends Nullable<StandingView> {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly set_by: "platform" | "tenant";
  readonly scope: ScopeFields;
  readonly unit: Unit;
  readonly window: string;
  readonly cap: string;
  readonly mode: Mode;
  readonly thresholds: readonly number[];
  readonly created_at: number;
  readonly updated_at: number;
}

/** Null where each project, key, user or feature has a balance of its own, and in the answer to a change of what is counted. */
type Nullable<T> = { readonly [K in keyof T]: T[K] | null };

export interface BalanceView extends StandingView {
  readonly id: string;
  /** The project, key, user or feature; null for calls that name none, and for one that was erased. */
  readonly subject: string | null;
}

/** In the transaction of the budget's owner: a tenant, or the platform. Proof of `Read` and `Write`; all throw Problem. */
export interface BudgetVerbs<Read extends Permission, Write extends Permission> {
  put(
    tx: TenantTransaction,
    allowed: Allowed<Write>,
    nameOrId: string,
    fields: BudgetFields,
    ifMatch: number | null,
  ): Promise<Written<BudgetView>>;
  get(tx: TenantTransaction, allowed: Allowed<Read>, nameOrId: string): Promise<{ view: BudgetView; revision: number }>;
  list(tx: TenantTransaction, allowed: Allowed<Read>, page: ListQuery): Promise<Page<BudgetView>>;
  /** Of the window in force, by subject. */
  balances(tx: TenantTransaction, allowed: Allowed<Read>, nameOrId: string, page: ListQuery): Promise<Page<BalanceView>>;
  archive(tx: TenantTransaction, allowed: Allowed<Write>, nameOrId: string, ifMatch: number | null): Promise<BudgetView>;
}

export function createBudgetVerbs<Read extends Permission, Write extends Permission>(needs: BudgetVerbsNeeds): BudgetVerbs<Read, Write> {
  const at = (tx: TenantTransaction, text: string) => addressOf<BudgetId>(needs.keyring(tenantOf(tx)), "budgets", text);
  return {
    async put(tx, allowed, nameOrId, fields, ifMatch) {
      const address = at(tx, nameOrId);
      const byPlatform = allowed.principal.tenant === PLATFORM_TENANT;
      return upsert(tx, address, ifMatch, {
        what: "budget",
        find: () => findBudgetForUpdate(tx, address),
        change(row) {
          refuseForeign(row, byPlatform);
          return change(needs, tx, row, fields);
        },
        make: (name, index) => add(needs, tx, { name, index, byPlatform }, fields),
      });
    },

    async get(tx, _allowed, nameOrId) {
      const row = existing(await findBudget(tx, at(tx, nameOrId)));
      await settle(needs, tx, [row]);
      return { view: await viewOf(needs, tx, row), revision: row.revision };
    },

    async list(tx, _allowed, page) {
      const rows = await listBudgets(tx, afterId(page.after), page.limit + 1);
      await settle(needs, tx, rows);
      const views = new Map<string, BudgetView>();
      for (const row of rows.slice(0, page.limit)) views.set(row.id, await viewOf(needs, tx, row));
      return toPage(rows, page.limit, ({ id }) => views.get(id) as BudgetView);
    },

    async balances(tx, _allowed, nameOrId, page) {
      const row = existing(await findBudget(tx, at(tx, nameOrId)));
      await settle(needs, tx, [row]);
      const rules = zoned(needs, tx, row);
      const window = windowAt(rules, needs.clock.now());
      const after = page.after === NO_SUBJECT ? "" : (page.after ?? null);
      const sums = await sumBalances(tx, row.id, window, { after, count: page.limit + 1 });
      const keyring = needs.keyring(tenantOf(tx));
      return toPage(
        sums.map((sum) => ({ ...sum, id: sum.subject === "" ? NO_SUBJECT : sum.subject })),
        page.limit,
        (sum) => ({
          id: sum.id,
          subject: rules.scope === "project" ? projectOf(needs, tx, sum.subject) : subjectName(needs.sealing, keyring, rules.scope, sum),
          ...standingOf(needs, tx, row, sum, window),
        }),
      );
    },

    async archive(tx, allowed, nameOrId, ifMatch) {
      const row = existing(await findBudgetForUpdate(tx, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      refuseForeign(row, allowed.principal.tenant === PLATFORM_TENANT);
      const view = await viewOf(needs, tx, row);
      await archiveBudget(tx, row.id, new Date(needs.clock.now()));
      return view;
    },
  };
}

/** The id of the balance of calls that name none. */
const NO_SUBJECT = "none";

/** A tenant may not loosen what the platform set for it. */
function refuseForeign(row: BudgetRow, byPlatform: boolean): void {
  if (row.set_by_platform && !byPlatform)
    throw new Problem("permission_denied", { message: "This budget was set by the platform: only the platform changes or ends it." });
}

interface Made {
  readonly name: string;
  readonly index: Buffer;
  readonly byPlatform: boolean;
}

async function add(needs: BudgetVerbsNeeds, tx: TenantTransaction, made: Made, fields: BudgetFields): Promise<Written<BudgetView>> {
  if ((await countBudgets(tx)) >= MAX_BUDGETS)
    throw new Problem("invalid_request", {
      message: `There are ${MAX_BUDGETS} budgets here, and no more can be: each is looked at in every call.`,
    });
  const keyring = needs.keyring(tenantOf(tx));
  const id = needs.makeId<BudgetId>();
  const now = new Date(needs.clock.now());
  const unit = required(fields.unit, "unit");
  const row: Fresh<BudgetRow> = {
    id,
    ...sealName(keyring, "budgets", id, made.name, made.index),
    display_name_sealed: sealDisplayName(keyring, "budgets", id, fields.display_name ?? null),
    set_by_platform: made.byPlatform,
    ...(await columnsOf(needs, tx, id, required(fields.scope, "scope"))),
    unit,
    ...windowColumns(required(fields.window, "window")),
    cap: capOf(unit, required(fields.cap, "cap")),
    mode: fields.mode ?? "reject",
    thresholds: thresholdsOf(fields.thresholds ?? null),
    definition: 1,
    epoch: 1,
    revision: 1,
    created_at: now,
    updated_at: now,
  };
  await insertBudget(tx, row);
  return { before: null, after: await viewOf(needs, tx, row), revision: row.revision };
}

async function change(needs: BudgetVerbsNeeds, tx: TenantTransaction, row: BudgetRow, fields: BudgetFields): Promise<Written<BudgetView>> {
  const before = await viewOf(needs, tx, row);
  const keyring = needs.keyring(tenantOf(tx));
  const unit = fields.unit ?? row.unit;
  if (unit !== row.unit && fields.cap === undefined) refuse("cap", `State 'cap' again: it was in ${row.unit}.`);
  const { scope, project_id, key_id, subject_sealed, subject_index, budget_window, rolling_seconds } = row;
  const counted = {
    ...(fields.scope === undefined
      ? { scope, project_id, key_id, subject_sealed, subject_index }
      : await columnsOf(needs, tx, row.id, fields.scope)),
    unit,
    ...(fields.window === undefined ? { budget_window, rolling_seconds } : windowColumns(fields.window)),
  };
  const changes = {
    display_name_sealed:
      fields.display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, "budgets", row.id, fields.display_name),
    ...counted,
    cap: fields.cap === undefined ? row.cap : capOf(unit, fields.cap),
    mode: fields.mode === undefined ? row.mode : (fields.mode ?? "reject"),
    thresholds: fields.thresholds === undefined ? row.thresholds : thresholdsOf(fields.thresholds),
    definition: countsTheSame(row, counted) ? row.definition : row.definition + 1,
    epoch: row.epoch + 1,
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  await updateBudget(tx, row.id, changes);
  return { before, after: await viewOf(needs, tx, { ...row, ...changes }), revision: changes.revision };
}

type Counted = ScopeColumns & Pick<BudgetRow, "unit" | "budget_window" | "rolling_seconds">;

function countsTheSame(one: Counted, other: Counted): boolean {
  const texts = ({ scope, project_id, key_id, subject_index, unit, budget_window, rolling_seconds }: Counted) =>
    JSON.stringify([scope, project_id, key_id, subject_index?.toString("hex"), unit, budget_window, rolling_seconds]);
  return texts(one) === texts(other);
}

function required<T>(given: T | undefined, param: string): T {
  return given === undefined ? refuse(param, `A new budget needs '${param}'.`) : given;
}

function windowColumns(text: string): Pick<BudgetRow, "budget_window" | "rolling_seconds"> {
  const parsed = parseWindow(text);
  if (parsed === null)
    return refuse("window", "'window' is day, week, month, total, rolling (24 hours), rolling_<n>h or rolling_<n>d, at most 366 days.");
  return { budget_window: parsed.window, rolling_seconds: parsed.rollingSeconds };
}

function capOf(unit: Unit, text: string): bigint {
  const cap = parseAmount(unit, text);
  if (cap !== null) return cap;
  return refuse(
    "cap",
    unit === "usd"
      ? "'cap' is a decimal string of USD with at most 12 decimals, such as \"25.50\"."
      : `'cap' is a whole number of ${unit}, as a string.`,
  );
}

function thresholdsOf(given: readonly number[] | null): number[] {
  return [...new Set(given ?? DEFAULT_THRESHOLDS)].toSorted((one, other) => one - other);
}

/** What has ended is posted, and balances that are not made yet are made, so that what is read next is all there is. */
async function settle(needs: BudgetVerbsNeeds, tx: TenantTransaction, rows: readonly Fresh<BudgetRow>[]): Promise<void> {
  if (rows.length === 0) return;
  await needs.flush();
  const owner = tenantOf(tx);
  const opened = await readOpened(
    tx,
    rows.map(({ id }) => id),
  );
  const zone = needs.timeZoneOf(owner);
  const isSettled = ({ id, definition, epoch }: Fresh<BudgetRow>): boolean => {
    const opening = opened.get(id);
    return opening?.definition === definition && opening.epoch === epoch && opening.time_zone === zone;
  };
  if (!rows.every(isSettled)) await needs.open([owner]);
}

async function viewOf(needs: BudgetVerbsNeeds, tx: TenantTransaction, row: Fresh<BudgetRow>): Promise<BudgetView> {
  const keyring = needs.keyring(tenantOf(tx));
  return {
    id: row.id,
    name: openName(keyring, "budgets", row),
    display_name: openDisplayName(keyring, "budgets", row),
    set_by: row.set_by_platform ? "platform" : "tenant",
    scope: scopeView(needs, tx, row),
    unit: row.unit,
    window: formatWindow({ window: row.budget_window, rollingSeconds: row.rolling_seconds }),
    cap: formatAmount(row.unit, row.cap),
    mode: row.mode,
    thresholds: row.thresholds,
    ...((await onlyStanding(needs, tx, row)) ?? NO_STANDING),
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
  };
}

const NO_STANDING = { spent: null, held: null, remaining: null, exhausted: null, window_start: null, resets_at: null };

/** Of the one balance that a budget has; null where it has many, or none is made yet. */
async function onlyStanding(needs: BudgetVerbsNeeds, tx: TenantTransaction, row: Fresh<BudgetRow>): Promise<StandingView | null> {
  const rules = zoned(needs, tx, row);
  if (isTemplate(rules)) return null;
  const opening = (await readOpened(tx, [row.id])).get(row.id);
  if (opening?.definition !== row.definition || opening.time_zone !== rules.timeZone) return null;
  const { project, key, subjectIndex } = rules;
  const subject = subjectOf(rules, { project, key, userIndex: subjectIndex, featureIndex: subjectIndex }) as string;
  const window = windowAt(rules, needs.clock.now());
  const [sum] = await sumBalances(tx, row.id, window, { only: subject });
  return standingOf(needs, tx, row, sum ?? { subject, spent: 0n, held: 0n }, window);
}

function standingOf(
  needs: BudgetVerbsNeeds,
  tx: TenantTransaction,
  { id, unit, cap }: Fresh<BudgetRow>,
  sum: Pick<BalanceSum, "subject" | "spent" | "held">,
  window: Window,
): StandingView {
  const inFlight = needs.inFlightOf(tenantOf(tx), id, sum.subject, needs.clock.now());
  const spent = sum.spent + inFlight.used;
  const held = sum.held + inFlight.held;
  const remaining = cap - spent - held;
  return {
    spent: formatAmount(unit, spent),
    held: formatAmount(unit, held),
    remaining: formatAmount(unit, remaining > 0n ? remaining : 0n),
    exhausted: spent >= cap,
    window_start: Math.floor(window.start / 1000),
    resets_at: window.end === null ? null : Math.floor(window.end / 1000),
  };
}

function zoned(needs: BudgetVerbsNeeds, tx: TenantTransaction, row: Fresh<BudgetRow>) {
  const owner = tenantOf(tx);
  return rulesOf({ ...row, tenant_id: owner, archived_at: null, time_zone: needs.timeZoneOf(owner) });
}

function projectOf(needs: BudgetVerbsNeeds, tx: TenantTransaction, subject: string): string | null {
  if (subject === "") return null;
  return needs.projectName(tenantOf(tx), subject as Parameters<typeof needs.projectName>[1]) ?? subject;
}
