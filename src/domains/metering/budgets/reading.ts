import type { TenantId, Uuid } from "../../../kernel/ids.ts";
import type { Clock } from "../../../kernel/clock.ts";
import type { Database } from "../../../storage/database/index.ts";
import type { AccountName } from "./accounts.ts";
import type { HoldsNeeds } from "./holds.ts";
import { keepBudgets } from "./keeper.ts";
import { readBalances, type WantedBalance } from "./store.ts";

export interface ReadingNeeds {
  readonly database: Pick<Database, "forSystem">;
  readonly clock: Clock;
  /** Of this process's journal. */
  readonly journal: Uuid;
  /** As `Shipper.between`. */
  readonly between: <T>(first: "recovered" | "everything", work: () => Promise<T>) => Promise<T>;
  /** As `BudgetLedger.open`, of what is unmade. */
  readonly open: (owners: readonly TenantId[]) => Promise<void>;
}

/** Reads balances while nothing is shipped, as the process that keeps the budgets, which it becomes where none does. */
export function balanceReader({ database, clock, journal, between, open }: ReadingNeeds): HoldsNeeds["readBetween"] {
  return (first, take, read) =>
    between(first, async () => {
      const names = take();
      await open([...new Set(names.map(({ budget }) => budget.owner))]);
      const spans = await database.forSystem("ship", async (tx) => {
        await keepBudgets(tx, journal, new Date(clock.now()));
        return readBalances(tx, names.map(wantedOf));
      });
      read(names, spans);
    });
}

function wantedOf({ budget, subject, window }: AccountName): WantedBalance {
  const { owner, id, definition, epoch, timeZone } = budget;
  return { owner, budget: id, definition, epoch, timeZone, subject, window };
}
