import type { ServerResponse } from "node:http";
import type { Delivery } from "../../pipeline/caller.ts";

/**
 * Ends a response and resolves with how it reached the client. Node calls `end` back also when the socket was destroyed under
 * what was still to be written, so the callback alone does not mean that the bytes are out.
 */
export function finish(response: ServerResponse, resolve: (delivery: Delivery) => void, lastBytes?: Buffer): void {
  const { socket } = response;
  response.end(lastBytes, () => resolve(socket?.destroyed === true ? CLIENT_LEFT : DELIVERED));
}

export const CLIENT_LEFT: Delivery = { kind: "client_left" };
const DELIVERED: Delivery = { kind: "delivered" };
