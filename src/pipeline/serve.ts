import { abandon } from "./abandon.ts";
import { ask } from "./ask.ts";
import { authenticate } from "./authenticate.ts";
import { compile } from "./compile.ts";
import type { Received } from "./evidence.ts";
import { runHop } from "./hop.ts";
import { open } from "./open.ts";
import { type Outcome, usedBy } from "./outcome.ts";
import { permit } from "./permit.ts";
import type { Platform } from "./platform.ts";
import { record } from "./record.ts";
import { resolve } from "./resolve.ts";

/** The life of a call: governed once, answered once, recorded once. Never rejects. */
export async function serve(platform: Platform, received: Received): Promise<Outcome> {
  const outcome = await answer(platform, received).catch((thrown: unknown) => abandon(received, thrown));
  record(platform, received, outcome);
  return outcome;
}

async function answer(platform: Platform, received: Received): Promise<Outcome> {
  const authenticated = await authenticate(platform, received);
  const resolved = resolve(platform, authenticated);
  const asked = await ask(platform, resolved);
  const opened = open(platform, asked);
  const permitted = await permit(platform, opened);
  let outcome: Outcome | null = null;
  try {
    return (outcome = await runHop(platform, compile(permitted)));
  } finally {
    permitted.permit.release(usedBy(received.call.hops, outcome));
  }
}
