import type { Clock } from "../../kernel/clock.ts";
import type { Attribution, ModelRequest } from "../../kernel/request.ts";
import type { TokenBound } from "../../kernel/tokens.ts";
import type { Deployment, Model } from "../catalog/index.ts";
import type { Dispatch, Provider, ProviderResponse } from "./contract.ts";
import { Counter } from "./count/counter.ts";
import { LargeBodies, bare, bareModel, withBuffers } from "./large/large-bodies.ts";
import { LargeRequest } from "./large/large-request.ts";
import type { ParserName } from "./large/parsers.ts";
import { TABLE } from "./table.ts";
import { createUpstreamClient } from "./upstream.ts";

export interface Providers {
  /** Undefined for an id that no provider has. */
  get(id: string): Provider | undefined;
  /** In order of id. */
  list(): readonly Provider[];
  /**
   * Parses a body that `isLarge` on a thread of its own. Its chunks are taken out of their list, so that it is not held twice. Rejects with the parser's
   * Problems, `overloaded`, or `request_too_large` for one that takes too much memory or time to read.
   */
  parseLarge(parser: ParserName, chunks: Buffer[], attribution: Attribution, signal: AbortSignal): Promise<ModelRequest>;
  /** The provider's `accept`, where the request lies. Throws or rejects as that throws. */
  accept(provider: Provider, request: ModelRequest, deployment: Deployment): void | Promise<unknown>;
  /** The provider's `bound`, where the request lies; nothing for a count. */
  bound(provider: Provider, request: ModelRequest, model: Model): TokenBound | Promise<TokenBound>;
  /** Resolves at the first frame or whole body. Rejects with DispatchError. */
  dispatch(provider: Provider, dispatch: Dispatch): Promise<ProviderResponse>;
  /** Cuts what is in flight, closes connections and ends what providers keep running. */
  close(): Promise<void>;
}

/** `more` are providers that need something of their own (`local`: a folder of models). */
export function createProviders(needs: { readonly clock: Clock; readonly more?: readonly Provider[] }): Providers {
  const upstream = createUpstreamClient(needs);
  const counter = new Counter();
  const all = [
    ...TABLE.map((make) => make({ upstream, clock: needs.clock, countTokens: (order) => counter.count(order) })),
    ...(needs.more ?? []),
  ];
  const large = new LargeBodies();
  const byId = new Map(all.toSorted((a, b) => (a.id < b.id ? -1 : 1)).map((provider) => [provider.id, provider]));
  return {
    get: (id) => byId.get(id),
    parseLarge: (parser, chunks, attribution, signal) => large.parse(parser, chunks, attribution, signal),
    accept: (provider, request, deployment) =>
      request instanceof LargeRequest
        ? large.ask(request, { verb: "accept", provider: provider.id, deployment: bare(deployment) })
        : provider.accept(request, deployment),
    bound: (provider, request, model) =>
      request.kind === "count"
        ? NO_BOUND
        : request instanceof LargeRequest
          ? large.ask(request, { verb: "bound", provider: provider.id, model: bareModel(model) })
          : provider.bound(request, model),
    dispatch: (provider, dispatch) =>
      dispatch.request instanceof LargeRequest ? dispatchLarge(provider, dispatch, dispatch.request, large) : provider.dispatch(dispatch),
    list: () => [...byId.values()],
    close: async () => {
      await Promise.all([upstream.close(), large.close(), counter.close(), ...all.map((provider) => provider.close?.())]);
    },
  };
}

async function dispatchLarge(provider: Provider, dispatch: Dispatch, request: LargeRequest, large: LargeBodies): Promise<ProviderResponse> {
  const { outputBound, cacheSalt, deployment } = dispatch;
  const values = { outputBound, cacheSalt };
  const rendered = await large.ask(request, { verb: "render", provider: provider.id, deployment: bare(deployment), values });
  return provider.dispatch({ ...dispatch, rendered: withBuffers(rendered) });
}

/** No vendor bills the counting of tokens. */
const NO_BOUND: TokenBound = { input: 0, output: 0, certainty: "proof" };
