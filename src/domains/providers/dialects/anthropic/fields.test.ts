import { test } from "node:test";
import assert from "node:assert/strict";
import type { MessageCreateParamsBase as BetaParams } from "@anthropic-ai/sdk/resources/beta/messages/messages.js";
import type { ClientToolUnion, MessageCreateParamsBase } from "@anthropic-ai/sdk/resources/messages/messages.js";
import type { FieldRule } from "../field-rules.ts";
import { FIELDS, SDK_FIELDS } from "./fields.ts";
import { CLIENT_TOOLS } from "./request.ts";

// Compile-time: a field that the official SDK gains, or loses, stops `tsc` here until the table answers for it.
SDK_FIELDS satisfies Record<keyof MessageCreateParamsBase, FieldRule>;
type Stale = Exclude<keyof typeof SDK_FIELDS, keyof MessageCreateParamsBase>;
const stale: [Stale] extends [never] ? true : Stale = true;

/** The beta fields that the SDK has now; one that it gains stops `tsc` here too. */
const BETA_FIELDS = {
  betas: true,
  billing_policy: true,
  compaction: true,
  context_management: true,
  fallback_credit_token: true,
  fallbacks: true,
  mcp_servers: true,
  output_format: true,
  thread: true,
} satisfies Record<Exclude<keyof BetaParams, keyof MessageCreateParamsBase>, true>;

/** Tools that run at the client, as the SDK lists them; one that it gains, or loses, stops `tsc` here. */
type ClientTool = NonNullable<ClientToolUnion["type"]>;
CLIENT_TOOLS satisfies readonly ClientTool[];
const unlisted: Exclude<ClientTool, (typeof CLIENT_TOOLS)[number]> extends never ? true : false = true;

test("every field of the official SDK has one rule, and every rule that is not plain gives its reason", () => {
  assert.equal(stale, true);
  assert.equal(unlisted, true);
  for (const [name, rule] of FIELDS) if (rule.class !== "plain") assert.ok(rule.why.endsWith("."), name);
  assert.equal(FIELDS.get("constructor"), undefined);
});

test("every beta field of the official SDK is refused, since no beta header is sent on", () => {
  for (const name of Object.keys(BETA_FIELDS)) {
    const rule = FIELDS.get(name);
    assert.ok(rule?.class === "ours" && rule.policy.kind === "refuse", name);
  }
});

test("fields that reach the platform's account, its regions or another price are ours", () => {
  for (const name of ["model", "metadata", "service_tier", "inference_geo", "speed", "container", "mcp_servers", "workspace_id"])
    assert.equal(FIELDS.get(name)?.class, "ours", name);
});
