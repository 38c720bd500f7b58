import type { Clock } from "../../kernel/clock.ts";
import type { Attribution, ModelRequest } from "../../kernel/request.ts";
import type { RequestBound } from "../../kernel/tokens.ts";
import type { Deployment, Model } from "../catalog/index.ts";
import type { Dispatch, Provider, ProviderResponse } from "./contract.ts";
import { knownEncodingOf } from "./count/count.ts";
import { BETWEEN, countableOf } from "./count/countable.ts";
import { Counter } from "./count/counter.ts";
import { createTokenizer, type Tokenizer } from "./count/tokenizer.ts";
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
  bound(provider: Provider, request: ModelRequest, model: Model): RequestBound | Promise<RequestBound>;
  /**
   * The text of a prompt that is all text, in bytes and in the tokens that the deployment's tokenizer makes of it; null where that is not known
   * here, or not soon. Never rejects.
   */
  countText(request: ModelRequest, deployment: Deployment): Promise<CountedText | null>;
  /** Resolves at the first frame or whole body. Rejects with DispatchError. */
  dispatch(provider: Provider, dispatch: Dispatch): Promise<ProviderResponse>;
  readonly tokenizer: Tokenizer;
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
    countText: (request, deployment) => countText(request, deployment, counter),
    dispatch: (provider, dispatch) =>
      dispatch.request instanceof LargeRequest ? dispatchLarge(provider, dispatch, dispatch.request, large) : provider.dispatch(dispatch),
    list: () => [...byId.values()],
    tokenizer: createTokenizer(counter),
    close: async () => {
      await Promise.all([upstream.close(), large.close(), counter.close(), ...all.map((provider) => provider.close?.())]);
    },
  };
}

export interface CountedText {
  readonly bytes: number;
  readonly tokens: number;
}

/** A large prompt is not counted: what it costs is not what makes it miss a budget by little. */
async function countText(request: ModelRequest, { upstreamModel }: Deployment, counter: Counter): Promise<CountedText | null> {
  const encoding = knownEncodingOf(upstreamModel);
  if (encoding === null || request instanceof LargeRequest) return null;
  try {
    const { texts } = countableOf(request.chat(), null);
    const bytes = texts.length - texts.reduce((ends, byte) => (byte === BETWEEN ? ends + 1 : ends), 0);
    return { bytes, tokens: await counter.count({ texts, others: 0, encoding }) };
  } catch {
    return null;
  }
}

async function dispatchLarge(provider: Provider, dispatch: Dispatch, request: LargeRequest, large: LargeBodies): Promise<ProviderResponse> {
  const { outputBound, cacheSalt, deployment } = dispatch;
  const values = { outputBound, cacheSalt };
  const rendered = await large.ask(request, { verb: "render", provider: provider.id, deployment: bare(deployment), values });
  return provider.dispatch({ ...dispatch, rendered: withBuffers(rendered) });
}

/** No vendor bills the counting of tokens. */
const NO_BOUND: RequestBound = { input: 0, output: 0, certainty: "proof", answers: 1, each: 0, isStated: true };
