import assert from "node:assert/strict";
import { test } from "node:test";
import { Problem } from "../kernel/problem.ts";
import { ask } from "./ask.ts";
import type { Resolved } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** A call whose body takes so long to arrive, by a caller whom the platform meanwhile refuses in the way given. */
function asking(arrivalMs: number, refusal: Partial<Record<"authenticate" | "allow" | "resolve", Problem>>): Promise<unknown> {
  let at = 0;
  const step = (name: keyof typeof refusal) => () => {
    const problem = refusal[name];
    if (problem !== undefined) throw problem;
    return {};
  };
  const platform = {
    clock: { now: () => at, monotonic: () => at },
    authenticate: async () => step("authenticate")(),
    allow: step("allow"),
    resolve: step("resolve"),
  } as unknown as Platform;
  const caller = {
    credential: "a key",
    read: async () => {
      at += arrivalMs;
      return { attribution: {} };
    },
  };
  return ask(platform, { call: {}, caller, tenant: { record: { id: "a tenant" }, project: null } } as unknown as Resolved);
}

for (const [step, problem] of [
  ["authenticate", new Problem("invalid_api_key")],
  ["allow", new Problem("permission_denied")],
  ["resolve", new Problem("tenant_suspended")],
] as const) {
  test(`who is refused by '${step}' once a slow body has arrived is not served`, async () => {
    await assert.rejects(asking(1_000, { [step]: problem }), (thrown) => thrown === problem);
  });
}

test("a body that came at once costs no second check", async () => {
  await asking(5, { authenticate: new Problem("invalid_api_key") });
});

test("a slow body of a caller who still has access is served", async () => {
  await asking(60_000, {});
});
