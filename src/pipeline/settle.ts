import type { MeteredResponse } from "../domains/metering/index.ts";
import type { Delivery } from "./caller.ts";
import type { Outcome } from "./outcome.ts";

/** The hop's outcome, once its response has ended and its charge is durable, however it ended. */
export async function settle(metered: MeteredResponse, delivery: Delivery): Promise<Outcome> {
  const { settlement } = await metered.settled;
  switch (delivery.kind) {
    case "delivered":
      return { kind: "answered", settlement };
    case "truncated":
      return { kind: "truncated", settlement, problem: delivery.problem };
    case "client_left":
      return { kind: "client_left", settlement };
    default:
      return delivery satisfies never;
  }
}
