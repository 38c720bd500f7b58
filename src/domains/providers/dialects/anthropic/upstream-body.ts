import type { JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import type { Model } from "../../../catalog/index.ts";
import { namespaced } from "../namespaced.ts";
import { membersOf } from "../parsed-request.ts";
import { number, object } from "../read.ts";
import { splice } from "../splice.ts";
import { maxTokens } from "./bound.ts";
import { FIELDS } from "./fields.ts";

export interface BodyValues {
  readonly upstreamModel: string;
  /** Says the maximum where neither the caller nor a hold does. */
  readonly model: Model;
  /** The most output tokens to ask for; null leaves what the caller asked. */
  readonly outputBound: number | null;
  readonly cacheSalt: string;
}

/** The bytes for the upstream: the caller's own, with only our values spliced in. */
export function upstreamBody(request: ModelRequest, values: BodyValues): Buffer {
  const edits = new Map<string, string | null>();
  const { fields } = request;
  for (const key of Object.keys(fields)) {
    const rule = FIELDS.get(key);
    if (rule?.class === "ours" && rule.policy.kind !== "set") edits.set(key, null);
  }
  const user = object(fields["metadata"])["user_id"];
  if (typeof user === "string") edits.set("metadata", JSON.stringify({ user_id: namespaced("metadata.user_id", user, values.cacheSalt) }));
  if (request.model !== values.upstreamModel) edits.set("model", JSON.stringify(values.upstreamModel));
  if (request.kind === "generate") editOutput(edits, fields, values);
  return splice(request.body, membersOf(request), edits);
}

/** A thinking budget must stay below the maximum that it is part of, and 1,024 is the least there is. */
function editOutput(edits: Map<string, string | null>, fields: JsonObject, { model, outputBound }: BodyValues): void {
  const asked = maxTokens(fields, model);
  const sent = outputBound === null ? asked : Math.min(asked, outputBound);
  if (sent === fields["max_tokens"]) return;
  edits.set("max_tokens", String(sent));
  const thinking = object(fields["thinking"]);
  const budget = number(thinking["budget_tokens"]);
  if (budget !== null && budget < asked && budget >= sent)
    edits.set("thinking", JSON.stringify({ ...thinking, budget_tokens: Math.max(LEAST_BUDGET_TOKENS, sent - 1) }));
}

const LEAST_BUDGET_TOKENS = 1024;
