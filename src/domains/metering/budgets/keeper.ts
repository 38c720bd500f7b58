import { sql } from "kysely";
import type { SystemTransaction } from "../../../storage/database/index.ts";
import type { Uuid } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";

/** Another process may grant holds under hard budgets, and this one may not. */
export class KeptElsewhere extends Error {
  override readonly name = "KeptElsewhere";

  problem(): Problem {
    return new Problem("overloaded", {
      message: "Another server process keeps the budgets of this installation, and this one cannot grant calls under them. Retry there.",
      retryAfterSeconds: 1,
      cause: this,
    });
  }
}

/**
 * Makes the process with this journal the one that may grant holds under hard budgets; nothing where it is. It stays so through restarts, until
 * it has shipped all it settled and releases.
 * @throws KeptElsewhere
 */
export async function keepBudgets(tx: SystemTransaction, journal: Uuid, at: Date): Promise<void> {
  const row = await tx.selectFrom("budget_keeper").select(["journal_id", "released_at"]).executeTakeFirst();
  if (row?.journal_id === journal && row.released_at === null) return;
  const { rows } = await sql`
    INSERT INTO budget_keeper (journal_id, taken_at) VALUES (${journal}, ${at})
    ON CONFLICT (singleton) DO UPDATE SET journal_id = excluded.journal_id, taken_at = excluded.taken_at, released_at = NULL
    WHERE budget_keeper.released_at IS NOT NULL OR budget_keeper.journal_id = excluded.journal_id
    RETURNING journal_id`.execute(tx);
  if (rows.length === 0) throw new KeptElsewhere();
}

/** Lets another process keep the budgets. For one that has settled and shipped all that it held. */
export async function releaseBudgets(tx: SystemTransaction, journal: Uuid, at: Date): Promise<void> {
  await tx
    .updateTable("budget_keeper")
    .set({ released_at: at })
    .where("journal_id", "=", journal)
    .where("released_at", "is", null)
    .execute();
}
