import type { SurfaceWire } from "../http/wire.ts";
import { messages } from "./messages.ts";

/** `POST /v1/messages/count_tokens`. */
export const countTokens: SurfaceWire = {
  ...messages,
  endpoint: "anthropic.count_tokens",
  parser: "countTokens",
  renderCount: (tokens) => Buffer.from(JSON.stringify({ input_tokens: tokens })),
};
