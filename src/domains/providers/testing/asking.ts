import type { Ending } from "../../../kernel/frame.ts";
import type { Transport } from "../../catalog/index.ts";
import { DispatchError, type DispatchFailure } from "../contract.ts";
import { openaiWire } from "../dialects/openai/wire.ts";
import type { UpstreamClient } from "../upstream.ts";
import { play } from "./dispatching.ts";

export interface Asking {
  readonly body?: Buffer;
  readonly stream?: boolean;
  readonly secret?: string;
  readonly transport?: Transport;
  readonly connectTimeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly onSent?: () => void;
}

/** How a request by the client went: the body that came, or why none did; and how often it was said to be sent. */
export interface Asked {
  readonly body: string | null;
  /** Of a stream. */
  readonly ending: Ending["kind"] | null;
  readonly failure: DispatchFailure | null;
  /** Of the failure, for a log. */
  readonly cause: string;
  readonly sent: number;
}

/** Asks an upstream of the OpenAI wire. */
export async function ask(client: UpstreamClient, baseUrl: string, asking: Asking = {}): Promise<Asked> {
  const url = new URL(baseUrl);
  let sent = 0;
  const asked = (told: Partial<Asked>): Asked => ({ body: null, ending: null, failure: null, cause: "", sent, ...told });
  try {
    const answer = await client.request({
      origin: url.origin,
      path: `${url.pathname}/chat/completions`,
      headers: ["content-type", "application/json", ...(asking.secret === undefined ? [] : ["authorization", `Bearer ${asking.secret}`])],
      body: asking.body ?? Buffer.from("{}"),
      stream: asking.stream ?? false,
      wire: openaiWire,
      secret: asking.secret ?? null,
      transport: asking.transport ?? null,
      timeouts: {
        connectTimeoutMs: asking.connectTimeoutMs ?? 3000,
        firstTokenTimeoutMs: 5000,
        idleTimeoutMs: 5000,
        totalTimeoutMs: 20_000,
      },
      signal: asking.signal ?? new AbortController().signal,
      onSent: () => {
        sent++;
        asking.onSent?.();
      },
    });
    if (answer.body.kind === "whole") return asked({ body: answer.body.whole.bytes.toString() });
    if (answer.body.kind === "count") throw new Error("a count was not asked for");
    const { bytes, ending } = await play(answer.body.stream);
    return asked({ body: bytes, ending: ending.kind });
  } catch (thrown) {
    if (thrown instanceof DispatchError)
      return asked({ failure: thrown.failure, cause: thrown.cause instanceof Error ? thrown.cause.message : "" });
    throw thrown;
  }
}
