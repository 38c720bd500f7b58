import { systemClock } from "../../../kernel/clock.ts";
import type { ModelEvent } from "../../../kernel/events.ts";
import type { Ending, Frame, FrameStream } from "../../../kernel/frame.ts";
import {
  PLATFORM_TENANT,
  createIdMaker,
  type AttemptId,
  type CredentialId,
  type DeploymentId,
  type ModelId,
  type PriceVersion,
} from "../../../kernel/ids.ts";
import { systemRandom } from "../../../kernel/random.ts";
import type { JsonObject } from "../../../kernel/request.ts";
import type { Deployment, DeploymentOptions, Model, Transport } from "../../catalog/index.ts";
import type { Dispatch } from "../contract.ts";
import { parseChatCompletion } from "../dialects/openai/request.ts";

const newId = createIdMaker(systemClock, systemRandom);

export interface DeploymentFacts {
  readonly provider: string;
  readonly baseUrl?: string;
  readonly secret?: string;
  readonly transport?: Transport;
  readonly options?: Partial<DeploymentOptions>;
  readonly model?: Partial<Model>;
}

/** A deployment as the catalog's snapshot would hold it. */
export function deploymentOf(facts: DeploymentFacts): Deployment {
  const model: Model = {
    id: newId<ModelId>(),
    owner: PLATFORM_TENANT,
    name: "demo",
    visibility: "all",
    capabilities: [],
    contextWindow: 8192,
    maxOutputTokens: null,
    createdAt: 0,
    deployments: [],
    ...facts.model,
  };
  return {
    id: newId<DeploymentId>(),
    name: "first",
    model,
    provider: facts.provider,
    credential:
      facts.baseUrl === undefined
        ? null
        : {
            id: newId<CredentialId>(),
            name: "account",
            provider: facts.provider,
            baseUrl: facts.baseUrl,
            secret: facts.secret ?? null,
            transport: facts.transport ?? null,
          },
    upstreamModel: "upstream-model",
    region: null,
    prices: [{ from: 0, price: { version: newId<PriceVersion>(), source: "free", rates: {} } }],
    options: {
      connectTimeoutMs: 3000,
      firstTokenTimeoutMs: 5000,
      idleTimeoutMs: 5000,
      totalTimeoutMs: 20_000,
      unknownFields: null,
      provider: {},
      ...facts.options,
    },
  };
}

/** A dispatch of a body to a deployment; `sent` counts the calls of `onSent`. */
export function dispatchOf(
  deployment: Deployment,
  body: JsonObject,
  extra: Partial<Dispatch> = {},
): Dispatch & { readonly sent: () => number } {
  let sent = 0;
  return {
    attempt: newId<AttemptId>(),
    request: parseChatCompletion(Buffer.from(JSON.stringify(body))),
    deployment,
    outputBound: null,
    cacheSalt: "salt-of-tenant",
    signal: new AbortController().signal,
    onSent: () => void sent++,
    sent: () => sent,
    ...extra,
  };
}

export interface Played {
  readonly bytes: string;
  readonly events: readonly ModelEvent[];
  readonly ending: Ending;
}

/** Reads a stream to its end, checking what every sink may rely on: calls never overlap, none comes after `end`, none is empty. */
export function play(stream: FrameStream, onFrames: (frames: readonly Frame[]) => void = () => undefined): Promise<Played> {
  return new Promise((resolve, reject) => {
    const bytes: Buffer[] = [];
    const events: ModelEvent[] = [];
    let inside = false;
    let ended = false;
    const guarded = (work: () => void): void => {
      if (inside || ended) reject(new Error("a sink was called inside a call, or after its end"));
      inside = true;
      work();
      inside = false;
    };
    stream.pipe({
      frames: (frames) =>
        guarded(() => {
          if (frames.length === 0) reject(new Error("a sink was given no frames"));
          for (const frame of frames) {
            bytes.push(frame.bytes);
            events.push(...frame.events());
          }
          onFrames(frames);
        }),
      end: (ending) =>
        guarded(() => {
          ended = true;
          resolve({ bytes: Buffer.concat(bytes).toString(), events, ending });
        }),
    });
  });
}

/** The text that events say for a choice. */
export function textOf(events: readonly ModelEvent[], choice = 0): string {
  return events.map((event) => (event.type === "text-delta" && event.choice === choice ? event.text : "")).join("");
}
