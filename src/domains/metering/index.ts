import { meteringRoutes } from "./routes.ts";
import { createService, type Metering, type MeteringNeeds } from "./service.ts";

export type { AttemptFacts, Hold, MeteredResponse, Settlement } from "./model.ts";
export type { Metering, MeteringNeeds } from "./service.ts";

/** The verbs of an attempt's money, and the routes that report it. `recover` comes first. */
export function createMetering(needs: MeteringNeeds): Metering & { readonly routes: ReturnType<typeof meteringRoutes> } {
  const { metering, reports } = createService(needs);
  return { ...metering, routes: meteringRoutes(reports) };
}
