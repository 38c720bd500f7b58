import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import type { CommitReply, CommitRequest } from "./commit-worker.ts";
import type { Committer } from "./committer.ts";

/**
 * Commits with `power` durability on a thread of its own: never the event loop, which an fdatasync would stop, and never
 * libuv's pool, where a journal write waited 637 ms behind four busy jobs. A thread that dies fails the batch it had;
 * the next batch gets a new one.
 */
export function createCommitThread(directory: string): Committer {
  let waiting: ((error: unknown) => void) | null = null;

  function settle(error: unknown): void {
    const done = waiting;
    waiting = null;
    thread?.unref();
    done?.(error);
  }

  function start(): Worker {
    const started = new Worker(ENTRY, { workerData: directory, execArgv: [] });
    started.on("message", (reply: CommitReply) =>
      settle(reply === null ? null : Object.assign(new Error(reply.message), { code: reply.code })),
    );
    started.on("error", (error) => {
      if (thread === started) thread = null;
      settle(error);
    });
    started.on("exit", () => {
      if (thread !== started) return;
      thread = null;
      settle(new Error("the journal's thread ended"));
    });
    return started;
  }

  let thread: Worker | null = start();
  // the process may end while no batch is under way
  thread.unref();

  return {
    allocate: (size) => Buffer.from(new SharedArrayBuffer(size)),
    commit({ newSegment, bytes, start: from, end }, done) {
      thread ??= start();
      thread.ref();
      waiting = done;
      const request: CommitRequest = { newSegment, memory: bytes.buffer as SharedArrayBuffer, start: from, end };
      thread.postMessage(request);
    },
    async close() {
      const ending = thread;
      thread = null;
      await ending?.terminate();
    },
  };
}

/** Beside this file and with its extension: `.ts` in the repository, `.js` in the packed package. */
const ENTRY = new URL(`./commit-worker${extname(import.meta.url)}`, import.meta.url);
