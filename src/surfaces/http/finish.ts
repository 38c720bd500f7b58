import type { ServerResponse } from "node:http";
import type { Delivery } from "../../pipeline/caller.ts";

/**
 * Ends a response and resolves with how it reached the client. Node calls `end` back also when the socket was destroyed under
 * what was still to be written, so the callback alone does not mean that the bytes are out.
 */
export function finish(response: ServerResponse, resolve: (delivery: Delivery) => void, lastBytes?: Buffer): void {
  const { socket } = response;
  const ended = (): void => resolve(socket?.destroyed === true ? CLIENT_LEFT : DELIVERED);
  // Node writes a head and a string as one string, a head and a buffer as two: 2 µs a call. Latin-1 is a byte a character.
  if (lastBytes !== undefined && lastBytes.length <= MAX_STRING_BYTES) response.end(lastBytes.toString("latin1"), "latin1", ended);
  else response.end(lastBytes, ended);
}

/** What Node encodes on the stack. */
const MAX_STRING_BYTES = 16 * 1024;

export const CLIENT_LEFT: Delivery = { kind: "client_left" };
const DELIVERED: Delivery = { kind: "delivered" };
