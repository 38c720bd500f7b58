import type { ChatAnswerPart, ChatPart } from "../../kernel/chat.ts";
import type { Clock } from "../../kernel/clock.ts";
import { Problem } from "../../kernel/problem.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { Deployment } from "../catalog/index.ts";
import { countableOf, type Countable } from "./count/countable.ts";
import { encodingOf, imageTokensOf } from "./count/count.ts";
import type { CountOrder } from "./count/counter.ts";
import type { Dispatch, HttpBody, Provider, ProviderResponse, RenderValues } from "./contract.ts";
import { bound, type BoundRule } from "./dialects/openai/bound.ts";
import { FIELDS } from "./dialects/openai/fields.ts";
import type { Extensions } from "./dialects/openai/render-request.ts";
import { upstreamBody, type BodyShape } from "./dialects/openai/upstream-body.ts";
import { openaiWire } from "./dialects/openai/wire.ts";
import { list, object } from "./dialects/read.ts";
import type { Wire } from "./dialects/wire.ts";
import { unsupported } from "./dialects/settings.ts";
import { NO_EXTENSIONS, requestIn } from "./dialects/translate.ts";
import { accepted } from "./dispatch.ts";
import { createTargets, type Target } from "./target.ts";
import { refuseUnknown, unknownFields } from "./unknown-fields.ts";
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
  /** What it takes of callers of other dialects beyond what every upstream of this one does. */
  readonly takes?: Partial<Extensions>;
}

/** What the makers of providers are given. */
export interface ProviderNeeds {
  readonly upstream: UpstreamClient;
  readonly clock: Clock;
  /** Tokens of a prompt, as OpenAI's tokenizers count. Rejects with the problem `overloaded`. */
  readonly countTokens: (order: CountOrder) => Promise<number>;
}

export function openaiCompatible(data: OpenAiCompatible): (needs: ProviderNeeds) => Provider<HttpBody | Countable> {
  const takes: Extensions = { ...NO_EXTENSIONS, ...data.takes };
  const { defaultBaseUrl } = data;
  const targetOf = createTargets({ defaultBaseUrl, streamContentType: openaiWire.streamContentType, authenticate });
  const render = (request: ModelRequest, { upstreamModel }: Deployment, { outputBound, cacheSalt }: RenderValues): HttpBody | Countable => {
    if (request.kind === "count") return countableOf(request.chat(), data.bound.image === null ? null : imageTokensOf(upstreamModel));
    const said = requestIn("openai", request, takes);
    return { body: upstreamBody(said, data.body, { upstreamModel, outputBound, cacheSalt }), unknownFields: unknownFields(said, FIELDS) };
  };
  return ({ upstream, countTokens }) => ({
    id: data.id,
    label: data.label,
    nature: data.nature,
    defaultBaseUrl,
    secretField: "api_key",
    freeByDefault: false,
    bound: (request, model) => bound(requestIn("openai", request, takes), model, data.bound),
    accept: (request, deployment) => accept(request, requestIn("openai", request, takes), deployment, data),
    render,
    dispatch: async (dispatch) => {
      const rendered = dispatch.rendered ?? render(dispatch.request, dispatch.deployment, dispatch);
      if ("body" in rendered) return await send(dispatch, rendered, targetOf(dispatch.deployment), upstream);
      const tokens = await countTokens({ ...rendered, encoding: encodingOf(dispatch.deployment.upstreamModel) });
      return accepted({ wire: null, upstreamRequestId: null, body: { kind: "count", count: { tokens, exact: false } }, unknownFields: [] });
    },
  });
}

async function send(dispatch: Dispatch, rendered: HttpBody, target: Target, upstream: UpstreamClient): Promise<ProviderResponse> {
  const { request, deployment, signal, onSent } = dispatch;
  const answer = await upstream.request({
    origin: target.origin,
    path: target.pathOf("/chat/completions"),
    headers: request.stream ? target.streamHeaders : target.wholeHeaders,
    body: rendered.body,
    stream: request.stream,
    wire: request.dialect === "openai" ? openaiWire : TRANSLATED_WIRE,
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
    unknownFields: rendered.unknownFields,
  });
}

/** Of a translated request the upstream names fields that its caller did not write: none is passed on. */
const TRANSLATED_WIRE: Wire = { ...openaiWire, fault: (bytes) => ({ ...openaiWire.fault(bytes), param: null }) };

/** `said` is the request in this dialect. */
function accept(request: ModelRequest, said: ModelRequest, deployment: Deployment, data: OpenAiCompatible): void {
  refuseUnknown(said, FIELDS, deployment, data.nature === "engine" ? "refuse" : "forward");
  if (data.nature === "engine") refuseFetching(request);
}

/** An engine fetches a part's URL from inside the platform's network, or from its own disk: media must come inline. */
function refuseFetching(request: ModelRequest): void {
  if (request.dialect !== "openai") return refuseUrls(request);
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

function refuseUrls(request: ModelRequest): void {
  for (const part of request.chat().messages.flatMap<ChatPart | ChatAnswerPart>(({ content }) => content))
    if (part.kind === "image" && part.source.kind === "url")
      throw unsupported(part.at, "It must come inline, as base64; this model fetches nothing.");
}

function authenticate(secret: string | null): string[] {
  return secret === null ? [] : ["authorization", `Bearer ${secret}`];
}
