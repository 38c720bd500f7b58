import type { Json } from "../../../kernel/request.ts";
import { list, object } from "./read.ts";

/** Templates re-indent tools and schemas; 2.6 tokens a byte was measured. */
export const SCHEMA_TOKENS_PER_BYTE = 4;

/** UTF-8 bytes of a text, or of the texts of a list of parts. */
export function textBytes(value: Json | undefined): number {
  if (typeof value === "string") return Buffer.byteLength(value);
  let bytes = 0;
  for (const part of list(value)) bytes += textBytes(object(part)["text"]);
  return bytes;
}

/** At least the bytes of the value as compact JSON, text unescaped: keys, texts and a constant for every other value. */
export function schemaBytes(value: Json | undefined): number {
  if (typeof value === "string") return 3 + Buffer.byteLength(value);
  if (typeof value !== "object" || value === null) return MAX_SCALAR_BYTES;
  let bytes = 3;
  for (const [key, child] of Object.entries(value)) bytes += 4 + Buffer.byteLength(key) + schemaBytes(child);
  return bytes;
}

/** `-1.7976931348623157e+308` and a comma. */
const MAX_SCALAR_BYTES = 26;
