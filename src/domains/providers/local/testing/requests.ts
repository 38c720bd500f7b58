import { existsSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { ModelEvent } from "../../../../kernel/events.ts";
import type { Ending } from "../../../../kernel/frame.ts";
import type { AttemptId, DeploymentId, ModelId, PriceVersion } from "../../../../kernel/ids.ts";
import { PLATFORM_TENANT } from "../../../../kernel/ids.ts";
import type { JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import type { Deployment } from "../../../catalog/index.ts";
import type { Dispatch, ProviderResponse } from "../../contract.ts";
import { toChat } from "../../dialects/openai/chat.ts";

/** The folder of real models that tests run on, or null: then they say so and are skipped. */
export const TEST_MODELS = process.env["ATRIUM_TEST_MODELS"] ?? null;
export const CHAT_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf";
export const EMBEDDING_MODEL = "all-MiniLM-L6-v2.Q8_0.gguf";

export const PLUGIN_FOLDER = fileURLToPath(new URL("../../../../../plugins/local", import.meta.url));
export const quiet = { info: (): void => undefined, warn: (): void => undefined };

/** Skips a test, saying why, where the models or the plug-in are missing. Returns the models' folder. */
export function needModels(t: TestContext): string | null {
  const missing =
    TEST_MODELS === null
      ? "ATRIUM_TEST_MODELS names no folder of GGUF files"
      : !existsSync(join(PLUGIN_FOLDER, "node_modules/node-llama-cpp"))
        ? "the plug-in is not installed: npm run setup:local"
        : !existsSync(join(TEST_MODELS, CHAT_MODEL))
          ? `${CHAT_MODEL} is not in ATRIUM_TEST_MODELS`
          : null;
  if (missing === null) return TEST_MODELS;
  t.diagnostic(`skipped: ${missing}`);
  t.skip(missing);
  return null;
}

export function requestOf(fields: JsonObject): ModelRequest {
  const chat = toChat(fields);
  return {
    kind: "generate",
    dialect: "openai",
    model: "test",
    stream: fields["stream"] === true,
    includeUsage: false,
    body: Buffer.from(JSON.stringify(fields)),
    fields,
    attribution: { feature: null, user: null, session: null, tags: {} },
    chat: () => chat,
  };
}

export function deploymentOf(
  upstreamModel: string,
  provider: Readonly<Record<string, unknown>> = {},
  options: Partial<Deployment["options"]> = {},
): Deployment {
  const model = {
    id: "m" as ModelId,
    owner: PLATFORM_TENANT,
    name: "test",
    visibility: "all" as const,
    capabilities: [],
    contextWindow: 131_072,
    maxOutputTokens: null,
    createdAt: 0,
    deployments: [],
  };
  return {
    id: "d" as DeploymentId,
    name: "local",
    model,
    provider: "local",
    credential: null,
    upstreamModel,
    region: null,
    prices: [{ from: 0, price: { version: "p" as PriceVersion, source: "free", rates: {} } }],
    options: {
      connectTimeoutMs: 3000,
      firstTokenTimeoutMs: 120_000,
      idleTimeoutMs: 60_000,
      totalTimeoutMs: 300_000,
      unknownFields: null,
      provider: { context_size: 2048, threads: 1, ...provider },
      ...options,
    },
  };
}

export function dispatchOf(fields: JsonObject, deployment: Deployment, more: Partial<Dispatch> = {}): Dispatch {
  return {
    attempt: "a" as AttemptId,
    request: requestOf(fields),
    deployment,
    outputBound: null,
    cacheSalt: "",
    signal: new AbortController().signal,
    onSent: () => undefined,
    ...more,
  };
}

export interface Collected {
  readonly events: readonly ModelEvent[];
  readonly ending: Ending;
}

/** Reads a response to its end. */
export function collect(response: ProviderResponse, onEvent: (event: ModelEvent) => void = () => undefined): Promise<Collected> {
  if (response.body.kind === "whole") return Promise.resolve({ events: response.body.whole.events(), ending: { kind: "complete" } });
  if (response.body.kind === "count") return Promise.reject(new Error("a count is no answer"));
  const { stream } = response.body;
  return new Promise((resolve) => {
    const events: ModelEvent[] = [];
    stream.pipe({
      frames: (frames) => {
        for (const event of frames.flatMap((frame) => frame.events())) {
          events.push(event);
          onEvent(event);
        }
      },
      end: (ending) => resolve({ events, ending }),
    });
  });
}

export function textOf({ events }: Pick<Collected, "events">): string {
  return events.map((event) => (event.type === "text-delta" ? event.text : "")).join("");
}
