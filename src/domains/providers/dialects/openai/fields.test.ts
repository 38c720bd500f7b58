import { test } from "node:test";
import assert from "node:assert/strict";
import type { ChatCompletionCreateParamsBase } from "openai/resources/chat/completions/completions.js";
import type { FieldRule } from "../field-rules.ts";
import { FIELDS, SDK_FIELDS } from "./fields.ts";

// Compile-time: a field that the official SDK gains, or loses, stops `tsc` here until the table answers for it.
SDK_FIELDS satisfies Record<keyof ChatCompletionCreateParamsBase, FieldRule>;
type Stale = Exclude<keyof typeof SDK_FIELDS, keyof ChatCompletionCreateParamsBase>;
const stale: [Stale] extends [never] ? true : Stale = true;

test("every field of the official SDK has one rule, and every rule that is not plain gives its reason", () => {
  assert.equal(stale, true);
  for (const [name, rule] of FIELDS) if (rule.class !== "plain") assert.ok(rule.why.endsWith("."), name);
  assert.equal(FIELDS.get("constructor"), undefined);
});

test("fields that api.md names as ours are ours", () => {
  const named = [
    "model",
    "store",
    "background",
    "service_tier",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "cache_salt",
    "priority",
    "kv_transfer_params",
    "lora_request",
    "mcp_servers",
  ];
  assert.deepEqual(
    named.filter((name) => FIELDS.get(name)?.class !== "ours"),
    [],
  );
});
