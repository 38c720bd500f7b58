import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { scaled } from "../../../test/support/scale.ts";
import { systemClock } from "../../kernel/clock.ts";
import { type AttemptId, createIdMaker, type Uuid } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import { createCommitThread } from "./commit-thread.ts";
import { type FileSystem, nodeFileSystem } from "./file-system.ts";
import {
  type Journal,
  type JournalFault,
  JournalLocked,
  type JournalOptions,
  JournalUnavailable,
  MAX_PAYLOAD_BYTES,
  openJournal,
  RECORD,
  type RecordKind,
} from "./index.ts";
import { type DiskFault, SimulatedDisk } from "./simulated-disk.ts";

const makeId = createIdMaker(systemClock, systemRandom);
const log = { info: () => undefined, error: () => undefined };
const attempt = makeId<AttemptId>();
const quick = { first: 1, most: 4 };

for (const durability of ["process", "power"] as const) {
  test(`${durability}: records read back as they were appended, in order, and the sequence goes on over restarts`, async (t) => {
    const directory = await temporaryDirectory(t);
    const kind = fc.constantFrom<RecordKind>(RECORD.admit, RECORD.progress, RECORD.settle);
    const payload = fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 300 }),
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    );
    const expected: { sequence: number; kind: RecordKind; attempt: AttemptId; payload: string }[] = [];
    let id: Uuid | undefined;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(kind, payload), { maxLength: 20 }), async (records) => {
        const journal = await open({ directory, durability, limits: { segmentBytes: 3_000 } });
        assert.equal(journal.id, (id ??= journal.id));
        assert.equal(journal.durable(), expected.length);
        for (const [kind, payload] of records) {
          const attempt = makeId<AttemptId>();
          const sequence = journal.append(kind, attempt, payload);
          assert.equal(sequence, expected.length + 1);
          expected.push({ sequence, kind, attempt, payload: Buffer.from(payload).toString("hex") });
        }
        assert.equal(await outcome(journal, expected.length), null);
        const read = (await readAll(journal)).map(({ at, payload, ...rest }) => ({
          ...rest,
          payload: payload.toString("hex"),
          age: Date.now() - at >= 0,
        }));
        assert.deepEqual(
          read,
          expected.map((record) => ({ ...record, age: true })),
        );
        await journal.close();
      }),
      { numRuns: scaled(12) },
    );
  });
}

test("a turn of the event loop is one write, however many records and callbacks append in it", async () => {
  const disk = new SimulatedDisk();
  const journal = await open({ durability: "process", fileSystem: disk });
  await nextTurn();
  for (const records of [1, 10, 1_000]) {
    const before = disk.writes.length;
    for (let count = 0; count < records / 2; count++) journal.append(RECORD.admit, attempt, "in the turn");
    // an I/O callback and the promises it settles belong to the same turn
    process.nextTick(() => journal.append(RECORD.progress, attempt, "in a tick"));
    queueMicrotask(() => journal.append(RECORD.progress, attempt, "in a microtask"));
    await nextTurn();
    assert.equal(disk.writes.length - before, 1);
  }
  await journal.close();
});

test("whenDurable answers at once for a durable record, after the write for a queued one, never for one that does not exist", async () => {
  const journal = await open({ durability: "process", fileSystem: new SimulatedDisk() });
  const heard: string[] = [];
  const first = journal.append(RECORD.admit, attempt, "a");
  const second = journal.append(RECORD.admit, attempt, "b");
  journal.whenDurable(second, () => heard.push("second"));
  journal.whenDurable(first, () => heard.push("first"));
  assert.deepEqual([heard, journal.durable()], [[], 0]);
  await nextTurn();
  assert.deepEqual([heard, journal.durable()], [["second", "first"], 2]);
  journal.whenDurable(first, () => heard.push("at once"));
  assert.equal(heard.at(-1), "at once");
  assert.throws(() => journal.whenDurable(second + 1, () => undefined), RangeError);
  await journal.close();
});

test("read gives only durable records, at most as many and as large as asked, but always one", async () => {
  const journal = await open({
    durability: "process",
    fileSystem: new SimulatedDisk(),
    limits: { segmentBytes: 1_000 },
  });
  for (let count = 0; count < 40; count++) {
    journal.append(RECORD.settle, attempt, Buffer.alloc(100, count));
    if (count % 3 === 0) await nextTurn();
  }
  assert.equal((await journal.read(0, 1_000, 1e6)).length, 40);
  journal.append(RECORD.settle, attempt, "queued");
  assert.equal((await journal.read(40, 10, 1e6)).length, 0);
  await nextTurn();
  for (let after = 0; after <= 41; after++) {
    assert.deepEqual(sequences(await journal.read(after, 5, 1e6)), range(after + 1, Math.min(after + 5, 41)));
    assert.deepEqual(sequences(await journal.read(after, 100, 450)), range(after + 1, Math.min(after + 3 + Number(after > 37), 41)));
    assert.deepEqual(sequences(await journal.read(after, 100, 1)), range(after + 1, Math.min(after + 1, 41)));
  }
  await journal.close();
});

test("release removes segments that lie wholly at or below the mark, and a journal released to its end goes on counting", async (t) => {
  const directory = await temporaryDirectory(t);
  const journal = await open({ directory, limits: { segmentBytes: 500 } });
  for (let count = 0; count < 20; count++) {
    journal.append(RECORD.settle, attempt, Buffer.alloc(150));
    await nextTurn();
  }
  const segments = async (): Promise<number> => (await readdir(directory)).filter((name) => name.endsWith(".journal")).length;
  const before = await segments();
  await journal.release(7);
  assert.ok((await segments()) < before);
  assert.ok((sequences(await journal.read(0, 100, 1e6))[0] ?? Infinity) <= 8, "no record above the mark went");
  await journal.release(20);
  assert.equal(await segments(), 1);
  await journal.close();
  const again = await open({ directory });
  await again.release(20);
  assert.equal(again.append(RECORD.admit, attempt, ""), 21);
  await again.close();
});

test("release goes on after a removal that failed", async () => {
  const faults = new Map<number, DiskFault>();
  const disk = new SimulatedDisk(faults);
  const journal = await open({ fileSystem: disk, limits: { segmentBytes: 100 } });
  for (let count = 0; count < 4; count++) {
    journal.append(RECORD.settle, attempt, Buffer.alloc(150));
    await nextTurn();
  }
  faults.set(disk.operations + 1, "EIO");
  await assert.rejects(journal.release(3), { code: "EIO" });
  await journal.release(3);
  assert.deepEqual(sequences(await readAll(journal)), [4]);
  await journal.close();
});

test("after resumeAfter no sequence at or below the watermark is used, and the gap reads back over restarts", async () => {
  const disk = new SimulatedDisk();
  const journal = await open({ fileSystem: disk });
  journal.resumeAfter(1_000);
  assert.equal(journal.append(RECORD.admit, attempt, "new"), 1_001);
  assert.throws(() => journal.resumeAfter(2_000));
  await journal.close();
  const again = await open({ fileSystem: disk });
  again.resumeAfter(500);
  assert.equal(again.append(RECORD.admit, attempt, "newer"), 1_002);
  assert.equal(await outcome(again, 1_002), null);
  assert.deepEqual(sequences(await again.read(0, 10, 1e6)), [1_001, 1_002]);
  await again.close();
});

test("bounds: a payload, the queue and the backlog each refuse what passes them, and admit again when there is room", async () => {
  const journal = await open({
    fileSystem: new SimulatedDisk(),
    limits: { segmentBytes: 50_000, backlogBytes: 100_000 },
  });
  assert.throws(() => journal.append(RECORD.admit, attempt, Buffer.alloc(MAX_PAYLOAD_BYTES + 1)), RangeError);
  assert.throws(() => journal.append(RECORD.admit, attempt, "é".repeat(MAX_PAYLOAD_BYTES / 2 + 1)), RangeError);
  assert.equal(journal.append(RECORD.admit, attempt, "é".repeat(MAX_PAYLOAD_BYTES / 2)), 1);
  await nextTurn();
  journal.append(RECORD.admit, attempt, Buffer.alloc(MAX_PAYLOAD_BYTES));
  await nextTurn();
  assert.throws(() => journal.append(RECORD.admit, attempt, ""), {
    name: "JournalUnavailable",
    reason: "backlog full",
  });
  assert.equal(journal.append(RECORD.settle, attempt, "what runs is still recorded"), 3);
  await nextTurn();
  await journal.release(2);
  const fill = (): void => {
    for (let count = 0; count < 200; count++) journal.append(RECORD.admit, attempt, Buffer.alloc(MAX_PAYLOAD_BYTES));
  };
  assert.throws(fill, { name: "JournalUnavailable", reason: "queue full" });
  await nextTurn();
  assert.equal(journal.durable(), journal.append(RECORD.settle, attempt, "") - 1);
  await journal.close();
});

for (const [fault, reason] of [
  ["ENOSPC", "disk full"],
  ["torn", "disk full"],
  ["EIO", "disk error"],
] as const) {
  test(`${fault}: waiters hear the fault, append refuses, and the journal recovers on a new segment with new sequences`, async () => {
    const disk = new SimulatedDisk(faultsFrom(8, 14, fault));
    const journal = await open({ durability: "power", fileSystem: disk, limits: { recoveryMilliseconds: quick } });
    const changes: [string, string | undefined][] = [];
    journal.onHealth((health, why) => changes.push([health, why?.reason]));
    let heard: JournalFault | null = null;
    while (heard === null) heard = await outcome(journal, journal.append(RECORD.admit, attempt, "x"));
    assert.deepEqual([heard.reason, journal.health], [reason, "failed"]);
    const lost = journal.durable() + 1;
    assert.throws(() => journal.append(RECORD.admit, attempt, "y"), { name: "JournalUnavailable", reason });
    while (journal.health === "failed") await sleep(1);
    assert.ok((await outcome(journal, lost)) instanceof JournalUnavailable, "a lost record never becomes durable");
    const next = journal.append(RECORD.admit, attempt, "z");
    assert.equal(next, lost + 1);
    assert.equal(await outcome(journal, next), null);
    assert.deepEqual(changes, [
      ["failed", reason],
      ["open", undefined],
    ]);
    assert.deepEqual(sequences(await readAll(journal)), [...range(1, lost - 1), next]);
    await journal.close();
  });
}

test("a callback that throws is an uncaught exception of its own and keeps no other waiter from hearing", async (t) => {
  const journal = await open({ durability: "process", fileSystem: new SimulatedDisk() });
  const heard: string[] = [];
  const sequence = journal.append(RECORD.admit, attempt, "");
  journal.whenDurable(sequence, () => {
    throw new Error("a bug");
  });
  journal.whenDurable(sequence, () => heard.push("the other"));
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  t.after(() => listeners.forEach((listener) => process.on("uncaughtException", listener)));
  const uncaught = new Promise((resolve) => process.once("uncaughtException", resolve));
  assert.equal(((await uncaught) as Error).message, "a bug");
  assert.deepEqual(heard, ["the other"]);
  await journal.close();
});

for (const durability of ["process", "power"] as const) {
  test(`${durability}: close makes what is queued durable, then refuses appends and gives the directory back`, async (t) => {
    const directory = await temporaryDirectory(t);
    const journal = await open({ directory, durability });
    await assert.rejects(open({ directory, durability }), JournalLocked);
    for (let count = 0; count < 100; count++) journal.append(RECORD.settle, attempt, String(count));
    await Promise.all([journal.close(), journal.close()]);
    assert.equal(journal.durable(), 100);
    assert.throws(() => journal.append(RECORD.settle, attempt, ""), { name: "JournalUnavailable", reason: "closed" });
    const again = await open({ directory, durability });
    assert.equal((await readAll(again)).length, 100);
    await again.close();
  });
}

test("a fault on the thread of `power` reaches the waiters, and the thread goes on with a new segment", async (t) => {
  const directory = await temporaryDirectory(t);
  const journal = await open({
    directory,
    durability: "power",
    limits: { segmentBytes: 100, recoveryMilliseconds: quick },
  });
  assert.equal(await outcome(journal, journal.append(RECORD.admit, attempt, Buffer.alloc(200))), null);
  await writeFile(join(directory, "0000000002.journal"), "in the way");
  const fault = await outcome(journal, journal.append(RECORD.admit, attempt, "not written"));
  assert.equal(fault?.reason, "disk error");
  while (journal.health === "failed") await sleep(1);
  assert.equal(await outcome(journal, journal.append(RECORD.admit, attempt, "written")), null);
  assert.deepEqual(sequences(await readAll(journal)), [1, 3]);
  await journal.close();
});

test("a thread that dies fails the batch it had, and the next batch gets a new thread", async (t) => {
  const directory = await temporaryDirectory(t);
  const committer = createCommitThread(directory);
  const commit = (bytes: Buffer): Promise<unknown> =>
    new Promise((resolve) => committer.commit({ newSegment: join(directory, "a"), bytes, start: 0, end: 4 }, resolve));
  const unreadable = { buffer: null } as unknown as Buffer;
  assert.ok((await commit(unreadable)) instanceof Error);
  assert.equal(await commit(committer.allocate(4)), null);
  await committer.close();
});

test("figures: what a record costs", async (t) => {
  for (const durability of ["process", "power"] as const) {
    for (const perTurn of [1, 16, 256]) {
      const directory = await temporaryDirectory(t);
      const { journal, writes } = await openCounting(directory, durability);
      t.diagnostic(`${durability}, ${perTurn} records of 300 bytes a turn: ${await measure(journal, perTurn, writes)}`);
      await journal.close();
    }
  }
});

/** Appends turn by turn, each turn waiting for its last record, and says what it took. */
async function measure(journal: Journal, perTurn: number, writes: { milliseconds: number }): Promise<string> {
  const payload = "x".repeat(300);
  const run = async (turns: number): Promise<number> => {
    let appending = 0;
    for (let turn = 0; turn < turns; turn++) {
      const began = performance.now();
      let last = 0;
      for (let count = 0; count < perTurn; count++) last = journal.append(RECORD.progress, attempt, payload);
      appending += performance.now() - began;
      await new Promise((resolve) => journal.whenDurable(last, resolve));
    }
    return appending;
  };
  await run(Math.ceil(1_000 / perTurn));
  const turns = Math.min(400, Math.ceil(16_000 / perTurn));
  const records = turns * perTurn;
  writes.milliseconds = 0;
  const cpu = process.cpuUsage();
  const began = performance.now();
  const appending = await run(turns);
  const seconds = (performance.now() - began) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  return [
    `append ${((appending * 1_000) / records).toFixed(2)} µs`,
    `write calls ${((writes.milliseconds * 1_000) / records).toFixed(2)} µs`,
    `process CPU ${((user + system) / records).toFixed(2)} µs a record`,
    `${Math.round(records / seconds)} records/s`,
  ].join(", ");
}

async function openCounting(
  directory: string,
  durability: "process" | "power",
): Promise<{ journal: Journal; writes: { milliseconds: number } }> {
  const writes = { milliseconds: 0 };
  const timed: FileSystem = {
    ...nodeFileSystem,
    write: (...range) => {
      const began = performance.now();
      const taken = nodeFileSystem.write(...range);
      writes.milliseconds += performance.now() - began;
      return taken;
    },
  };
  // the thread of `power` has a disk of its own, which is not timed from here
  const journal = await open(durability === "process" ? { directory, durability, fileSystem: timed } : { directory, durability });
  return { journal, writes };
}

async function open(options: Partial<JournalOptions>): Promise<Journal> {
  const { journal } = await openJournal({
    directory: "/journal",
    durability: "process",
    clock: systemClock,
    makeId: () => makeId<Uuid>(),
    log,
    ...options,
  });
  return journal;
}

function outcome(journal: Journal, sequence: number): Promise<JournalFault | null> {
  return new Promise((resolve) => journal.whenDurable(sequence, resolve));
}

async function readAll(journal: Journal) {
  const records = [];
  for (let after = 0; ; after = records.at(-1)?.sequence ?? 0) {
    const batch = await journal.read(after, 7, 2_000);
    if (batch.length === 0) return records;
    records.push(...batch);
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

function sequences(records: readonly { readonly sequence: number }[]): number[] {
  return records.map(({ sequence }) => sequence);
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index);
}

function faultsFrom(first: number, end: number, fault: DiskFault): Map<number, DiskFault> {
  return new Map(range(first, end).map((operation) => [operation, fault]));
}

async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "journal-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}
