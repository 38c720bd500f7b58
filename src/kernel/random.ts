import { randomFillSync } from "node:crypto";

/** Fills the bytes with randomness and returns them. Cryptographic in production, seeded in simulations. */
export type RandomBytes = (bytes: Uint8Array) => Uint8Array;

export const systemRandom: RandomBytes = (bytes) => randomFillSync(bytes);
