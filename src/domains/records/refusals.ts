import { Problem, type ProblemCode, PROBLEMS } from "../../kernel/problem.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { TenantId, Uuid } from "../../kernel/ids.ts";
import type { Database, DatabaseLog } from "../../storage/database/index.ts";
import type { PresentedKey, Principal } from "../identity/index.ts";
import { insertAuditRows, type NewAuditRow } from "./store.ts";

export interface RefusalsNeeds {
  readonly database: Pick<Database, "forTenant">;
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  readonly log: DatabaseLog;
  /** What may be kept of a credential that was refused; null where it is not of a key's form. */
  readonly presented: (credential: string) => PresentedKey | null;
  /** Whose they are: of those that are a tenant's key with its right secret, revoked and expired ones included. */
  readonly ownersOf: (keys: readonly PresentedKey[]) => Promise<ReadonlyMap<PresentedKey, TenantId>>;
}

/** Something that authorization refused. */
export interface Refusal {
  /** The route's id, or the endpoint's name. */
  readonly route: string;
  /** Who asked; null where the credential itself was refused. */
  readonly principal: Pick<Principal, "id" | "kind" | "tenant"> | null;
  readonly credential: string | null;
  readonly remoteAddress: string;
  readonly problem: unknown;
}

/**
 * What authorization refused, as one audit row for each principal, route, code and minute, in the principal's own trail.
 * Noting is memory only; rows are written at the minute's end. A credential that is nobody's leaves no row.
 */
export interface Refusals {
  /** The code where it was a refusal of authorization, for the count of all of them; null for any other problem. */
  note(refusal: Refusal): ProblemCode | null;
  /** Writes the minutes that have ended; with `all`, the one that has not as well. Keeps what the database did not take. */
  flush(all?: boolean): Promise<void>;
}

export function createRefusals(needs: RefusalsNeeds): Refusals {
  const noted = new Map<TenantId, Map<string, Noted>>();
  const strangers = new Map<string, Stranger>();
  let size = 0;
  let dropped = 0;

  const count = (tenant: TenantId, who: Who, what: What): void => {
    const ofTenant = noted.get(tenant) ?? new Map<string, Noted>();
    const key = [what.minute, who.actor, what.route, what.code].join(" ");
    const present = ofTenant.get(key);
    if (present !== undefined) return add(present, what);
    if (size >= MAX_NOTED || ofTenant.size >= MAX_NOTED_PER_TENANT) {
      dropped += what.count;
      return;
    }
    size += 1;
    noted.set(tenant, ofTenant.set(key, { ...who, ...what }));
  };
  const countStranger = (presented: PresentedKey, what: What): void => {
    const key = [what.minute, presented.id, presented.hash.toString("hex"), what.route, what.code].join(" ");
    const present = strangers.get(key);
    if (present !== undefined) add(present, what);
    else if (strangers.size < MAX_STRANGERS) strangers.set(key, { presented, ...what });
    else dropped += what.count;
  };
  const minuteNow = (): number => Math.floor(needs.clock.now() / MINUTE_MS) * MINUTE_MS;

  const recognise = async (until: number): Promise<void> => {
    const ended = [...strangers].filter(([, { minute }]) => minute < until);
    if (ended.length === 0) return;
    const owners = await needs.ownersOf(ended.map(([, { presented }]) => presented));
    for (const [key, { presented, ...what }] of ended) {
      strangers.delete(key);
      const tenant = owners.get(presented);
      if (tenant !== undefined) count(tenant, { actor: presented.id, actorKind: "key" }, what);
    }
  };
  /** A commit whose answer is lost is done again: then a minute's row is there twice. */
  const writeSome = async (tenant: TenantId, ofTenant: Map<string, Noted>, some: readonly [string, Noted][]): Promise<void> => {
    const rows = some.map(([, each]) => rowOf(each, needs.makeId()));
    await needs.database.forTenant(tenant, (tx) => insertAuditRows(tx, rows));
    for (const [key] of some) ofTenant.delete(key);
    size -= some.length;
    if (ofTenant.size === 0) noted.delete(tenant);
  };
  const writeAll = async (tenant: TenantId, ofTenant: Map<string, Noted>, ended: readonly [string, Noted][]): Promise<void> => {
    for (let from = 0; from < ended.length; from += ROWS_A_TRANSACTION)
      await writeSome(tenant, ofTenant, ended.slice(from, from + ROWS_A_TRANSACTION));
  };
  const flushOnce = async (all: boolean): Promise<void> => {
    const until = all ? Number.POSITIVE_INFINITY : minuteNow();
    await recognise(until);
    let fault: unknown = null;
    for (const [tenant, ofTenant] of noted) {
      const ended = [...ofTenant].filter(([, { minute }]) => minute < until);
      // One trail that cannot be written to does not keep the others'.
      await writeAll(tenant, ofTenant, ended).catch((thrown: unknown) => (fault = thrown));
    }
    if (fault !== null) throw fault;
    if (dropped > 0)
      needs.log.warn({ refusals: dropped }, "more refusals at once than are kept: they are in the metric, not in the audit trails");
    dropped = 0;
  };
  let flushing: Promise<void> = Promise.resolve();
  return {
    note({ route, principal, credential, remoteAddress, problem }) {
      if (!(problem instanceof Problem) || !REFUSALS.has(problem.code)) return null;
      const what = { route, code: problem.code, minute: minuteNow(), count: 1, remoteAddress };
      if (principal !== null) count(principal.tenant, { actor: principal.id, actorKind: principal.kind }, what);
      else {
        const presented = credential === null ? null : needs.presented(credential);
        if (presented !== null) countStranger(presented, what);
      }
      return problem.code;
    },
    flush: (all = false) => (flushing = flushing.catch(() => {}).then(() => flushOnce(all))),
  };
}

/** What is refused for who the caller is, rather than for what the request says. */
const REFUSALS: ReadonlySet<ProblemCode> = new Set([
  "invalid_api_key",
  "expired_api_key",
  "permission_denied",
  "tenant_suspended",
  "model_not_found",
  "not_found",
]);

interface Who {
  readonly actor: string;
  readonly actorKind: Principal["kind"];
}

interface What {
  readonly route: string;
  readonly code: ProblemCode;
  /** Its first millisecond, since the epoch. */
  readonly minute: number;
  count: number;
  /** Null where they came from several. */
  remoteAddress: string | null;
}

type Noted = Who & What;
type Stranger = What & { readonly presented: PresentedKey };

function add(present: What, more: What): void {
  present.count += more.count;
  if (present.remoteAddress !== more.remoteAddress) present.remoteAddress = null;
}

function rowOf(refusal: Noted, id: Uuid): NewAuditRow {
  return {
    id,
    actor: refusal.actor,
    actor_kind: refusal.actorKind,
    action: `refused.${refusal.code}`,
    target: refusal.route,
    before: null,
    after: null,
    request_id: null,
    remote_address: refusal.remoteAddress,
    status: PROBLEMS[refusal.code].status,
    count: refusal.count,
    at: new Date(refusal.minute),
  };
}

const MINUTE_MS = 60_000;
/** Rows to be written: of all tenants, in the present minute and in those the database did not take yet. */
const MAX_NOTED = 10_000;
/** So that no tenant's refusals crowd out those of another. */
const MAX_NOTED_PER_TENANT = 500;
/** Refused credentials that may be somebody's; anybody can make up more. */
const MAX_STRANGERS = 1_000;
const ROWS_A_TRANSACTION = 100;
