import type { Deployment } from "../domains/catalog/index.ts";
import type { Brand } from "../kernel/brand.ts";
import { advance, type Placed, type Routed } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** A place on the deployment that will serve the attempt. Released when the attempt is over. */
export type Slot = Brand<{ readonly deployment: Deployment; release(): void }, "Slot">;

/** No deployment is full as far as the platform knows: the first candidate serves, if it can honour every field. @throws Problem */
export async function place(platform: Platform, hop: Routed): Promise<Placed> {
  const deployment = hop.route.candidates[0] as Deployment;
  const judging = platform.accept(platform.provider(deployment.provider), hop.of.compiled, deployment);
  if (judging instanceof Promise) await judging;
  const slot = { deployment, release() {} } as Slot;
  return advance(hop, { slot });
}
