import { parentPort, workerData } from "node:worker_threads";
import { createCommitter } from "./committer.ts";
import { nodeFileSystem } from "./file-system.ts";

/** A batch, its bytes in memory shared with the sender. */
export interface CommitRequest {
  readonly newSegment: string | null;
  readonly memory: SharedArrayBuffer;
  readonly start: number;
  readonly end: number;
}

/** Null, or the error's parts: cloning an `Error` loses its code. */
export type CommitReply = null | { readonly message: string; readonly code: string | undefined };

if (parentPort !== null) serve(parentPort);

function serve(port: NonNullable<typeof parentPort>): void {
  const committer = createCommitter(nodeFileSystem, workerData as string, "power", () => undefined);
  const reply = (error: unknown): void => port.postMessage(error === null ? null : describe(error));
  port.on("message", ({ newSegment, memory, start, end }: CommitRequest) => {
    committer.commit({ newSegment, bytes: Buffer.from(memory), start, end }, reply);
  });
}

function describe(error: unknown): CommitReply {
  if (!(error instanceof Error)) return { message: String(error), code: undefined };
  return { message: error.message, code: "code" in error ? String(error.code) : undefined };
}
