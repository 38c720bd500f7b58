import type { Brand } from "../kernel/brand.ts";
import type { Deployment, Model } from "../domains/catalog/index.ts";
import { Problem } from "../kernel/problem.ts";
import { advance, type Hop, type Routed } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** The deployments that may serve the hop, best first; never empty. */
export type Route = Brand<{ readonly model: Model; readonly candidates: readonly Deployment[] }, "Route">;

/** The model the key may call under that name, and its deployments in priority order. @throws Problem model_not_found */
export function route(platform: Platform, hop: Hop): Routed {
  const model = platform.modelFor(hop.of.tenant, hop.of.principal, hop.of.compiled.model);
  if (model.deployments.length === 0)
    throw new Problem("overloaded", {
      message: `The model '${model.name}' has no deployment. Ask your administrator to add one.`,
      retryAfterSeconds: 60,
    });
  const route = { model, candidates: model.deployments } as Route;
  return advance(hop, { route });
}
