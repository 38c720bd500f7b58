import { createHmac } from "node:crypto";
import type { RandomBytes } from "../../kernel/random.ts";

/** As Standard Webhooks have it: `whsec_` and 32 bytes in base64. */
export function newSecret(random: RandomBytes): string {
  return PREFIX + Buffer.from(random(new Uint8Array(32))).toString("base64");
}

export interface Message {
  /** The event's: the same at every attempt, by which a receiver knows a repeat. */
  readonly id: string;
  /** Of this attempt, Unix seconds. */
  readonly timestamp: number;
  readonly body: string;
}

/** The headers that a receiver verifies, with a signature by each secret. */
export function signedHeaders(secrets: readonly string[], { id, timestamp, body }: Message): Record<string, string> {
  const sign = (secret: string): string => {
    const key = Buffer.from(secret.slice(PREFIX.length), "base64");
    return `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`;
  };
  return { "webhook-id": id, "webhook-timestamp": String(timestamp), "webhook-signature": secrets.map(sign).join(" ") };
}

const PREFIX = "whsec_";
