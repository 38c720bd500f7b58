import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import type { Permit } from "../domains/capacity/index.ts";
import type { Hold, MeteredResponse } from "../domains/metering/index.ts";
import type { ProviderResponse } from "../domains/providers/index.ts";
import type { Principal } from "../domains/identity/index.ts";
import { check, type CheckedResponse } from "./check.ts";
import type { Caller } from "./caller.ts";
import {
  advance,
  type Asked,
  type Authenticated,
  type Compiled,
  type Dispatched,
  type Held,
  type Opened,
  type Placed,
  type Received,
  type Resolved,
} from "./evidence.ts";
import { compile, type CompiledRequest } from "./compile.ts";
import { dispatch } from "./dispatch.ts";
import { hold } from "./hold.ts";
import { meter } from "./meter.ts";
import { open } from "./open.ts";
import { permit } from "./permit.ts";
import { place, type Slot } from "./place.ts";
import type { Platform } from "./platform.ts";
import { resolve } from "./resolve.ts";
import { ask } from "./ask.ts";

// These functions are never called: that each marked line fails to type-check is the assertion. The compiler also
// objects when a marked line starts to compile.

declare const platform: Platform;

export function skippingAStepDoesNotCompile(
  received: Received,
  authenticated: Authenticated,
  resolved: Resolved,
  asked: Asked,
  opened: Opened,
  placed: Placed,
  held: Held,
  caller: Caller,
) {
  // @ts-expect-error a call without a principal has no tenant
  resolve(platform, received);
  // @ts-expect-error the body of a caller without a tenant is not read
  void ask(platform, authenticated);
  // @ts-expect-error no session before the request
  open(platform, resolved);
  // @ts-expect-error no permit before the session
  void permit(platform, asked);
  // @ts-expect-error nothing is compiled that was not permitted
  compile(opened);
  // @ts-expect-error nothing is placed that was not routed
  void place(platform, { hop: held.hop, of: held.of });
  // @ts-expect-error nothing is held that has no slot
  void hold(platform, { hop: held.hop, of: held.of, route: held.route });
  // @ts-expect-error nothing is dispatched that was not held
  void dispatch(platform, placed);
  // @ts-expect-error nothing is metered that was not dispatched
  meter(platform, held);
  // @ts-expect-error a response that was not metered cannot be checked
  check(held as unknown as ProviderResponse);
  // @ts-expect-error a response that was not checked cannot be sent
  void caller.send({} as unknown as MeteredResponse, {} as unknown as Dispatched);
}

export function forgingEvidenceDoesNotCompile() {
  // @ts-expect-error a principal is more than its fields
  const principal: Principal = { kind: "key", id: "x", key: null, tenant: "t", project: null, permissions: new Set(), models: null };
  // @ts-expect-error a permit cannot be written down
  const forgedPermit: Permit = { figures: () => ({ requests: null, tokens: null }), release() {} };
  // @ts-expect-error neither can a slot
  const slot: Slot = { release() {} };
  // @ts-expect-error a request becomes a compiled one only by compiling
  const compiled: CompiledRequest = {} as unknown as Asked["request"];
  // @ts-expect-error a hold is not its facts
  const forgedHold: Hold = { facts: {} as unknown as Hold["facts"], worstCase: 0n, outputBound: null };
  // @ts-expect-error a metered response is not a checked one
  const checked: CheckedResponse = {} as unknown as MeteredResponse;
  return [principal, forgedPermit, slot, compiled, forgedHold, checked];
}

export function replacingEvidenceDoesNotCompile(compiled: Compiled, other: Permit) {
  // @ts-expect-error this evidence is already present
  advance(compiled, { permit: other });
}

test("skipping, forging or replacing a step of the pipeline does not type-check", () => {
  const root = path.join(import.meta.dirname, "..", "..");
  const { stdout, status } = spawnSync(path.join(root, "node_modules", ".bin", "tsc"), ["--noEmit", "--pretty", "false"], {
    cwd: root,
    encoding: "utf8",
  });
  const here = stdout.split("\n").filter((line) => line.includes("evidence.test.ts"));
  assert.deepEqual(here, []);
  assert.equal(status, 0, `the project does not type-check, so these lines prove nothing:\n${stdout}`);
});
