import pg from "pg";
import { leastIdAt } from "../../kernel/ids.ts";

/**
 * Makes the missing monthly partitions from the month before to three months ahead; returns the names of those made, which
 * is not all of them while a lock is not to be had. As the owner. Rows that meanwhile went to the default partition move to
 * their month.
 */
export async function ensureMonthlyPartitions(client: pg.Client, now: number): Promise<string[]> {
  const made: string[] = [];
  const existing = await partitionNames(client);
  for (const table of PARTITIONED_TABLES) {
    for (let offset = -1; offset <= MONTHS_AHEAD; offset++) {
      const month = monthAt(now, offset);
      const name = partitionName(table, month);
      if (existing.has(name)) continue;
      if (!(await attempt(client, () => addPartition(client, table, name, month)))) return made;
      made.push(name);
    }
  }
  return made;
}

/** The months that have a partition, by table, as `2026-11`. */
export async function readMonths(client: pg.Client): Promise<ReadonlyMap<string, readonly string[]>> {
  const names = await partitionNames(client);
  return new Map(
    PARTITIONED_TABLES.map((table) => [
      table,
      [...names]
        .filter((name) => name.startsWith(`${table}_`))
        .map((name) => MONTH_SUFFIX.exec(name))
        .flatMap((match) => (match === null ? [] : [`${match[1]}-${match[2]}`]))
        .sort(),
    ]),
  );
}

/** For a restore, within its transaction: the partition of one month, as `readMonths` gave it. */
export async function restorePartition(client: pg.Client, table: string, month: string): Promise<void> {
  const range = monthAt(Date.parse(`${month}-01T00:00:00Z`), 0);
  await addPartition(client, table, partitionName(table, range), range);
}

/**
 * False where a lock was not to be had soon, for one, because a backup is running: whoever waits for one keeps reports waiting
 * behind it. The rows go to the default partition until the next time.
 */
async function attempt(client: pg.Client, work: () => Promise<void>): Promise<boolean> {
  await client.query(`BEGIN; SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
  try {
    await work();
  } catch (error) {
    if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error;
    await client.query("ROLLBACK");
    return false;
  }
  await client.query("COMMIT");
  return true;
}

const LOCK_TIMEOUT_MS = 2_000;
const LOCK_NOT_AVAILABLE = "55P03";
const MONTH_SUFFIX = /_(\d{4})_(\d{2})$/;

const PARTITIONED_TABLES = ["usage_rows", "ledger_entries"] as const;
const MONTHS_AHEAD = 3;

interface Month {
  readonly from: number;
  readonly to: number;
}

function monthAt(now: number, offset: number): Month {
  const date = new Date(now);
  const start = (months: number) => Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + months, 1);
  return { from: start(offset), to: start(offset + 1) };
}

function partitionName(table: string, month: Month): string {
  return `${table}_${new Date(month.from).toISOString().slice(0, 7).replace("-", "_")}`;
}

async function partitionNames(client: pg.Client): Promise<Set<string>> {
  const { rows } = await client.query<{ relname: string }>(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent WHERE p.relname = ANY($1)",
    [PARTITIONED_TABLES],
  );
  return new Set(rows.map((row) => row.relname));
}

/**
 * Attached rather than created in place: ATTACH lets inserts into the other partitions go on. The default partition is
 * locked first, so that nothing of this month arrives there between the move and the attachment.
 */
async function addPartition(client: pg.Client, table: string, name: string, month: Month): Promise<void> {
  const [partition, overflow] = [pg.escapeIdentifier(name), pg.escapeIdentifier(`${table}_default`)];
  const [from, to] = [pg.escapeLiteral(leastIdAt(month.from)), pg.escapeLiteral(leastIdAt(month.to))];
  await client.query(`
    LOCK TABLE ${overflow} IN ACCESS EXCLUSIVE MODE;
    CREATE TABLE ${partition} (LIKE ${pg.escapeIdentifier(table)} INCLUDING ALL);
    WITH moved AS (DELETE FROM ${overflow} WHERE id >= ${from} AND id < ${to} RETURNING *) INSERT INTO ${partition} SELECT * FROM moved;
    ALTER TABLE ${pg.escapeIdentifier(table)} ATTACH PARTITION ${partition} FOR VALUES FROM (${from}) TO (${to});`);
}
