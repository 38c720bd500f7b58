import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import fc from "fast-check";
import { scaled } from "../../../test/support/scale.ts";
import { systemClock } from "../../kernel/clock.ts";
import { createIdMaker } from "../../kernel/ids.ts";
import type { AttemptId, Uuid } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import { createCommitter } from "./committer.ts";
import { type Durability, type Journal, JournalUnavailable, openJournal, RECORD } from "./index.ts";
import { openWith } from "./open.ts";
import { chanceFrom, type DiskFault, SimulatedDisk } from "./simulated-disk.ts";

const DIRECTORY = "/journal";
const makeId = createIdMaker(systemClock, systemRandom);
const log = { info: () => undefined, error: () => undefined };
const limits = { segmentBytes: 2_000, recoveryMilliseconds: { first: 1, most: 2 } };

type Step =
  | { readonly do: "append"; readonly sizes: readonly number[] }
  | { readonly do: "turns"; readonly count: number }
  | { readonly do: "release"; readonly share: number }
  | { readonly do: "wait" };

interface Life {
  readonly steps: readonly Step[];
  /** First operation, how many in a row, and what each does instead. */
  readonly faults: readonly (readonly [number, number, DiskFault])[];
}

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("append" as const),
      sizes: fc.array(fc.nat(400), { minLength: 1, maxLength: 6, size: "max" }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("turns" as const), count: fc.integer({ min: 1, max: 4 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("release" as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  },
  { weight: 1, arbitrary: fc.constant({ do: "wait" as const }) },
);
const diskFaultKind = fc.constantFrom<DiskFault>("ENOSPC", "EIO", "torn", "short", "crash", "crash");
const life: fc.Arbitrary<Life> = fc.record({
  steps: fc.array(step, { minLength: 5, maxLength: 30, size: "max" }),
  faults: fc.array(fc.tuple(fc.nat(40), fc.integer({ min: 1, max: 4 }), diskFaultKind), { maxLength: 5, size: "max" }),
});

/** What the callers of one directory know. */
interface Ledger {
  readonly appended: Map<number, { readonly attempt: AttemptId; readonly payload: string }>;
  readonly acknowledged: Set<number>;
  readonly refused: Set<number>;
  released: number;
}

const counts = { lives: 0, crashes: 0, faults: 0, acknowledged: 0, recordsRead: 0 };

for (const [durability, loss, how] of [
  ["process", "kill", ""],
  ["power", "kill", ", committing in the turn"],
  ["power", "power loss", ", committing in the turn"],
  ["power", "power loss", ", committing while more is appended"],
] as const) {
  const openOn = how === ", committing while more is appended" ? openDeferred : open;
  test(`${durability}${how}: after a ${loss} at any point of any program on a faulty disk, every record reported durable reads back, in order, once`, async (t) => {
    for (const key of Object.keys(counts) as (keyof typeof counts)[]) counts[key] = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(life, { minLength: 2, maxLength: 4 }), fc.integer(), async (lives, seed) => {
        const chance = chanceFrom(seed);
        const ledger: Ledger = { appended: new Map(), acknowledged: new Set(), refused: new Set(), released: 0 };
        let disk = new SimulatedDisk();
        for (const { steps, faults } of lives) {
          const plan = new Map(
            faults.flatMap(([first, count, kind]) => Array.from({ length: count }, (_, index) => [first + index, kind] as const)),
          );
          disk = loss === "kill" ? disk.afterKill(plan) : disk.afterPowerLoss(plan, chance);
          await live(await openOn(disk, durability).catch(() => null), disk, steps, ledger);
          const left = loss === "kill" || chance() < 0.3 ? disk.afterKill(new Map()) : disk.afterPowerLoss(new Map(), chance);
          await judge(left, durability, ledger);
          disk = left;
        }
      }),
      { numRuns: scaled(120) },
    );
    t.diagnostic(JSON.stringify(counts));
    assert.ok(counts.crashes > 15 && counts.faults > 30 && counts.acknowledged > 1_000, "the programs reached what they are to prove");
  });
}

/** Runs a program until it ends or the disk crashes; the process is then gone without a word. */
async function live(journal: Journal | null, disk: SimulatedDisk, steps: readonly Step[], ledger: Ledger): Promise<void> {
  counts.lives++;
  if (journal === null) return;
  journal.onHealth((health) => {
    if (health === "failed") counts.faults++;
  });
  for (const next of steps) {
    if (disk.crashed) break;
    await run(journal, disk, next, ledger);
  }
  if (disk.crashed) counts.crashes++;
  // the dead process takes no more part: its disk refuses everything from here on
  disk.crashed = true;
  await journal.close();
}

async function run(journal: Journal, disk: SimulatedDisk, next: Step, ledger: Ledger): Promise<void> {
  if (next.do === "append") for (const size of next.sizes) append(journal, disk, size, ledger);
  else if (next.do === "turns") for (let turn = 0; turn < next.count; turn++) await new Promise(setImmediate);
  else if (next.do === "wait") await sleep(3);
  else await release(journal, Math.floor(journal.durable() * next.share), ledger);
}

function append(journal: Journal, disk: SimulatedDisk, size: number, ledger: Ledger): void {
  const attempt = makeId<AttemptId>();
  const payload = attempt.padEnd(size, "é€x");
  let sequence: number;
  try {
    sequence = journal.append(RECORD.admit, attempt, payload);
  } catch (error) {
    assert.ok(error instanceof JournalUnavailable);
    return;
  }
  assert.ok(!ledger.appended.has(sequence), "no sequence is handed out twice");
  ledger.appended.set(sequence, { attempt, payload });
  journal.whenDurable(sequence, (fault) => {
    if (disk.crashed) return;
    if (fault !== null) {
      ledger.refused.add(sequence);
      return;
    }
    counts.acknowledged++;
    ledger.acknowledged.add(sequence);
  });
}

async function release(journal: Journal, through: number, ledger: Ledger): Promise<void> {
  ledger.released = Math.max(ledger.released, through);
  await journal.release(through).catch(() => undefined);
}

/** Opens what is left and compares it with what was promised. */
async function judge(disk: SimulatedDisk, durability: Durability, ledger: Ledger): Promise<void> {
  const first = await openAndRead(disk, durability);
  const again = await openAndRead(disk, durability);
  assert.deepEqual(again, first, "replay is idempotent");
  const { records, last } = first;
  const present = new Set(records.map(({ sequence }) => sequence));
  let before = 0;
  for (const { sequence, attempt, payload } of records) {
    assert.ok(sequence > before, "in order, none twice");
    before = sequence;
    // it may have been shipped now: no later loss may take it
    ledger.acknowledged.add(sequence);
    assert.deepEqual({ attempt, payload: payload.toString() }, ledger.appended.get(sequence));
  }
  for (const sequence of ledger.acknowledged) {
    if (sequence > ledger.released) assert.ok(present.has(sequence), `record ${sequence} was reported durable`);
  }
  const oldest = records[0]?.sequence ?? last + 1;
  for (let sequence = oldest; sequence <= last; sequence++) {
    if (!present.has(sequence))
      assert.ok(!ledger.appended.has(sequence) || ledger.refused.has(sequence), `record ${sequence} is missing, and nobody was told`);
  }
  for (const sequence of ledger.appended.keys()) if (!present.has(sequence) && sequence > last) ledger.appended.delete(sequence);
  for (const sequence of ledger.refused) if (sequence > last) ledger.refused.delete(sequence);
  counts.recordsRead += records.length;
}

async function openAndRead(disk: SimulatedDisk, durability: Durability) {
  const journal = await open(disk, durability);
  const records = [];
  for (let after = 0; ;) {
    const batch = await journal.read(after, 3, 900);
    if (batch.length === 0) break;
    records.push(...batch);
    after = batch.at(-1)?.sequence ?? after;
  }
  const last = journal.durable();
  assert.equal(records.at(-1)?.sequence ?? last, last);
  await journal.close();
  return { id: journal.id, records, last };
}

async function open(disk: SimulatedDisk, durability: Durability): Promise<Journal> {
  return (await openJournal(options(disk, durability))).journal;
}

/** Commits as the thread does: the outcome comes in a later turn. */
function openDeferred(disk: SimulatedDisk, durability: Durability): Promise<Journal> {
  return openWith(options(disk, durability), disk, (onLateFault) => {
    const committer = createCommitter(disk, DIRECTORY, durability, onLateFault);
    return {
      ...committer,
      commit: (batch, done) => {
        setImmediate(() => committer.commit(batch, (error) => setImmediate(done, error)));
      },
    };
  });
}

function options(disk: SimulatedDisk, durability: Durability) {
  return {
    directory: DIRECTORY,
    durability,
    clock: systemClock,
    makeId: () => makeId<Uuid>(),
    log,
    fileSystem: disk,
    limits,
  };
}
