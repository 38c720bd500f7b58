import type { Clock } from "../../kernel/clock.ts";
import { Problem } from "../../kernel/problem.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { Deployment } from "../catalog/index.ts";
import { DispatchError, type Dispatch, type Provider, type ProviderResponse } from "./contract.ts";
import { bound, type BoundRule } from "./dialects/openai/bound.ts";
import { FIELDS } from "./dialects/openai/fields.ts";
import { upstreamBody, type BodyShape } from "./dialects/openai/upstream-body.ts";
import { openaiWire } from "./dialects/openai/wire.ts";
import { list, object } from "./dialects/read.ts";
import { accepted } from "./dispatch.ts";
import type { UpstreamClient } from "./upstream.ts";

/** What one provider of the OpenAI wire differs in. A file of these and a line in table.ts add one. */
export interface OpenAiCompatible {
  readonly id: string;
  readonly label: string;
  readonly nature: "vendor" | "engine";
  /** Includes `/v1`; null where the credential must name one. */
  readonly defaultBaseUrl: string | null;
  readonly body: BodyShape;
  readonly bound: BoundRule;
}

/** What the makers of providers are given. */
export interface ProviderNeeds {
  readonly upstream: UpstreamClient;
  readonly clock: Clock;
}

export function openaiCompatible(data: OpenAiCompatible): (needs: ProviderNeeds) => Provider {
  return ({ upstream }) => ({
    id: data.id,
    label: data.label,
    nature: data.nature,
    defaultBaseUrl: data.defaultBaseUrl,
    secretField: "api_key",
    freeByDefault: false,
    bound: (request, model) => bound(request, model, data.bound),
    accept: (request, deployment) => accept(request, deployment, data),
    dispatch: (dispatch) => send(dispatch, data, upstream),
  });
}

async function send(dispatch: Dispatch, data: OpenAiCompatible, upstream: UpstreamClient): Promise<ProviderResponse> {
  const { request, deployment, signal, onSent } = dispatch;
  const { origin, path, streamHeaders, wholeHeaders } = targetOf(deployment, data);
  const answer = await upstream.request({
    origin,
    path,
    headers: request.stream ? streamHeaders : wholeHeaders,
    body: upstreamBody(request, data.body, {
      upstreamModel: deployment.upstreamModel,
      outputBound: dispatch.outputBound,
      cacheSalt: dispatch.cacheSalt,
    }),
    stream: request.stream,
    wire: openaiWire,
    secret: deployment.credential?.secret ?? null,
    transport: deployment.credential?.transport ?? null,
    timeouts: deployment.options,
    signal,
    onSent,
  });
  return accepted({
    wire: "openai",
    upstreamRequestId: answer.upstreamRequestId,
    body: answer.body,
    unknownFields: unknownFields(request),
  });
}

function accept(request: ModelRequest, deployment: Deployment, data: OpenAiCompatible): void {
  const policy = deployment.options.unknownFields ?? (data.nature === "engine" ? "refuse" : "forward");
  const [unknown] = unknownFields(request);
  if (policy === "refuse" && unknown !== undefined)
    throw new Problem("unsupported_field", { param: unknown, message: `'${unknown}' is not a field that this model takes; leave it out.` });
  if (data.nature === "engine") refuseFetching(request);
}

/** An engine fetches a part's URL from inside the platform's network, or from its own disk: media must come inline. */
function refuseFetching(request: ModelRequest): void {
  list(request.fields["messages"]).forEach((message, index) => {
    list(object(message)["content"]).forEach((part, position) => {
      for (const [key, value] of Object.entries(object(part))) {
        const url = typeof value === "string" ? value : object(value)["url"];
        if (!key.endsWith("_url") || (typeof url === "string" && /^data:/i.test(url))) continue;
        const param = `messages[${index}].content[${position}].${key}`;
        throw new Problem("unsupported_field", { param, message: `'${param}' must be a data: URL; this model fetches nothing.` });
      }
    });
  });
}

function unknownFields(request: ModelRequest): string[] {
  return Object.keys(request.fields).filter((key) => !FIELDS.has(key));
}

interface Target {
  readonly origin: string;
  readonly path: string;
  readonly streamHeaders: string[];
  readonly wholeHeaders: string[];
}

/** Made once per deployment of a snapshot. */
const targets = new WeakMap<Deployment, Target>();

function targetOf(deployment: Deployment, data: OpenAiCompatible): Target {
  const known = targets.get(deployment);
  if (known !== undefined) return known;
  const made = makeTarget(deployment, data);
  targets.set(deployment, made);
  return made;
}

function makeTarget(deployment: Deployment, data: OpenAiCompatible): Target {
  const base = deployment.credential?.baseUrl ?? data.defaultBaseUrl;
  if (base === null || !URL.canParse(base))
    throw new DispatchError(
      { kind: "unavailable" },
      { cause: new Error(`deployment ${deployment.name}: its credential names no valid base_url`) },
    );
  const url = new URL(base);
  const secret = deployment.credential?.secret ?? null;
  const common = [
    "content-type",
    "application/json",
    "accept-encoding",
    "identity",
    "user-agent",
    "atrium",
    ...(secret === null ? [] : ["authorization", `Bearer ${secret}`]),
  ];
  return {
    origin: url.origin,
    path: `${url.pathname.replace(/\/+$/, "")}/chat/completions${url.search}`,
    streamHeaders: [...common, "accept", openaiWire.streamContentType],
    wholeHeaders: [...common, "accept", "application/json"],
  };
}
