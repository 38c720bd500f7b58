import { PassThrough } from "node:stream";
import type { FastifyReply } from "fastify";
import type { Download } from "../../kernel/route.ts";

/**
 * Sends a download while it is written, and cuts a reader that takes nothing for READER_MS; `open` calls `send` with it, within a transaction that ends with the promise. Before the first
 * piece a failure is an answer of its own (the promise rejects); after it the connection is cut, so that part of a download
 * never looks like the whole.
 */
export async function sendDownload(
  reply: FastifyReply,
  open: (send: (download: Download) => Promise<void>) => Promise<void>,
): Promise<FastifyReply> {
  const stream = new PassThrough({ highWaterMark: BUFFERED_BYTES });
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  const written = open(async ({ contentType, fileName, write }) => {
    reply.type(contentType).header("content-disposition", `attachment; filename="${fileName}"`);
    await write(async (text) => {
      if (stream.destroyed) throw readerLeft();
      begin();
      if (!stream.write(text)) await roomIn(stream);
    });
  });
  await Promise.race([begun, written]);
  written.then(
    () => stream.end(),
    (error: Error) => stream.destroy(error),
  );
  return reply.send(stream);
}

function roomIn(stream: PassThrough): Promise<void> {
  return new Promise((resolve, reject) => {
    const stalled = setTimeout(() => stream.destroy(), READER_MS);
    const done = (settle: () => void) => () => {
      clearTimeout(stalled);
      stream.off("drain", drained).off("close", closed);
      settle();
    };
    const drained = done(resolve);
    const closed = done(() => reject(readerLeft()));
    stream.on("drain", drained).on("close", closed);
  });
}

function readerLeft(): Error {
  return new Error("the reader of a download has left");
}

/** Beside the one batch that is being written. */
const BUFFERED_BYTES = 64 * 1024;
/** Half of what PostgreSQL lets a transaction idle. */
const READER_MS = 30_000;
