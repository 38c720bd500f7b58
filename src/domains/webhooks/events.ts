import { z } from "zod";

/** Every type of event, with what its data is: the documentation of a payload is made of this. */
const amount = z.string().describe("A decimal string: USD, or a whole number of tokens or requests.");
const seconds = z.number().int().describe("Unix seconds.");

const budgetFacts = {
  budget_id: z.string(),
  budget: z.string().describe("Its name."),
  scope: z.object({
    kind: z.string().describe("'platform', 'tenant', 'project', 'key', 'user' or 'feature'."),
    id: z.string().nullable().describe("The project, key, user or feature it is about."),
  }),
  unit: z.enum(["usd", "tokens", "requests"]),
  window: z.string().describe("'day', 'week', 'month', 'total' or 'rolling…', as the budget says it."),
  window_start: seconds,
  window_end: seconds.nullable(),
  cap: amount,
  spent: amount,
};

export const EVENTS = {
  "budget.threshold_reached": {
    summary: "A budget's spending has reached one of its thresholds: once for each window and threshold.",
    data: z.object({ ...budgetFacts, threshold: z.number().int().describe("Percent of the cap.") }),
  },
  "budget.exhausted": {
    summary: "A budget is spent: a hard one refuses calls until its window ends. Once for each window.",
    data: z.object(budgetFacts),
  },
  "budget.overage": {
    summary: "A call used more than it had held, and a budget is above its cap by it.",
    data: z.object({ ...budgetFacts, overage: amount }),
  },
  "webhook.test": {
    summary: "Somebody asked for it, to see whether the webhook works. Goes to that webhook alone.",
    data: z.object({ webhook_id: z.string(), webhook: z.string().describe("Its name.") }),
  },
} as const satisfies Record<string, { readonly summary: string; readonly data: z.ZodType }>;

export type EventType = keyof typeof EVENTS;
export type EventData = { readonly [Type in EventType]: Readonly<z.infer<(typeof EVENTS)[Type]["data"]>> };

export const EVENT_TYPES = Object.keys(EVENTS) as readonly EventType[];
/** In a webhook's `events`: all types, those of later releases too. */
export const ALL_EVENTS = "*";
