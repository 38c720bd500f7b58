import type { ChatRequest } from "../../../kernel/chat.ts";
import type { Json, JsonObject, ModelRequest } from "../../../kernel/request.ts";
import { exactAt, exactJson, hasInexactNumber } from "./json-text.ts";
import { SCHEMA_PATHS } from "./settings.ts";

/**
 * The request as it is to be written into another body: schemas with numbers that a double may not keep (the largest 64-bit integer is a usual
 * one) are taken from the caller's own text, digit for digit. That text is read again at most once.
 */
export function exactChat(request: ModelRequest): ChatRequest {
  const chat = request.chat();
  const { answer, tool: place } = SCHEMA_PATHS[request.dialect];
  let text: Json | null = null;
  const exact = (schema: JsonObject, path: string): JsonObject => {
    if (!hasInexactNumber(schema)) return schema;
    text ??= exactJson(request.body.toString("utf8"));
    return exactAt(text, path) as JsonObject;
  };
  const { responseFormat: format } = chat;
  return {
    ...chat,
    tools: chat.tools.map((tool) => ({ ...tool, parameters: exact(tool.parameters, `${tool.at}.${place}`) })),
    responseFormat: format.kind === "json_schema" ? { ...format, schema: exact(format.schema, answer) } : format,
  };
}
