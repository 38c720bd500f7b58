import type { TenantId } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { AccountName } from "./accounts.ts";
import type { Room } from "./hold-decide.ts";
import { type Budget, formatAmount } from "./model.ts";
import { formatWindow, windowAt } from "./windows.ts";

/** A budget cannot pay for the call. */
export class BudgetExceeded extends Problem {
  readonly budget: Budget;
  /** What was left of it, in its unit. */
  readonly headroom: bigint;
  /** The line to wait in where the budget bids it and it may help; null: retrying is of no use. */
  readonly line: string | null;

  constructor({ budget, headroom }: Room, line: string | null, message: string | null) {
    const cause = `budget ${budget.id} of ${budget.owner}: ${headroom} ${budget.unit} left of ${budget.cap}`;
    super("budget_exceeded", { message, headers: { "x-should-retry": "false" }, cause });
    this.budget = budget;
    this.headroom = headroom;
    this.line = line;
  }
}

/** What is told of it, `asked` being what the call may use in the budget's unit: of a budget that other tenants count under too, nothing but that. */
export function exceeded(
  room: Room,
  { subject }: AccountName,
  at: number,
  line: string | null,
  tenant: TenantId,
  asked: bigint,
): BudgetExceeded {
  const { budget, headroom, held } = room;
  if (budget.owner !== tenant) return new BudgetExceeded(room, line, null);
  const { name, scope, unit, cap } = budget;
  const { end } = windowAt(budget, at);
  const amount = (value: bigint): string => (unit === "usd" ? `$${formatAmount(unit, value)}` : `${value} ${unit}`);
  const whose = scope === "platform" || scope === "tenant" || subject === "" ? scope : `this ${scope}`;
  const resets = end === null ? "it does not reset" : `resets_at ${new Date(end).toISOString()}`;
  return new BudgetExceeded(
    room,
    line,
    `The budget '${name}' cannot pay for this call, which may use up to ${amount(asked)}: scope ${whose}, window ${formatWindow(budget)}, cap ${amount(cap)}, spent ${amount(cap - headroom - held)}, held by calls in progress ${amount(held)}, ${resets}. ` +
      "Ask for fewer output tokens with 'max_tokens', or your administrator for a larger cap.",
  );
}
