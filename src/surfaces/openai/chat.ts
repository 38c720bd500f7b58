import { createChunkRenderer, renderWhole } from "../../domains/providers/index.ts";
import type { SurfaceWire } from "../http/wire.ts";
import { openaiEnvelope } from "./envelope.ts";
import { openaiLimitHeaders } from "./limits.ts";

/** `POST /v1/chat/completions`. */
export const chatCompletions: SurfaceWire = {
  dialect: "openai",
  endpoint: "openai.chat.completions",
  family: "chat.completions",
  parser: "chatCompletion",
  streamRenderer(request, provider) {
    const renderer = createChunkRenderer({ includeUsage: request.includeUsage, systemFingerprint: provider });
    return (events) => renderer.render(events);
  },
  renderWhole: (events, provider) => renderWhole(events, { includeUsage: true, systemFingerprint: provider }),
  renderError: (problem) => Buffer.from(`data: ${JSON.stringify(openaiEnvelope(problem))}\n\n`),
  envelope: openaiEnvelope,
  limitHeaders: openaiLimitHeaders,
};
