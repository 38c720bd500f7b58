import type { JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import type { OursPolicy } from "../field-rules.ts";
import { namespaced } from "../namespaced.ts";
import { membersOf } from "../parsed-request.ts";
import { splice } from "../splice.ts";
import { FIELDS } from "./fields.ts";

/** What an upstream of this dialect wants, as data. */
export interface BodyShape {
  /** The field it bounds output by. `either`: it knows both names. */
  readonly outputField: "either" | "max_tokens";
  /** Whether `stream_options` must ask for usage, or usage always comes and the field is not known. */
  readonly streamUsage: "asked" | "always";
  /** Where an engine takes the tenant's cache salt; null for upstreams that take none. */
  readonly saltField: string | null;
  /** Whether end users' identifiers and cache keys are sent on (as HMACs) or dropped. */
  readonly takesIdentifiers: boolean;
}

export interface BodyValues {
  readonly upstreamModel: string;
  /** The most output tokens to ask for; null leaves what the caller asked. */
  readonly outputBound: number | null;
  readonly cacheSalt: string;
}

/** The bytes for the upstream: the caller's own, with only our values spliced in. */
export function upstreamBody(request: ModelRequest, shape: BodyShape, values: BodyValues): Buffer {
  const edits = new Map<string, string | null>();
  const { fields } = request;
  for (const key of Object.keys(fields)) {
    const rule = FIELDS.get(key);
    if (rule?.class === "ours") editOurs(edits, key, rule.policy, fields, shape, values);
  }
  if (request.model !== values.upstreamModel) edits.set("model", JSON.stringify(values.upstreamModel));
  else edits.delete("model");
  editStreamOptions(edits, request, shape);
  if (shape.saltField !== null)
    edits.set(shape.saltField, JSON.stringify(saltFor(fields[shape.saltField], shape.saltField, values.cacheSalt)));
  editOutput(edits, fields, shape, values.outputBound);
  return splice(request.body, membersOf(request), edits);
}

function editOurs(
  edits: Map<string, string | null>,
  key: string,
  policy: OursPolicy,
  fields: JsonObject,
  shape: BodyShape,
  values: BodyValues,
): void {
  const value = fields[key];
  const sendsOn = policy.kind === "namespace" && shape.takesIdentifiers && typeof value === "string";
  if (policy.kind !== "set") edits.set(key, sendsOn ? JSON.stringify(namespaced(key, value, values.cacheSalt)) : null);
}

function editStreamOptions(edits: Map<string, string | null>, request: ModelRequest, shape: BodyShape): void {
  const given = request.fields["stream_options"];
  if (!request.stream || shape.streamUsage === "always") {
    if (given !== undefined) edits.set("stream_options", null);
    return;
  }
  if (!request.includeUsage)
    edits.set("stream_options", JSON.stringify({ ...(given as JsonObject | null | undefined), include_usage: true }));
}

function saltFor(given: JsonObject[string], field: string, cacheSalt: string): string {
  return typeof given === "string" && given !== "" ? namespaced(field, given, cacheSalt) : cacheSalt;
}

function editOutput(edits: Map<string, string | null>, fields: JsonObject, shape: BodyShape, outputBound: number | null): void {
  const bounded = (asked: number): number => (outputBound === null ? asked : Math.min(asked, outputBound));
  const modern = fields["max_completion_tokens"];
  const legacy = fields["max_tokens"];
  if (typeof modern !== "number" && typeof legacy !== "number") {
    if (outputBound !== null) edits.set(shape.outputField === "max_tokens" ? "max_tokens" : "max_completion_tokens", String(outputBound));
    return;
  }
  if (shape.outputField === "max_tokens") {
    const asked = typeof modern === "number" ? modern : (legacy as number);
    if (modern !== undefined) edits.set("max_completion_tokens", null);
    if (bounded(asked) !== legacy) edits.set("max_tokens", String(bounded(asked)));
    return;
  }
  if (typeof modern === "number" && bounded(modern) !== modern) edits.set("max_completion_tokens", String(bounded(modern)));
  if (typeof legacy === "number" && bounded(legacy) !== legacy) edits.set("max_tokens", String(bounded(legacy)));
}
