import assert from "node:assert/strict";
import type { PassThrough } from "node:stream";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { FastifyReply } from "fastify";
import { sendDownload } from "./download.ts";

const KIB = 1024;

test("what is as long as a batch is written, and its transaction over, though nobody reads it", async () => {
  const { sent, transaction } = await unread([500 * KIB]);
  await Promise.race([transaction, turn().then(() => assert.fail("still open"))]);
  assert.equal(sent.readableLength, 500 * KIB);
});

test("a reader that leaves the buffer full for half a minute is cut, and one that reads slowly after an hour", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const idle = await unread([800 * KIB, 800 * KIB, 800 * KIB]);
  t.mock.timers.tick(30_000);
  await assert.rejects(idle.transaction, /reader of a download has left/);
  assert.ok(idle.sent.destroyed);
  const slow = await unread(Array<number>(1_000).fill(1_100 * KIB));
  for (let elapsed = 0; elapsed < 60 * 60_000; elapsed += 20_000) {
    assert.ok(!slow.sent.destroyed, `cut after ${elapsed / 1000} s`);
    while (slow.sent.read() !== null);
    await turn();
    t.mock.timers.tick(20_000);
  }
  await assert.rejects(slow.transaction, /reader of a download has left/);
});

/** A download of pieces so long, whose stream only the test reads. */
async function unread(pieces: readonly number[]) {
  const replies: PassThrough[] = [];
  const reply = { type: () => reply, header: () => reply, send: (stream: PassThrough) => (replies.push(stream), reply) };
  let transaction: Promise<void> = Promise.resolve();
  await sendDownload(reply as unknown as FastifyReply, (send) => {
    const write = async (take: (text: string) => Promise<void>) => {
      for (const length of pieces) await take("x".repeat(length));
    };
    return (transaction = send({ contentType: "text/csv", fileName: "usage.csv", write }));
  });
  const [sent] = replies as [PassThrough];
  sent.on("error", () => {});
  return { sent, transaction };
}
