import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

/** What a caller says next. */
export interface Turn {
  readonly text?: string;
  /** Results of the calls of the last answer, in order. */
  readonly results?: readonly string[];
  readonly image?: string;
}

export interface Settings {
  readonly stream?: boolean;
  readonly tools?: boolean;
  readonly schema?: object;
  readonly stop?: readonly string[];
  readonly thinking?: boolean;
  readonly system?: string;
  readonly cached?: boolean;
}

/** What an official client made of an answer, in no dialect. */
export interface Transcript {
  readonly text: string;
  readonly refusal: string | null;
  readonly reasoning: { readonly text: string; readonly signature: string } | null;
  readonly calls: readonly { readonly id: string; readonly name: string; readonly input: unknown }[];
  readonly end: string;
  readonly usage: { readonly input: number; readonly cacheRead: number; readonly cacheWrite: number; readonly output: number };
}

/** One conversation by an official client: each answer is sent back with the next turn, as the client gave it. */
export interface Conversation {
  say(turn: Turn, settings?: Settings): Promise<Transcript>;
}

export interface Access {
  readonly url: string;
  readonly key: string;
  readonly model: string;
}

/** Opens conversations, by the caller's dialect. */
export const CALLERS: Readonly<Record<"openai" | "anthropic", (access: Access) => Conversation>> = {
  openai: (access) => new ByOpenAI(access),
  anthropic: (access) => new ByAnthropic(access),
};

export function openaiClient({ url, key }: Pick<Access, "url" | "key">): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, logLevel: "off" });
}

export function anthropicClient({ url, key }: Pick<Access, "url" | "key">): Anthropic {
  return new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0, logLevel: "off" });
}

export const MAX_TOKENS = 64;
const WEATHER = { type: "object" as const, properties: { city: { type: "string" }, days: { type: "integer" } }, required: ["city"] };

class ByOpenAI implements Conversation {
  readonly #access: Access;
  readonly #client: OpenAI;
  readonly #messages: OpenAI.ChatCompletionMessageParam[] = [];
  #calls: readonly { readonly id: string }[] = [];

  constructor(access: Access) {
    this.#access = access;
    this.#client = openaiClient(access);
  }

  async say(turn: Turn, settings: Settings = {}): Promise<Transcript> {
    if (settings.system !== undefined) this.#messages.push({ role: "system", content: settings.system });
    turn.results?.forEach((content, index) =>
      this.#messages.push({ role: "tool", tool_call_id: (this.#calls[index] as { id: string }).id, content }),
    );
    const { text, image } = turn;
    if (text !== undefined && image === undefined) this.#messages.push({ role: "user", content: text });
    else if (text !== undefined)
      this.#messages.push({
        role: "user",
        content: [
          { type: "text", text },
          { type: "image_url", image_url: { url: `data:image/png;base64,${image}` } },
        ],
      });
    const answer = await this.#ask(settings);
    this.#messages.push(answer.message as OpenAI.ChatCompletionMessageParam);
    this.#calls = answer.transcript.calls;
    return answer.transcript;
  }

  async #ask(settings: Settings): Promise<{ message: object; transcript: Transcript }> {
    const body: OpenAI.ChatCompletionCreateParamsNonStreaming = {
      model: this.#access.model,
      messages: this.#messages,
      max_completion_tokens: MAX_TOKENS,
      ...(settings.tools === true
        ? { tools: [{ type: "function", function: { name: "weather", description: "The weather.", parameters: WEATHER } }] }
        : {}),
      ...(settings.schema === undefined
        ? {}
        : {
            response_format: {
              type: "json_schema",
              json_schema: { name: "place", schema: settings.schema as Record<string, unknown>, strict: true },
            },
          }),
      ...(settings.stop === undefined ? {} : { stop: [...settings.stop] }),
      ...(settings.thinking === true ? { reasoning_effort: "low" } : {}),
    };
    return settings.stream === true ? this.#stream(body) : this.#whole(body);
  }

  async #whole(body: OpenAI.ChatCompletionCreateParamsNonStreaming) {
    const { choices, usage } = await this.#client.chat.completions.create(body);
    const [choice] = choices;
    const message = choice?.message as Message;
    return { message, transcript: this.#transcript(message, choice?.finish_reason, usage) };
  }

  async #stream(body: OpenAI.ChatCompletionCreateParamsNonStreaming) {
    const message: Message = { role: "assistant", content: null };
    let finish: string | null | undefined;
    let usage: OpenAI.CompletionUsage | null | undefined;
    const stream = await this.#client.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      usage = chunk.usage ?? usage;
      const [choice] = chunk.choices;
      finish = choice?.finish_reason ?? finish;
      if (choice !== undefined) merge(message, choice.delta as Delta);
    }
    return { message, transcript: this.#transcript(message, finish, usage) };
  }

  #transcript(message: Message, finish: string | null | undefined, usage: OpenAI.CompletionUsage | null | undefined): Transcript {
    const signature = message.reasoning_details?.map((detail) => detail.signature ?? "").join("") ?? "";
    const details = usage?.prompt_tokens_details as { cached_tokens?: number; cache_write_tokens?: number } | undefined;
    const read = details?.cached_tokens ?? 0;
    const written = details?.cache_write_tokens ?? 0;
    return {
      text: message.content ?? "",
      refusal: message.refusal ?? null,
      reasoning: message.reasoning_content === undefined ? null : { text: message.reasoning_content, signature },
      calls: (message.tool_calls ?? []).map(({ id, function: { name, arguments: written } }) => ({
        id,
        name,
        input: JSON.parse(written) as unknown,
      })),
      end: String(finish),
      usage: {
        input: (usage?.prompt_tokens ?? 0) - read - written,
        cacheRead: read,
        cacheWrite: written,
        output: usage?.completion_tokens ?? 0,
      },
    };
  }
}

interface Call {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

/** An assistant's message, with the extensions in which reasoning is told. */
interface Message {
  role: "assistant";
  content: string | null;
  refusal?: string | null;
  tool_calls?: Call[];
  reasoning_content?: string;
  reasoning_details?: { type: string; text?: string; signature?: string | null; index?: number }[];
}

interface Delta {
  readonly content?: string | null;
  readonly refusal?: string | null;
  readonly tool_calls?: readonly {
    readonly index: number;
    readonly id?: string;
    readonly function?: { readonly name?: string; readonly arguments?: string };
  }[];
  readonly reasoning_content?: string;
  readonly reasoning_details?: Message["reasoning_details"];
}

/** As clients that know the extensions put a message together. */
function merge(message: Message, delta: Delta): void {
  if (typeof delta.content === "string" && delta.content !== "") message.content = (message.content ?? "") + delta.content;
  if (typeof delta.refusal === "string") message.refusal = (message.refusal ?? "") + delta.refusal;
  if (delta.reasoning_content !== undefined) message.reasoning_content = (message.reasoning_content ?? "") + delta.reasoning_content;
  for (const detail of delta.reasoning_details ?? []) {
    message.reasoning_details ??= [];
    const last = message.reasoning_details.at(-1);
    if (last === undefined || last.index !== detail.index) message.reasoning_details.push({ ...detail });
    else {
      if (detail.text !== undefined) last.text = (last.text ?? "") + detail.text;
      if (typeof detail.signature === "string") last.signature = detail.signature;
    }
  }
  for (const { index, id, function: said } of delta.tool_calls ?? []) {
    message.tool_calls ??= [];
    const call = (message.tool_calls[index] ??= { id: id ?? "", type: "function", function: { name: said?.name ?? "", arguments: "" } });
    call.function.arguments += said?.arguments ?? "";
  }
}

class ByAnthropic implements Conversation {
  readonly #access: Access;
  readonly #client: Anthropic;
  readonly #messages: Anthropic.MessageParam[] = [];
  #system: string | undefined;
  #calls: readonly { readonly id: string }[] = [];

  constructor(access: Access) {
    this.#access = access;
    this.#client = anthropicClient(access);
  }

  async say(turn: Turn, settings: Settings = {}): Promise<Transcript> {
    this.#system = settings.system ?? this.#system;
    const content: Anthropic.ContentBlockParam[] = (turn.results ?? []).map((result, index) => ({
      type: "tool_result",
      tool_use_id: (this.#calls[index] as { id: string }).id,
      content: result,
    }));
    if (turn.text !== undefined)
      content.push({
        type: "text",
        text: turn.text,
        ...(settings.cached === true ? { cache_control: { type: "ephemeral" as const, ttl: "1h" as const } } : {}),
      });
    if (turn.image !== undefined) content.push({ type: "image", source: { type: "base64", media_type: "image/png", data: turn.image } });
    this.#messages.push({ role: "user", content });
    const message = await this.#ask(settings);
    this.#messages.push({ role: "assistant", content: message.content as Anthropic.ContentBlockParam[] });
    const transcript = toTranscript(message);
    this.#calls = transcript.calls;
    return transcript;
  }

  #ask(settings: Settings): Promise<Anthropic.Message> {
    const body: Anthropic.MessageCreateParamsNonStreaming = {
      model: this.#access.model,
      max_tokens: MAX_TOKENS,
      messages: this.#messages,
      ...(this.#system === undefined ? {} : { system: this.#system }),
      ...(settings.tools === true ? { tools: [{ name: "weather", description: "The weather.", input_schema: WEATHER }] } : {}),
      ...(settings.stop === undefined ? {} : { stop_sequences: [...settings.stop] }),
      ...(settings.thinking === true ? { thinking: { type: "adaptive" as const } } : {}),
      ...(settings.schema === undefined && settings.thinking !== true
        ? {}
        : {
            output_config: {
              ...(settings.schema === undefined
                ? {}
                : { format: { type: "json_schema" as const, schema: settings.schema as Record<string, unknown> } }),
              ...(settings.thinking === true ? { effort: "low" as const } : {}),
            },
          }),
    };
    return settings.stream === true ? this.#client.messages.stream(body).finalMessage() : this.#client.messages.create(body);
  }
}

function toTranscript({ content, stop_reason, stop_details, usage }: Anthropic.Message): Transcript {
  const thinking = content.find((block) => block.type === "thinking");
  const explanation = stop_details?.type === "refusal" ? stop_details.explanation : null;
  return {
    text: content.map((block) => (block.type === "text" ? block.text : "")).join(""),
    refusal: explanation ?? null,
    reasoning: thinking === undefined ? null : { text: thinking.thinking, signature: thinking.signature },
    calls: content.flatMap((block) => (block.type === "tool_use" ? [{ id: block.id, name: block.name, input: block.input }] : [])),
    end: String(stop_reason),
    usage: {
      input: usage.input_tokens,
      cacheRead: usage.cache_read_input_tokens ?? 0,
      cacheWrite: usage.cache_creation_input_tokens ?? 0,
      output: usage.output_tokens,
    },
  };
}
