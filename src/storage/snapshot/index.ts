import { setImmediate as nextTurn } from "node:timers/promises";
import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import type { Database, DatabaseLog, SystemTransaction } from "../database/index.ts";
import type { TenantKeyring } from "../secrets/index.ts";
import { groupByTenant, type Sources, type TenantParts } from "./source.ts";
import { makeTenantKey, openKeyring, readTenantKeys, type TenantKeysNeeds, type WrappedKey } from "./tenant-keys.ts";

export { makeTenantKey } from "./tenant-keys.ts";
export * from "./list-object.ts";
export * from "./resource.ts";
export { groupByTenant, ofTenants, type Present, type Source, type TenantParts } from "./source.ts";

/** The configuration at one version. A call takes one and keeps it. */
export interface Snapshot<Parts> {
  readonly version: number;
  /** Every live tenant, the platform included. */
  readonly tenants: ReadonlyMap<TenantId, Parts>;
}

export interface SnapshotStore<Parts> {
  /** The pointer: reading it costs nothing. */
  readonly current: Snapshot<Parts>;
  /** Whose part has this key in the index named. */
  ownerOf(index: string, key: string): TenantId | undefined;
  /** Resolves once `current` holds every write up to this version. Rejects when the database is away. */
  catchUp(version: number): Promise<void>;
  /** Takes in everything committed before the call. Rejects when the database is away. */
  refresh(): Promise<void>;
  /** Whether the tenant exists: asks the database before it says no. */
  ensureTenant(id: TenantId): Promise<boolean>;
  /**
   * The tenant's keys, also of one that is archived and so no longer in `current`; null once they are destroyed. Rejects when
   * that cannot be told now.
   */
  keyringOf(id: TenantId): TenantKeyring | Promise<TenantKeyring | null>;
  /** Told of every change, once `current` holds it: the tenants whose parts are new or gone. */
  watch(listener: (changed: ReadonlySet<TenantId>) => void): void;
  /** Milliseconds since the database last confirmed `current`. */
  stalenessMs(): number;
  close(): Promise<void>;
}

export interface SnapshotNeeds<S extends Sources> extends TenantKeysNeeds {
  readonly database: Database;
  readonly sources: S;
  /** The live tenants and the revision of each; without the platform. */
  readonly listTenants: ListTenants;
  /** Keys under which a tenant's parts are found; a key belongs to one tenant at a time. */
  readonly indexes: Readonly<Record<string, (parts: TenantParts<S>) => Iterable<string>>>;
  /** Between two looks at the version, ms. */
  readonly pollMs: number;
  readonly log: DatabaseLog;
}

export type ListTenants = (tx: SystemTransaction) => Promise<ReadonlyMap<TenantId, number>>;

/** Loads the configuration, then follows it. Rejects when the first load fails. */
export async function createSnapshot<S extends Sources>(needs: SnapshotNeeds<S>): Promise<SnapshotStore<TenantParts<S>>> {
  const state = newState<TenantParts<S>>(Object.keys(needs.indexes));
  const refresh = coalesced(() => refreshOnce(needs, state));
  await needs.database.forTenant(PLATFORM_TENANT, (tx) => makeTenantKey(needs, tx));
  await refresh();
  const following = await follow(needs, refresh);
  return {
    get current() {
      return state.current;
    },
    ownerOf: (index, key) => state.owners.get(index)?.get(key),
    refresh,
    async catchUp(version) {
      for (let attempt = 0; state.current.version < version; attempt += 1) {
        if (attempt === MAX_CATCH_UP_READS) throw new Error(`configuration version ${version} was never committed`);
        await refresh();
      }
    },
    async ensureTenant(id) {
      if (!state.current.tenants.has(id)) await refresh();
      return state.current.tenants.has(id);
    },
    watch: (listener) => void state.listeners.push(listener),
    keyringOf: (id) => state.current.tenants.get(id)?.keyring ?? readKeyring(needs, id),
    stalenessMs: () => needs.clock.monotonic() - state.confirmedAt,
    close: () => following.close(),
  };
}

async function readKeyring(needs: TenantKeysNeeds & { readonly database: Database }, id: TenantId): Promise<TenantKeyring | null> {
  const keys = await needs.database.forSystem("snapshot", (tx) => readTenantKeys(tx, [id]));
  return keys.length === 0 ? null : openKeyring(needs, id, keys);
}

interface State<Parts> {
  current: Snapshot<Parts>;
  revisions: ReadonlyMap<TenantId, number>;
  readonly owners: ReadonlyMap<string, Map<string, TenantId>>;
  /** Tenants whose last reading made no part; read again with the next change. */
  readonly broken: Set<TenantId>;
  readonly listeners: ((changed: ReadonlySet<TenantId>) => void)[];
  confirmedAt: number;
}

function newState<Parts>(indexes: readonly string[]): State<Parts> {
  return {
    current: { version: -1, tenants: new Map() },
    revisions: new Map(),
    owners: new Map(indexes.map((name) => [name, new Map<string, TenantId>()])),
    broken: new Set(),
    listeners: [],
    confirmedAt: Number.NEGATIVE_INFINITY,
  };
}

/** One look at the version and, where it has moved, one read of what moved. */
async function refreshOnce<S extends Sources>(needs: SnapshotNeeds<S>, state: State<TenantParts<S>>): Promise<void> {
  const askedAt = needs.clock.monotonic();
  const { version, revisions, toRead } = await needs.database.forSystem("snapshot", (tx) => whatMoved(needs, state, tx));
  if (version !== state.current.version) {
    const read = new Map<TenantId, TenantParts<S>>();
    for (let from = 0; from < toRead.length; from += READ_CHUNK) await readParts(needs, state, toRead.slice(from, from + READ_CHUNK), read);
    swap(needs, state, version, revisions, read);
  }
  state.confirmedAt = askedAt;
}

interface Moved {
  readonly version: number;
  readonly revisions: ReadonlyMap<TenantId, number>;
  readonly toRead: TenantId[];
}

/**
 * The version is read before the rows: a commit in between makes the rows newer than the version says, and the next
 * look reads them once more.
 */
async function whatMoved(needs: { readonly listTenants: ListTenants }, state: State<unknown>, tx: SystemTransaction): Promise<Moved> {
  const { version } = await tx.selectFrom("config_version").select("version").executeTakeFirstOrThrow();
  if (version === state.current.version) return { version, revisions: state.revisions, toRead: [] };
  // Before the first load there is nothing to go by, nor is there when the version has gone back: a backup was restored.
  const afresh = version < state.current.version || state.current.version < 0;
  const named = new Set(afresh ? [PLATFORM_TENANT] : [...state.broken, ...(await tenantsChangedSince(tx, state.current.version))]);
  const revisions = named.has(PLATFORM_TENANT) ? await needs.listTenants(tx) : state.revisions;
  for (const [id, revision] of revisions) if (afresh || state.revisions.get(id) !== revision) named.add(id);
  return { version, revisions, toRead: [...named].filter((id) => id === PLATFORM_TENANT || revisions.has(id)) };
}

async function tenantsChangedSince(tx: SystemTransaction, version: number): Promise<TenantId[]> {
  const rows = await tx.selectFrom("config_changes").select("tenant_id").distinct().where("version", ">", version).execute();
  return rows.map((row) => row.tenant_id);
}

/** Reads one chunk of tenants: a fixed number of queries, then as many pure builds. */
async function readParts<S extends Sources>(
  needs: SnapshotNeeds<S>,
  state: State<TenantParts<S>>,
  tenants: readonly TenantId[],
  into: Map<TenantId, TenantParts<S>>,
): Promise<void> {
  const { keys, rows } = await needs.database.forSystem("snapshot", async (tx) => ({
    keys: groupByTenant(await readTenantKeys(tx, tenants)),
    rows: await readSources(needs.sources, tx, tenants),
  }));
  for (const [position, id] of tenants.entries()) {
    if (position % BUILD_CHUNK === BUILD_CHUNK - 1) await nextTurn();
    state.broken.delete(id);
    const onFault = (part: string, error: unknown): void => {
      state.broken.add(id);
      needs.log.error(
        { tenant: id, part, err: error },
        "a part of a tenant's configuration cannot be read; what was last good stays in force",
      );
    };
    const parts = buildParts(needs, id, rows, keys.get(id) ?? [], state.current.tenants.get(id), onFault);
    if (parts !== undefined) into.set(id, parts);
  }
}

type RowsBySource = ReadonlyMap<string, ReadonlyMap<TenantId, unknown>>;

async function readSources(sources: Sources, tx: SystemTransaction, tenants: readonly TenantId[]): Promise<RowsBySource> {
  const rows = new Map<string, ReadonlyMap<TenantId, unknown>>();
  for (const [name, source] of Object.entries(sources)) rows.set(name, await source.read(tx, tenants));
  return rows;
}

/** A part that cannot be built does not hold back the others: a damaged model must not keep a revoked key alive. */
function buildParts<S extends Sources>(
  needs: SnapshotNeeds<S>,
  id: TenantId,
  rows: RowsBySource,
  keys: readonly WrappedKey[],
  before: TenantParts<S> | undefined,
  onFault: (part: string, error: unknown) => void,
): TenantParts<S> | undefined {
  const keyring = openedKeyring(needs, id, keys, before, onFault);
  if (keyring === undefined) return undefined;
  const parts: Record<string, unknown> = { keyring };
  for (const [name, source] of Object.entries(needs.sources)) {
    try {
      const present = { part: before?.[name], onFault: (piece: string, error: unknown) => onFault(`${name}: ${piece}`, error) };
      parts[name] = source.build(id, rows.get(name)?.get(id), keyring, present);
    } catch (error) {
      onFault(name, error);
      if (before === undefined) return undefined;
      parts[name] = before[name];
    }
  }
  return Object.freeze(parts) as TenantParts<S>;
}

function openedKeyring<S extends Sources>(
  needs: SnapshotNeeds<S>,
  id: TenantId,
  keys: readonly WrappedKey[],
  before: TenantParts<S> | undefined,
  onFault: (part: string, error: unknown) => void,
): TenantKeyring | undefined {
  try {
    return openKeyring(needs, id, keys);
  } catch (error) {
    onFault("keyring", error);
    return before?.keyring;
  }
}

/**
 * Puts the new parts in place. Copying the map of tenants costs about 0.3 ms at 10,000 of them and keeps each snapshot
 * immutable; the indexes are updated in place, since whoever finds an owner there looks at the owner's part next.
 */
function swap<S extends Sources>(
  needs: SnapshotNeeds<S>,
  state: State<TenantParts<S>>,
  version: number,
  revisions: ReadonlyMap<TenantId, number>,
  read: ReadonlyMap<TenantId, TenantParts<S>>,
): void {
  const before = state.current.tenants;
  const tenants = new Map(before);
  for (const id of before.keys()) if (id !== PLATFORM_TENANT && !revisions.has(id)) tenants.delete(id);
  for (const [id, parts] of read) tenants.set(id, parts);
  for (const [name, keysOf] of Object.entries(needs.indexes)) {
    const owners = state.owners.get(name) as Map<string, TenantId>;
    for (const [id, parts] of before)
      if (tenants.get(id) !== parts) for (const key of keysOf(parts)) if (owners.get(key) === id) owners.delete(key);
    for (const [id, parts] of read) for (const key of keysOf(parts)) owners.set(key, id);
  }
  for (const id of state.broken) if (id !== PLATFORM_TENANT && !revisions.has(id)) state.broken.delete(id);
  state.revisions = revisions;
  state.current = { version, tenants };
  if (state.listeners.length === 0) return;
  const changed = new Set(read.keys());
  for (const id of before.keys()) if (!tenants.has(id)) changed.add(id);
  for (const listener of state.listeners) listener(changed);
}

/** Many callers, one run: a call during a run gets the next one, which starts after everything the caller saw. */
function coalesced(run: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | null = null;
  let next: Promise<void> | null = null;
  const start = (): Promise<void> => {
    running = run().finally(() => {
      running = null;
    });
    return running;
  };
  return () => {
    if (next !== null) return next;
    if (running === null) return start();
    next = running.catch(ignore).then(() => {
      next = null;
      return start();
    });
    return next;
  };
}

/** A notice makes a change quick; the poll makes it certain, since LISTEN can die silently. */
async function follow(
  needs: { readonly database: Database; readonly pollMs: number; readonly log: DatabaseLog },
  refresh: () => Promise<void>,
): Promise<{ close(): Promise<void> }> {
  let closed = false;
  let timer: NodeJS.Timeout | null = null;
  let looking: Promise<void> = Promise.resolve();
  let failing = false;
  const look = async (): Promise<void> => {
    try {
      await refresh();
      if (failing) needs.log.info({}, "the configuration is confirmed again");
      failing = false;
    } catch (error) {
      if (!failing && !closed) needs.log.warn({ err: error }, "the configuration cannot be confirmed; what was last read stays in force");
      failing = true;
    }
  };
  const poll = (): void => {
    timer = setTimeout(() => {
      looking = look().then(() => {
        if (!closed) poll();
      });
    }, needs.pollMs);
    timer.unref();
  };
  const listener = await needs.database.listen(
    "atrium_config",
    () => void look(),
    (error) => needs.log.warn({ err: error }, "configuration notices are interrupted; the poll goes on"),
  );
  poll();
  return {
    async close() {
      closed = true;
      if (timer !== null) clearTimeout(timer);
      await listener.close();
      await looking;
    },
  };
}

function ignore(): void {}

/** Tenants read by one round of queries. */
const READ_CHUNK = 2000;
/** Tenants built in one turn of the event loop. */
const BUILD_CHUNK = 25;
const MAX_CATCH_UP_READS = 3;
