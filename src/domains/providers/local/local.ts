import type { Clock } from "../../../kernel/clock.ts";
import type { ModelEvent } from "../../../kernel/events.ts";
import type { Deployment } from "../../catalog/index.ts";
import { DispatchError, type DispatchOf, type Provider, type ProviderResponse } from "../contract.ts";
import { accepted } from "../dispatch.ts";
import type { EngineSpec, Log } from "./engine.ts";
import { Engines } from "./engines.ts";
import { checkModelName, findModelFile, type ModelFile } from "./model-file.ts";
import { localOptions } from "./options.ts";
import { localBound, renderPrompt, toGeneration, type Prompt } from "./request.ts";
import { Answer } from "./answer.ts";

export interface LocalProvider extends Provider<Prompt> {
  /** Whether the file that a deployment names can be used. Throws Problem `invalid_request` (param `upstream_model`) saying what to do. */
  check(upstreamModel: string): Promise<void>;
  /** Process ids of the children that live now. */
  pids(): readonly number[];
  /** Ends every child; what runs fails. */
  close(): Promise<void>;
}

/**
 * GGUF models on this machine's processor, each in a child process (`plugins/local/inference.ts`).
 * @param needs.modelsDirectory the only folder that files are opened from; null where none is set.
 */
export function createLocalProvider(needs: {
  readonly modelsDirectory: string | null;
  readonly clock: Clock;
  readonly log: Log;
}): LocalProvider {
  const engines = new Engines(needs.clock, needs.log);
  return {
    id: "local",
    label: "Local (GGUF)",
    nature: "inside",
    defaultBaseUrl: null,
    secretField: null,
    freeByDefault: true,
    options: localOptions,
    bound: localBound,
    accept: (request, deployment) => {
      checkModelName(deployment.upstreamModel);
      toGeneration(request, null);
    },
    render: (request, _deployment, { outputBound }) => renderPrompt(request, outputBound),
    dispatch: (dispatch) => dispatchLocally(dispatch, engines, needs),
    check: async (upstreamModel) => void (await findModelFile(needs.modelsDirectory, upstreamModel)),
    pids: () => engines.pids,
    close: () => engines.close(),
  };
}

async function dispatchLocally(
  dispatch: DispatchOf<Prompt>,
  engines: Engines,
  needs: { readonly modelsDirectory: string | null; readonly clock: Clock },
): Promise<ProviderResponse> {
  const { deployment, request } = dispatch;
  const { generation } = dispatch.rendered ?? renderPrompt(request, dispatch.outputBound);
  // A missing or foreign file is the administrator's matter; the caller learns only that this deployment cannot answer.
  const file = await findModelFile(needs.modelsDirectory, deployment.upstreamModel).catch((cause: unknown) => {
    throw new DispatchError({ kind: "unavailable" }, { cause });
  });
  if (dispatch.signal.aborted) throw new DispatchError({ kind: "aborted" });
  const engine = engines.for(file, specOf(deployment, file));
  if (engine === null)
    throw new DispatchError({ kind: "unavailable" }, { cause: new Error("as many local models as may run at once are all at work") });
  const start: ModelEvent = {
    type: "response-start",
    id: `chatcmpl-${dispatch.attempt}`,
    model: deployment.upstreamModel,
    createdSeconds: Math.floor(needs.clock.now() / 1000),
  };
  const response = await new Answer(dispatch, start).from(engine, generation);
  return request.kind === "count" ? counted(response) : response;
}

/** An answer that is nothing but its usage. */
function counted({ body, ...others }: ProviderResponse): ProviderResponse {
  const usage = body.kind === "whole" ? body.whole.events().find((event) => event.type === "usage") : undefined;
  if (usage === undefined) throw new DispatchError({ kind: "malformed" });
  return accepted({ ...others, body: { kind: "count", count: { tokens: usage.usage.tokens.input_uncached, exact: true } } });
}

function specOf(deployment: Deployment, file: ModelFile): EngineSpec {
  const options = localOptions.parse(deployment.options.provider);
  return {
    file: file.path,
    contextSize: Math.min(options.context_size, deployment.model.contextWindow),
    threads: options.threads,
    sequences: options.sequences,
    memoryLimitBytes: options.memory_limit_mb === undefined ? 2 * file.bytes + 2 * GIBIBYTE : options.memory_limit_mb * MEBIBYTE,
    unloadAfterIdleMs: UNLOAD_AFTER_IDLE_MS,
  };
}

const MEBIBYTE = 1024 * 1024;
const GIBIBYTE = 1024 * MEBIBYTE;
const UNLOAD_AFTER_IDLE_MS = 15 * 60_000;
