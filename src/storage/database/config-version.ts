import { sql } from "kysely";
import type { TenantId } from "../../kernel/ids.ts";
import type { TenantTransaction } from "./index.ts";
import { asTenant } from "./tenant-transaction.ts";

/** The channel that tells of a new configuration version; the payload is the version. */
export const CONFIG_CHANNEL = "atrium_config";

/**
 * Called by every write of configuration, in its transaction and last in it: from here to the commit, other writers
 * wait on the one row, so versions commit in order. Returns the new version, and names this tenant as changed by it; in the
 * platform's transaction also others.
 */
export async function bumpConfig(tx: TenantTransaction, others: readonly TenantId[] = []): Promise<number> {
  const { version } = await tx
    .updateTable("config_version")
    .set((row) => ({ version: row("version", "+", 1) }))
    .returning("version")
    .executeTakeFirstOrThrow();
  await tx.insertInto("config_changes").values({ version }).execute();
  for (const other of others)
    await asTenant(tx, other, async (inside) => {
      await inside.insertInto("config_changes").values({ version }).execute();
    });
  await tx.selectNoFrom(sql`pg_notify(${CONFIG_CHANNEL}, ${String(version)})`.as("notified")).execute();
  return version;
}
