import { PassThrough } from "node:stream";
import type { FastifyReply } from "fastify";
import type { Download } from "../../kernel/route.ts";

/**
 * Sends a download while it is written; `open` calls `send` with it, within a transaction that ends with the promise. So a reader is cut
 * that leaves the buffer full for READER_MS, or takes longer than DOWNLOAD_MS for the whole. Before the first piece a failure is an
 * answer of its own (the promise rejects); after it the connection is cut, so that part of a download never looks like the whole.
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
  const late = setTimeout(() => stream.destroy(), DOWNLOAD_MS);
  written
    .then(
      () => stream.end(),
      (error: Error) => stream.destroy(error),
    )
    .finally(() => clearTimeout(late));
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

/** More than one batch has, so that what is no longer than that is written, and its transaction over, whether it is read or not. */
const BUFFERED_BYTES = 1024 * 1024;
/** Half of what PostgreSQL lets a transaction idle. */
const READER_MS = 30_000;
const DOWNLOAD_MS = 60 * 60_000;
