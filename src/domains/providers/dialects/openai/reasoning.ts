import type { JsonObject } from "../../../../kernel/request.ts";
import { list, number, object, string } from "../read.ts";

/** A piece of reasoning in a message or a delta, in order. A signature is of the text before it. */
export type ReasoningPiece =
  | {
      readonly kind: "text";
      readonly text: string;
      readonly at: string;
      /** Of the block it belongs to; null where it is not numbered. */ readonly index: number | null;
    }
  | { readonly kind: "signature"; readonly signature: string; readonly at: string }
  | { readonly kind: "hidden"; readonly data: string; readonly at: string };

/**
 * The reasoning of an assistant's message, or of a chunk's delta. Two published shapes: a text under `reasoning_content` (DeepSeek, vLLM)
 * or `reasoning` (OpenRouter, Groq), and `reasoning_details` (OpenRouter), a list of `reasoning.text` with a signature,
 * `reasoning.summary` and `reasoning.encrypted`. Who sends both says the text twice: the list counts where it holds text.
 * `at` is a piece's path in what was said; `unknown` that of the first entry of another type, null where there is none.
 */
export function readReasoning(said: JsonObject): { readonly pieces: readonly ReasoningPiece[]; readonly unknown: string | null } {
  const key = string(said["reasoning_content"]) === "" ? "reasoning" : "reasoning_content";
  const plain = string(said[key]);
  const details = list(said["reasoning_details"]).map(object);
  const pieces: ReasoningPiece[] = [];
  let unknown: string | null = null;
  const usesPlain = plain !== "" && !details.some((entry) => textOf(entry));
  if (usesPlain) pieces.push({ kind: "text", text: plain, at: key, index: null });
  details.forEach((entry, position) => {
    const at = `reasoning_details[${position}]`;
    const text = textOf(entry);
    if (text !== null && !usesPlain) pieces.push({ kind: "text", text, at, index: number(entry["index"]) });
    if (typeof entry["signature"] === "string" && entry["signature"] !== "")
      pieces.push({ kind: "signature", signature: entry["signature"], at });
    if (entry["type"] === "reasoning.encrypted") pieces.push({ kind: "hidden", data: string(entry["data"]), at });
    else if (entry["type"] !== "reasoning.text" && entry["type"] !== "reasoning.summary") unknown ??= `${at}.type`;
  });
  return { pieces, unknown };
}

function textOf(entry: JsonObject): string | null {
  const text = entry["type"] === "reasoning.text" ? entry["text"] : entry["type"] === "reasoning.summary" ? entry["summary"] : null;
  return typeof text === "string" ? text : null;
}
