import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { scaled } from "../../../test/support/scale.ts";
import { systemClock } from "../../kernel/clock.ts";
import { type AttemptId, createIdMaker, type Uuid } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import { crc32c } from "./crc32c.ts";
import { type Durability, type Journal, JournalCorrupt, openJournal, RECORD } from "./index.ts";
import { RECORD_HEADER_BYTES, SEGMENT_HEAD_BYTES } from "./record.ts";
import { chanceFrom, SimulatedDisk } from "./simulated-disk.ts";

const DIRECTORY = "/journal";
const BATCH = 3;
const makeId = createIdMaker(systemClock, systemRandom);
const log = { info: () => undefined, error: () => undefined };

test("any changed byte is a JournalCorrupt that names file and offset, unless it lies in the one batch no later record vouches for", async (t) => {
  const seen = { refused: 0, shortened: 0 };
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.nat(), fc.integer({ min: 1, max: 255 }), async (where, offset, change) => {
      const { disk, files, last } = await written();
      const path = files[where % files.length] as string;
      const bytes = disk.bytesOf(path) as Buffer;
      const at = offset % bytes.length;
      bytes[at] = (bytes[at] as number) ^ change;
      const outcome = await open(disk).then(sequencesOf, (error: unknown) => error);
      if (!Array.isArray(outcome)) {
        assert.ok(outcome instanceof JournalCorrupt, String(outcome));
        assert.ok(outcome.file.startsWith(DIRECTORY) && outcome.offset <= bytes.length && outcome.message.includes(outcome.file));
        seen.refused++;
        return;
      }
      seen.shortened++;
      assert.ok(path === files.at(-1), "only the newest segment may be shortened");
      assert.deepEqual(
        outcome,
        Array.from({ length: outcome.length }, (_, index) => index + 1),
        "what is left is a prefix",
      );
      assert.ok(outcome.length >= last - BATCH, "of records, only the last batch may go");
    }),
    { numRuns: scaled(400) },
  );
  t.diagnostic(JSON.stringify(seen));
  assert.ok(seen.refused > 50 && seen.shortened > 5);
});

test("a file that is missing between others is a JournalCorrupt naming the one before it; the oldest may be gone, as release leaves it", async () => {
  const { files } = await written();
  for (let index = 0; index < files.length - 1; index++) {
    const { disk } = await written();
    await disk.remove(files[index] as string);
    if (index === 0) await (await open(disk)).close();
    else await assert.rejects(open(disk), (error) => error instanceof JournalCorrupt && error.file === files[index - 1]);
  }
});

test("a segment in a format version this release does not know, and one of another journal, are refused", async () => {
  for (const [offset, sentence] of [
    [0, /format version/],
    [8, /another journal/],
  ] as const) {
    const { disk, files } = await written();
    const head = disk.bytesOf(files[0] as string) as Buffer;
    head[offset] = (head[offset] as number) ^ 1;
    head.writeUInt32LE(crc32c(head, 0, 36), 36);
    await assert.rejects(open(disk), (error) => error instanceof JournalCorrupt && sentence.test(error.message));
  }
});

test("records that check but stand in another order are refused", async () => {
  const { disk, files } = await written();
  const bytes = disk.bytesOf(files[0] as string) as Buffer;
  const [first, second, third] = [
    SEGMENT_HEAD_BYTES,
    SEGMENT_HEAD_BYTES + RECORD_HEADER_BYTES,
    SEGMENT_HEAD_BYTES + 2 * RECORD_HEADER_BYTES,
  ];
  const moved = Buffer.from(bytes.subarray(first, second));
  bytes.copyWithin(first, second, third);
  moved.copy(bytes, second);
  await assert.rejects(open(disk), (error) => error instanceof JournalCorrupt && error.offset === first);
});

test("an identity cut short by a crash is made anew while there is nothing it could belong to, and refused otherwise", async () => {
  const { disk, files } = await written();
  disk.bytesOf(`${DIRECTORY}/id`)?.fill(0);
  await assert.rejects(open(disk), JournalCorrupt);
  for (const path of files) await disk.remove(path);
  const journal = await open(disk);
  assert.equal(journal.durable(), 0);
  await journal.close();
});

test("process: a power loss leaves records that were appended, or a JournalCorrupt, and nothing else", async (t) => {
  const seen = { opened: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(fc.integer(), async (seed) => {
      const { disk, last } = await written("process");
      const left = disk.afterPowerLoss(new Map(), chanceFrom(seed));
      const outcome = await open(left, "process").then(sequencesOf, (error: unknown) => error);
      if (outcome instanceof JournalCorrupt) {
        seen.refused++;
        return;
      }
      seen.opened++;
      assert.ok(Array.isArray(outcome) && outcome.length <= last, String(outcome));
      const first = outcome[0] ?? 1;
      assert.deepEqual(
        outcome,
        Array.from({ length: outcome.length }, (_, index) => first + index),
      );
    }),
    { numRuns: scaled(300) },
  );
  t.diagnostic(JSON.stringify(seen));
  assert.ok(seen.opened > 10 && seen.refused > 10);
});

test("a refused directory is unlocked again", async () => {
  const { disk } = await written();
  disk.bytesOf(`${DIRECTORY}/id`)?.fill(0);
  await assert.rejects(open(disk), JournalCorrupt);
  disk.lock(DIRECTORY)();
});

/** A closed journal of several segments, written in batches of three. */
async function written(durability: Durability = "power"): Promise<{ disk: SimulatedDisk; files: string[]; last: number }> {
  const disk = new SimulatedDisk();
  const journal = await open(disk, durability);
  let last = 0;
  for (let batch = 0; batch < 9; batch++) {
    for (let count = 0; count < BATCH; count++) last = journal.append(RECORD.settle, makeId<AttemptId>(), "x".repeat(batch * 10));
    await new Promise((resolve) => journal.whenDurable(last, resolve));
  }
  await journal.close();
  const files = disk
    .list(DIRECTORY)
    .filter((name) => name.endsWith(".journal"))
    .sort()
    .map((name) => `${DIRECTORY}/${name}`);
  assert.ok(files.length > 2);
  return { disk, files, last };
}

async function sequencesOf(journal: Journal): Promise<number[]> {
  const records = await journal.read(0, 1_000, 1_000_000);
  await journal.close();
  return records.map(({ sequence }) => sequence);
}

async function open(disk: SimulatedDisk, durability: Durability = "power"): Promise<Journal> {
  const options = {
    directory: DIRECTORY,
    durability,
    clock: systemClock,
    makeId: () => makeId<Uuid>(),
    log,
    fileSystem: disk,
  } as const;
  return (await openJournal({ ...options, limits: { segmentBytes: 700 } })).journal;
}
