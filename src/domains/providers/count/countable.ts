import { textOf, type ChatPart, type ChatRequest, type ChatToolCall } from "../../../kernel/chat.ts";
import { unsupported } from "../dialects/settings.ts";

/** So much of a prompt as its tokens are counted by. */
export interface Countable {
  /** Its texts in UTF-8, each ended by BETWEEN. */
  readonly texts: Buffer;
  /** Whether they are as they stood in JSON, between the quotes. */
  readonly areEscaped?: boolean;
  /** Tokens of what is no text: the template's, and images'. */
  readonly others: number;
}

/** Tokens that an image is taken for, by detail. */
export interface ImageTokens {
  readonly low: number;
  readonly high: number;
}

/** A byte that no UTF-8 has. */
export const BETWEEN = 0xff;

/**
 * A prompt for a model of OpenAI's kind. The template is 3 tokens a message, its role, and 3 for the answer's beginning (OpenAI's cookbook, "How
 * to count tokens with tiktoken"); tools are their JSON; images are as said, null where no rule is known. Earlier reasoning is not
 * sent. Pure. @throws Problem `unsupported_field` for a part that nothing here can count
 */
export function countableOf(chat: ChatRequest, image: ImageTokens | null): Countable {
  const texts: Buffer[] = [];
  let others = ANSWER_TOKENS;
  for (const message of chat.messages) {
    others += MESSAGE_TOKENS;
    texts.push(Buffer.from(textOf(message.content)), END);
    if (message.role === "assistant") for (const part of message.content) if (part.kind === "tool-call") addCall(part, texts);
    for (const part of message.content) if (part.kind === "image" || part.kind === "document") others += mediaTokens(part, image, texts);
  }
  for (const { name, description, parameters, strict } of chat.tools)
    texts.push(Buffer.from(JSON.stringify({ name, description, parameters, strict: strict ?? undefined })), END);
  const { responseFormat: format } = chat;
  if (format.kind === "json_schema") texts.push(Buffer.from(JSON.stringify(format.schema)), END);
  return { texts: Buffer.concat(texts), others };
}

function addCall(call: ChatToolCall, texts: Buffer[]): void {
  texts.push(Buffer.from(call.name), END, Buffer.from(call.arguments), END);
}

function mediaTokens(part: ChatPart, image: ImageTokens | null, texts: Buffer[]): number {
  if (part.kind === "image" && image !== null) return part.detail === "low" ? image.low : image.high;
  if (part.kind !== "document" || part.source.kind !== "data" || part.source.mediaType !== "text/plain")
    throw unsupported(part.at, "Its tokens cannot be counted here; leave it out of the count.");
  const text = Buffer.from(part.source.base64, "base64").toString("utf8");
  texts.push(Buffer.from(text), END);
  return 0;
}

const END = Buffer.of(BETWEEN);
const MESSAGE_TOKENS = 4;
const ANSWER_TOKENS = 3;
