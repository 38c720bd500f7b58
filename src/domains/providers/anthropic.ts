import type { ModelRequest } from "../../kernel/request.ts";
import type { Deployment } from "../catalog/index.ts";
import type { DispatchOf, HttpBody, Provider, ProviderResponse, RenderValues } from "./contract.ts";
import { bound } from "./dialects/anthropic/bound.ts";
import { countIn, countWire } from "./dialects/anthropic/count.ts";
import { FIELDS } from "./dialects/anthropic/fields.ts";
import { upstreamBody } from "./dialects/anthropic/upstream-body.ts";
import { anthropicWire } from "./dialects/anthropic/wire.ts";
import { requestIn } from "./dialects/translate.ts";
import { accepted } from "./dispatch.ts";
import type { ProviderNeeds } from "./openai-compatible.ts";
import { createTargets } from "./target.ts";
import { refuseUnknown, unknownFields } from "./unknown-fields.ts";

/** Anthropic's own API, and services that speak its wire under a credential's base URL. Requests of other dialects are translated. */
export function anthropic({ upstream }: ProviderNeeds): Provider<HttpBody> {
  const targetOf = createTargets({ defaultBaseUrl: BASE_URL, streamContentType: anthropicWire.streamContentType, authenticate });
  return {
    id: "anthropic",
    label: "Anthropic",
    nature: "vendor",
    defaultBaseUrl: BASE_URL,
    secretField: "api_key",
    freeByDefault: false,
    bound: (request, model) => bound(requestIn("anthropic", request), model),
    accept: (request, deployment) => refuseUnknown(requestIn("anthropic", request), FIELDS, deployment, "forward"),
    render,
    dispatch: send,
  };

  async function send(dispatch: DispatchOf<HttpBody>): Promise<ProviderResponse> {
    const { request, deployment, signal, onSent } = dispatch;
    const target = targetOf(deployment);
    const { body, unknownFields: unknown } = dispatch.rendered ?? render(request, deployment, dispatch);
    const answer = await upstream.request({
      origin: target.origin,
      path: target.pathOf(ROUTES[request.kind]),
      headers: request.stream ? target.streamHeaders : target.wholeHeaders,
      body,
      stream: request.stream,
      wire: request.kind === "count" ? countWire : anthropicWire,
      secret: deployment.credential?.secret ?? null,
      transport: deployment.credential?.transport ?? null,
      timeouts: deployment.options,
      signal,
      onSent,
    });
    return accepted({
      wire: "anthropic",
      upstreamRequestId: answer.upstreamRequestId,
      body: request.kind === "count" ? countIn(answer.body) : answer.body,
      unknownFields: unknown,
    });
  }
}

function render(request: ModelRequest, { upstreamModel, model }: Deployment, { outputBound, cacheSalt }: RenderValues): HttpBody {
  const said = requestIn("anthropic", request);
  return { body: upstreamBody(said, { upstreamModel, model, outputBound, cacheSalt }), unknownFields: unknownFields(said, FIELDS) };
}

const BASE_URL = "https://api.anthropic.com/v1";

const ROUTES: Readonly<Record<ModelRequest["kind"], string>> = { generate: "/messages", count: "/messages/count_tokens" };

/**
 * The version that takes most: its answers are those of 2026-10-21, which the SDK sends, and it still takes `temperature`, `top_p`,
 * `top_k`, documents in an assistant's message and citations in a user's, which that one refuses.
 */
const API_VERSION = "2023-06-01";

function authenticate(secret: string | null): string[] {
  return ["anthropic-version", API_VERSION, ...(secret === null ? [] : ["x-api-key", secret])];
}
