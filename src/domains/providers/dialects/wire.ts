import { isUtf8 } from "node:buffer";
import type { Dialect, Frame, WholeBody } from "../../../kernel/frame.ts";
import type { Json, JsonObject } from "../../../kernel/request.ts";

/** What the upstream client must know of a wire format; one value per dialect. */
export interface Wire {
  readonly dialect: Dialect;
  readonly streamContentType: string;
  /** Reads one stream. */
  decoder(): StreamDecoder;
  /** Reads a body that came in one piece. Throws MalformedUpstream, or UpstreamFault when the body says that it failed. */
  whole(bytes: Buffer): WholeBody;
  /** Reads an error response's body, which may be anything. Never throws. */
  fault(bytes: Buffer): Fault;
}

export interface StreamDecoder {
  /**
   * Appends the frames that `chunk` completes to `frames`; `done` once the last one has been appended (what follows is
   * not looked at). Throws MalformedUpstream or UpstreamFault; frames appended before that stand.
   */
  push(chunk: Buffer, frames: Frame[]): "more" | "done";
  /** The upstream closed without an error. Same answers: anything but `done` is a truncated stream. */
  end(frames: Frame[]): "more" | "done";
}

/** What an upstream said went wrong. */
export interface Fault {
  /** An HTTP status named inside the body; null where it names none. */
  readonly status: number | null;
  /** At most MAX_FAULT_TEXT characters. */
  readonly message: string | null;
  readonly param: string | null;
  readonly code: string | null;
}

/** The upstream's bytes are not this wire. */
export class MalformedUpstream extends Error {
  constructor(why: string) {
    super(`malformed upstream: ${why}`);
    this.name = "MalformedUpstream";
  }
}

/** The upstream said, in a response that had begun well, that it failed. */
export class UpstreamFault extends Error {
  readonly fault: Fault;
  constructor(fault: Fault) {
    super("the upstream reported a failure in its response");
    this.name = "UpstreamFault";
    this.fault = fault;
  }
}

/** The JSON object that the bytes are; null when they are none. */
export function parseObject(bytes: Buffer): JsonObject | null {
  if (!isUtf8(bytes)) return null;
  try {
    const value: unknown = JSON.parse(bytes.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : null;
  } catch {
    return null;
  }
}

/** @throws MalformedUpstream for a value that is nested deeper than any that is written again: writing is recursive. */
export function refuseDeep(value: Json | undefined, levels = MAX_LEVELS): void {
  if (typeof value !== "object" || value === null) return;
  if (levels === 0) throw new MalformedUpstream("a value is nested too deeply");
  for (const child of Object.values(value)) refuseDeep(child as Json, levels - 1);
}

/** Of an upstream's value: more than a caller's body may have, and far from the end of the stack. */
const MAX_LEVELS = 256;

export const MAX_FAULT_TEXT = 1024;
