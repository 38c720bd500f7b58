import { createMessageRenderer, renderMessage } from "../../domains/providers/index.ts";
import type { SurfaceWire } from "../http/wire.ts";
import { anthropicEnvelope } from "./envelope.ts";
import { anthropicLimitHeaders } from "./limits.ts";

/** `POST /v1/messages`. */
export const messages: SurfaceWire = {
  dialect: "anthropic",
  endpoint: "anthropic.messages",
  family: "messages",
  parser: "messages",
  streamRenderer() {
    const renderer = createMessageRenderer();
    return (events) => renderer.render(events);
  },
  renderWhole: renderMessage,
  renderError: (problem, requestId) => Buffer.from(`event: error\ndata: ${JSON.stringify(anthropicEnvelope(problem, requestId))}\n\n`),
  envelope: anthropicEnvelope,
  limitHeaders: anthropicLimitHeaders,
  requestIdHeader: "request-id",
};
