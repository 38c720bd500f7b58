import pg from "pg";
import { leastIdAt } from "../../kernel/ids.ts";

/**
 * Makes the missing monthly partitions from the month before to three months ahead; returns the names of those made.
 * As the owner. Rows that meanwhile went to the default partition move to their month.
 */
export async function ensureMonthlyPartitions(client: pg.Client, now: number): Promise<string[]> {
  const made: string[] = [];
  const existing = await partitionNames(client);
  for (const table of PARTITIONED_TABLES) {
    for (let offset = -1; offset <= MONTHS_AHEAD; offset++) {
      const month = monthAt(now, offset);
      const name = `${table}_${new Date(month.from).toISOString().slice(0, 7).replace("-", "_")}`;
      if (existing.has(name)) continue;
      await addPartition(client, table, name, month);
      made.push(name);
    }
  }
  return made;
}

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
    BEGIN;
    LOCK TABLE ${overflow} IN ACCESS EXCLUSIVE MODE;
    CREATE TABLE ${partition} (LIKE ${pg.escapeIdentifier(table)} INCLUDING ALL);
    WITH moved AS (DELETE FROM ${overflow} WHERE id >= ${from} AND id < ${to} RETURNING *) INSERT INTO ${partition} SELECT * FROM moved;
    ALTER TABLE ${pg.escapeIdentifier(table)} ATTACH PARTITION ${partition} FOR VALUES FROM (${from}) TO (${to});
    COMMIT;`);
}
