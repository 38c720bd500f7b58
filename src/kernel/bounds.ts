/** Every bound that more than one layer must agree on. A bound used in one file is named in that file. */
export const BOUNDS = {
  /** One request body after inflation, bytes. */
  bodyBytes: 32 * 1024 * 1024,
  /** All request bodies being read or held at once: per process and per tenant, bytes. */
  bodiesInFlightBytes: 256 * 1024 * 1024,
  bodiesInFlightBytesPerTenant: 64 * 1024 * 1024,
  /** One admin request body, bytes. */
  adminBodyBytes: 1024 * 1024,
  /** Nesting of a JSON body. */
  jsonDepth: 64,
  /** The time a body may take to arrive, ms. */
  bodyArrivalMs: 60_000,
  /** One frame (SSE event) of an upstream's stream, bytes. */
  frameBytes: 16 * 1024 * 1024,
  /** One whole (not streamed) upstream response, bytes. */
  responseBytes: 64 * 1024 * 1024,
  /** Bytes buffered for a client that reads slower than the upstream writes, before the upstream is paused. */
  streamBufferBytes: 256 * 1024,
  /** A context window that the catalog does not state, tokens. */
  contextWindowTokens: 131_072,
  /** Attribution tags (feature, user, session), characters. */
  tagLength: 256,
  /** Names of resources, characters. */
  nameLength: 100,
} as const;
