import { writeFileSync } from "node:fs";
import { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type {
  ChatHistoryItem,
  ChatModelFunctions,
  ChatModelResponse,
  ChatWrapper,
  GbnfJsonObjectSchema,
  GbnfJsonSchema,
  LlamaChatResponse,
  LlamaChatResponseChunk,
  LlamaContextSequence,
  LlamaGrammar,
  LlamaModel,
  LLamaChatGenerateResponseOptions,
  Llama,
  Token,
} from "node-llama-cpp";
import { line, lineReader } from "../../src/domains/providers/local/lines.ts";
import type { Generation, GrammarSchema, LoadOrder, Order, Report } from "../../src/domains/providers/local/protocol.ts";
import type { ModelEvent } from "../../src/kernel/events.ts";
import { NO_TOKENS } from "../../src/kernel/tokens.ts";

/*
 * The child process of provider `local`: one GGUF file, orders on standard input, reports on descriptor 3. It ends when its
 * input does, so it never outlives the server, however that ended.
 */

type Library = typeof import("node-llama-cpp");
type Usage = { readonly prompt: number; readonly output: number; readonly reasoning: number };

interface Loaded {
  readonly library: Library;
  readonly llama: Llama;
  readonly model: LlamaModel;
  readonly free: LlamaContextSequence[];
  /** The file's chat template: finding it takes up to a second, so once. */
  readonly chatWrapper: ChatWrapper;
  readonly contextSize: number;
  readonly longestTokenBytes: number;
}

let loaded: Loaded | null = null;
/** What llama.cpp logged as errors: the library's own message only says that something failed. */
let logged = "";
const running = new Map<number, AbortController>();
const reports = new Socket({ fd: 3, readable: false, writable: true });

function listen(): void {
  // A terminal's ^C and a service manager's SIGTERM reach every process of the group; the server drains first and then ends us.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined);
  preferAsVictim();
  setInterval(() => report({ type: "beat" }), 1000);
  process.stdin.on(
    "data",
    lineReader(ORDER_BYTES, (value) => obey(value as Order)),
  );
  // SIGKILL, because exit would wait for llama.cpp's threads.
  for (const event of ["end", "close", "error"]) process.stdin.on(event, () => process.kill(process.pid, "SIGKILL"));
  reports.on("error", () => process.kill(process.pid, "SIGKILL"));
}

/** One order holds one request; the server bounds its body to less. */
const ORDER_BYTES = 256 * 1024 * 1024;

/** When the machine runs out of memory, the kernel should take this process before the server. */
function preferAsVictim(): void {
  try {
    writeFileSync("/proc/self/oom_score_adj", "1000");
  } catch {
    // Not Linux, or not allowed: the server's own memory limit still holds.
  }
}

function report(value: Report): void {
  reports.write(line(value));
}

function obey(order: Order): void {
  switch (order.type) {
    case "load":
      void load(order).catch((error: unknown) => report({ type: "unusable", reason: reasonOf(error) }));
      return;
    case "generate": {
      const stopper = new AbortController();
      running.set(order.id, stopper);
      void generate(order.id, order.generation, stopper).finally(() => running.delete(order.id));
      return;
    }
    case "abort":
      running.get(order.id)?.abort();
      return;
    default:
      order satisfies never;
  }
}

async function load(order: LoadOrder): Promise<void> {
  const library = await import("node-llama-cpp").catch((cause: unknown) => {
    throw new Error(`The plug-in for local models is not installed (${reasonOf(cause)}). Run: npm run setup:local`, { cause });
  });
  const llama = await library
    .getLlama({
      gpu: false,
      build: "never",
      skipDownload: true,
      progressLogs: false,
      maxThreads: order.threads,
      logLevel: library.LlamaLogLevel.error,
      logger: (_level, message) => void (logged = `${logged}${message.trim()} `.slice(0, LOGGED_CHARACTERS)),
    })
    .catch((cause: unknown) => {
      throw new Error(`llama.cpp has no build for this machine that the plug-in installed (${reasonOf(cause)}). Run: npm run setup:local`, {
        cause,
      });
    });
  const model = await llama.loadModel({ modelPath: order.file, gpuLayers: 0 }).catch(async (cause: unknown) => {
    // The log comes through a queue of its own.
    await delay(LOG_DELAY_MS);
    throw new Error(
      [reasonOf(cause), logged.trim(), "If the file is damaged or was cut off, fetch it again."].filter((part) => part !== "").join(". "),
      { cause },
    );
  });
  if (!model.fileInsights.hasDecoder || model.fileInfo.architectureMetadata.attention?.causal === false)
    throw new Error("The file holds a model that writes no text (an embedding or ranking model).");
  const context = await model.createContext({
    contextSize: Math.min(order.contextSize, model.trainContextSize),
    sequences: order.sequences,
    threads: { ideal: order.threads, min: order.threads },
  });
  // The library may round the size up; the server's bound is what was asked for.
  const contextSize = Math.min(order.contextSize, context.contextSize);
  loaded = {
    library,
    llama,
    model,
    contextSize,
    longestTokenBytes: longestTokenOf(model),
    chatWrapper: library.resolveChatWrapper(model),
    free: Array.from({ length: order.sequences }, () => context.getSequence()),
  };
  report({ type: "ready", contextSize });
}

const LOGGED_CHARACTERS = 500;
const LOG_DELAY_MS = 50;

/** 80 ms for 49,152 tokens. */
function longestTokenOf(model: LlamaModel): number {
  let longest = 1;
  for (const token of model.iterateAllTokens()) longest = Math.max(longest, Buffer.byteLength(model.detokenize([token], true)));
  return longest;
}

async function generate(id: number, generation: Generation, stopper: AbortController): Promise<void> {
  const sequence = loaded?.free.pop();
  if (loaded === null || sequence === undefined) return report({ type: "broken", id, reason: "no sequence is free" });
  try {
    // Nothing of the last request stays: what it had computed would answer the next caller faster, and so tell of it.
    await sequence.clearHistory();
    await answer(id, generation, { ...loaded, sequence, stopper });
    report(stopper.signal.aborted ? { type: "stopped", id } : { type: "done", id });
  } catch (error) {
    if (stopper.signal.aborted) report({ type: "stopped", id });
    else if (error instanceof Refusal) report({ type: "refused", id, code: error.code, message: error.message });
    else report({ type: "broken", id, reason: reasonOf(error) });
  } finally {
    loaded.free.push(sequence);
  }
}

class Refusal extends Error {
  readonly code: "context_length_exceeded" | "invalid_request";
  constructor(code: Refusal["code"], message: string) {
    super(message);
    this.code = code;
  }
}

type Run = Loaded & { readonly sequence: LlamaContextSequence; readonly stopper: AbortController };

async function answer(id: number, generation: Generation, run: Run): Promise<void> {
  const { library, model, sequence, chatWrapper, contextSize, stopper } = run;
  refuseUncountable(generation, run);
  const history = historyOf(generation);
  const functions = functionsOf(generation);
  const { grammar, calls } = await constraintOf(generation, run);
  const prompt = tokensOf(() =>
    chatWrapper
      .generateContextState({
        chatHistory: withAnswer(history),
        ...(functions === null ? {} : { availableFunctions: functions, documentFunctionParams: true }),
      })
      .contextText.tokenize(model.tokenizer),
  );
  if (generation.countOnly) return report({ type: "events", id, events: [usageEvent({ prompt: prompt.length, output: 0, reasoning: 0 })] });
  // The library shifts its window, which forgets the beginning, at the last two tokens.
  const room = contextSize - prompt.length - 2;
  if (room < 1)
    throw new Refusal(
      "context_length_exceeded",
      `This model's context is ${contextSize} tokens; the messages and tools take ${prompt.length}. Shorten them.`,
    );
  await prefill(sequence, prompt, stopper.signal);

  const sampled = sequence.tokenMeter.usedOutputTokens;
  const writer = new Writer(id, calls, stopper.signal);
  const chat = new library.LlamaChat({ contextSequence: sequence, chatWrapper });
  const overflow = new AbortController();
  try {
    const response = await chat
      .generateResponse<ChatModelFunctions>(
        history,
        optionsOf(generation, { grammar, functions, room, writer, overflow, stopper, stop: calls === null ? generation.stop : [] }),
      )
      .catch((error: unknown) => {
        // Only reached where a tool call's syntax took more than was counted: the answer is cut, as at any other limit.
        if (overflow.signal.aborted && !stopper.signal.aborted) return null;
        throw error;
      });
    writer.end(response, {
      prompt: prompt.length,
      output: sequence.tokenMeter.usedOutputTokens - sampled,
      reasoning: writer.reasoningTokens,
    });
  } finally {
    chat.dispose();
  }
}

/** A text that cannot fit even in the longest tokens is not tokenized: 32 MB would keep this process, and all who wait for it, busy for half a minute. */
function refuseUncountable({ messages, tools }: Generation, { contextSize, longestTokenBytes }: Run): void {
  const bytes = [...messages.map(({ text }) => text), ...tools.map(({ description }) => description)].reduce(
    (sum, text) => sum + Buffer.byteLength(text),
    0,
  );
  const least = Math.ceil(bytes / longestTokenBytes);
  if (least > contextSize)
    throw new Refusal(
      "context_length_exceeded",
      `This model's context is ${contextSize} tokens; the messages and tools take more than ${least}. Shorten them.`,
    );
}

interface Conditions {
  readonly grammar: LlamaGrammar | null;
  readonly functions: ChatModelFunctions | null;
  /** Tokens left in the context. */
  readonly room: number;
  readonly writer: Writer;
  readonly overflow: AbortController;
  readonly stopper: AbortController;
  /** None for a forced call: a stop inside its arguments would leave half of them. */
  readonly stop: readonly string[];
}

function optionsOf(generation: Generation, { grammar, functions, room, writer, overflow, stopper, stop }: Conditions): GenerateOptions {
  const tools = functions === null ? {} : { functions, documentFunctionParams: true };
  return {
    ...samplingOf(generation),
    maxTokens: Math.min(room, generation.maxOutputTokens ?? room),
    signal: AbortSignal.any([stopper.signal, overflow.signal]),
    onResponseChunk: (chunk) => writer.chunk(chunk),
    contextShift: {
      // An error thrown here would only make the library forget the beginning in its own way.
      strategy: ({ chatHistory }) => {
        overflow.abort();
        return { chatHistory: [...chatHistory] };
      },
    },
    customStopTriggers: stop,
    ...tools,
    // With a grammar, tools are only described to the model: what it must write is the grammar's matter. The library allows
    // the two together when it is told to stop at a call of its own syntax; its types do not say so.
    ...(grammar !== null
      ? ({ grammar, abortOnNonText: true } as object)
      : functions !== null
        ? { maxParallelFunctionCalls: generation.parallelToolCalls ? PARALLEL_CALLS : 1 }
        : {}),
  };
}

type GenerateOptions = LLamaChatGenerateResponseOptions<ChatModelFunctions>;

/** Reads the prompt in steps short enough to stop between: one step of the library's own can take seconds. */
async function prefill(sequence: LlamaContextSequence, prompt: readonly Token[], signal: AbortSignal): Promise<void> {
  let step = PREFILL_LEAST_TOKENS;
  // The last token stays for the generation, which needs its logits.
  for (let at = 0; at < prompt.length - 1;) {
    signal.throwIfAborted();
    const part = prompt.slice(at, Math.min(at + step, prompt.length - 1));
    const started = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(part);
    at += part.length;
    const fitting = Math.floor((part.length * PREFILL_STEP_MS) / (performance.now() - started));
    step = Math.max(PREFILL_LEAST_TOKENS, Math.min(fitting, step * 2, PREFILL_MOST_TOKENS));
  }
  signal.throwIfAborted();
}

const PREFILL_STEP_MS = 40;
/** On one core of a 135 M model, a token takes 17 ms alone, 5.9 ms among 8, 5.6 ms among 32, 5.5 ms among 64. */
const PREFILL_LEAST_TOKENS = 8;
const PREFILL_MOST_TOKENS = 512;

function tokensOf(render: () => Token[]): Token[] {
  try {
    return render();
  } catch (error) {
    throw new Refusal("invalid_request", `The model's chat template does not take these messages: ${reasonOf(error)}`);
  }
}

/** llama.cpp's server's defaults where the caller says nothing; no repetition penalty, which OpenAI's API does not have either. */
function samplingOf(generation: Generation): Pick<GenerateOptions, "temperature" | "topP" | "topK" | "minP" | "seed" | "repeatPenalty"> {
  return {
    temperature: generation.temperature ?? 0.8,
    topP: generation.topP ?? 0.95,
    topK: 40,
    minP: 0.05,
    // The library's own default is the second of the day: two calls within it would get one answer. llama.cpp seeds are 32 bits.
    seed: generation.seed === null ? Math.floor(Math.random() * 2 ** 32) : Number(BigInt.asUintN(32, BigInt(Math.trunc(generation.seed)))),
    repeatPenalty: false,
  };
}

/** What the model may write. `calls` turns the text that a forced tool call's grammar lets through into that call. */
interface Constraint {
  readonly grammar: LlamaGrammar | null;
  readonly calls: ((text: string) => ToolCall) | null;
}

interface ToolCall {
  readonly name: string;
  readonly arguments: string;
}

async function constraintOf({ format, toolChoice, tools }: Generation, { llama }: Run): Promise<Constraint> {
  const compile = (schema: GrammarSchema): Promise<LlamaGrammar> =>
    llama.createGrammarForJsonSchema(schema as GbnfJsonObjectSchema).catch((error: unknown) => {
      throw new Refusal("invalid_request", `The JSON schema cannot be turned into a grammar: ${reasonOf(error)}`);
    });
  if (typeof toolChoice === "object") {
    const tool = tools.find(({ name }) => name === toolChoice.name);
    if (tool === undefined) throw new Refusal("invalid_request", "tool_choice names a tool that 'tools' does not list.");
    return { grammar: await compile(tool.parameters), calls: (text) => ({ name: tool.name, arguments: JSON.stringify(JSON.parse(text)) }) };
  }
  if (toolChoice === "required") {
    const grammar = await compile({
      oneOf: tools.map(({ name, parameters }) => ({ type: "object", properties: { name: { enum: [name] }, arguments: parameters } })),
    });
    return { grammar, calls: (text) => calledIn(JSON.parse(text)) };
  }
  if (format.kind === "json_schema") return { grammar: await compile(format.schema), calls: null };
  return { grammar: format.kind === "json" ? await llama.getGrammarFor("json") : null, calls: null };
}

function calledIn(value: { readonly name: string; readonly arguments: unknown }): ToolCall {
  return { name: value.name, arguments: JSON.stringify(value.arguments) };
}

/** Tool calls in one answer. */
const PARALLEL_CALLS = 16;

function functionsOf({ tools, toolChoice }: Generation): ChatModelFunctions | null {
  if (tools.length === 0 || toolChoice === "none") return null;
  return Object.fromEntries(
    tools.map(({ name, description, parameters }) => [name, { description, params: parameters as GbnfJsonSchema }]),
  );
}

/** The messages as the library's chat templates take them: a tool's result belongs to the call that asked for it. */
function historyOf({ messages }: Generation): ChatHistoryItem[] {
  const results = new Map(messages.flatMap((message) => (message.role === "tool" ? [[message.toolCallId, message.text] as const] : [])));
  const history: ChatHistoryItem[] = [];
  let open: ChatModelResponse | null = null;
  for (const message of messages) {
    if (message.role === "tool") continue;
    if (message.role !== "assistant") {
      history.push({ type: message.role, text: message.text });
      open = null;
      continue;
    }
    const calls = message.toolCalls.map((call) => ({
      type: "functionCall" as const,
      name: call.name,
      params: parsed(call.arguments),
      result: results.get(call.id) ?? "",
    }));
    const said = [...(message.text === "" ? [] : [message.text]), ...calls];
    if (open === null) history.push((open = { type: "model", response: said }));
    else open.response.push(...said);
  }
  // After a tool's result the model goes on with its turn; after its own text it begins a new one.
  if (messages.at(-1)?.role === "assistant") history.push({ type: "model", response: [] });
  return history;
}

function withAnswer(history: readonly ChatHistoryItem[]): ChatHistoryItem[] {
  return history.at(-1)?.type === "model" ? [...history] : [...history, { type: "model", response: [] }];
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Turns what the library reports into model events of choice 0. */
class Writer {
  readonly #id: number;
  readonly #calls: Constraint["calls"];
  readonly #signal: AbortSignal;
  #collected = "";
  reasoningTokens = 0;

  constructor(id: number, calls: Constraint["calls"], signal: AbortSignal) {
    this.#id = id;
    this.#calls = calls;
    this.#signal = signal;
  }

  chunk(chunk: LlamaChatResponseChunk): void {
    if (this.#signal.aborted) return;
    const reasoning = chunk.type === "segment";
    if (reasoning) this.reasoningTokens += chunk.tokens.length;
    if (this.#calls !== null && !reasoning) {
      this.#collected += chunk.text;
      return report({ type: "events", id: this.#id, events: [] });
    }
    if (chunk.text !== "")
      report({
        type: "events",
        id: this.#id,
        events: [{ type: reasoning ? "reasoning-delta" : "text-delta", choice: 0, text: chunk.text }],
      });
  }

  /** `response` is null where the context was full. */
  end(response: LlamaChatResponse<ChatModelFunctions> | null, usage: Usage): void {
    const reason = response?.metadata.stopReason ?? "maxTokens";
    const calls =
      this.#forced(reason) ??
      (response?.functionCalls ?? []).map((call) => ({ name: call.functionName, arguments: JSON.stringify(call.params ?? {}) }));
    const callEvents = calls.flatMap((call, index) => [
      { type: "tool-call-start", choice: 0, index, id: `call_${crypto.randomUUID().replaceAll("-", "")}`, name: call.name } as const,
      { type: "tool-call-delta", choice: 0, index, arguments: call.arguments } as const,
    ]);
    const finish = reason === "maxTokens" ? "length" : calls.length > 0 ? "tool_calls" : "stop";
    report({
      type: "events",
      id: this.#id,
      events: [
        ...callEvents,
        { type: "choice-end", choice: 0, reason: finish, stopSequence: null },
        usageEvent(usage),
        { type: "response-end" },
      ],
    });
  }

  /** The forced call; none where the limit cut its arguments. Null where no call was forced. */
  #forced(reason: string): ToolCall[] | null {
    if (this.#calls === null) return null;
    return reason === "maxTokens" ? [] : [this.#calls(this.#collected)];
  }
}

function usageEvent({ prompt, output, reasoning }: Usage): ModelEvent {
  const tokens = { ...NO_TOKENS, input_uncached: prompt, output: Math.max(0, output - reasoning), reasoning };
  return { type: "usage", usage: { source: "reported", tokens } };
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

listen();
