import assert from "node:assert/strict";
import test from "node:test";
import { chanceFrom, type DiskFault, SimulatedDisk } from "../../../storage/journal/simulated-disk.ts";
import { type Durability, type Journal, openJournal, RECORD } from "../../../storage/journal/index.ts";
import { type Clock, systemClock } from "../../../kernel/clock.ts";
import type { AttemptId, TenantId } from "../../../kernel/ids.ts";
import { hold, sent } from "../hold.ts";
import { meter } from "../meter.ts";
import type { Hold } from "../model.ts";
import { encodeSettlement } from "../records.ts";
import { Attempts, type SettledAttempt, settleLost } from "../replay.ts";
import { Settler } from "../settle.ts";
import { Speeds } from "../speeds.ts";
import { factsOf, newId, PRICE, silent } from "../testing/facts.ts";
import { deltaFrame, doneFrame, ScriptedStream, stopFrame, streamed, usageFrame } from "../testing/scripted-stream.ts";
import { BudgetExceeded } from "./exceeded.ts";
import { Holds } from "./holds.ts";
import { budgetOf } from "./testing/budgets.ts";

const clock: Clock = systemClock;
const TENANT: TenantId = newId();
const INPUT = 20;
const OUTPUT = 600;
const WORST = BigInt(INPUT) * 150_000n + BigInt(OUTPUT) * 600_000n;
/** Three at once, and what they leave for more. */
const BUDGET = budgetOf({ owner: TENANT, window: "total", cap: 3n * WORST + WORST / 2n });
const STREAMS = 8;

/** What somebody beside the process saw of an attempt before it died. */
interface Seen {
  delivered: number;
  charge: bigint | null;
}

/** One life of a process that runs streams under the budget until they end or its disk crashes. */
async function live(disk: SimulatedDisk, durability: Durability, spent: bigint, oracle: Map<AttemptId, Seen>): Promise<number> {
  let journal: Journal;
  try {
    ({ journal } = await openJournal({ directory: "/journal", durability, clock, makeId: newId, log: silent, fileSystem: disk }));
  } catch (error) {
    if (disk.crashed) return 0;
    throw error;
  }
  const holds = new Holds({
    clock,
    budgetsOf: (owner) => (owner === TENANT ? BUDGETS : []),
    indexOf: () => null,
    refresh: async () => {},
    readBetween: async (_first, take, read) => {
      const names = take();
      read(
        names,
        names.map(() => [{ start: 0, posted: spent, adjusted: 0n, overage: 0n }]),
      );
    },
  });
  const speeds = new Speeds();
  const settler: Settler = new Settler({ journal, clock, speeds, log: silent, settled: (settlement) => holds.settled(settlement) });
  const needs = { journal, clock, speeds, holds, voided: settler.void.bind(settler) };
  let refused = 0;
  const stream = async (index: number): Promise<void> => {
    await turns(index * 3);
    const facts = factsOf({ tenant: TENANT, bound: { input: INPUT, output: OUTPUT, certainty: "proof" } });
    let held: Hold;
    try {
      held = await hold(facts, PRICE, needs);
    } catch (thrown) {
      if (thrown instanceof BudgetExceeded) refused += 1;
      else if (!disk.crashed) throw thrown;
      return;
    }
    if (disk.crashed) return;
    const seen: Seen = { delivered: 0, charge: null };
    oracle.set(facts.attempt, seen);
    sent(held, needs);
    const upstream = new ScriptedStream();
    const metered = await meter(streamed(upstream), held, { journal, clock, settler });
    if (metered.body.kind !== "stream") throw new Error("not a stream");
    metered.body.stream.pipe({
      frames: (frames) => void (disk.crashed || (seen.delivered += frames.filter((frame) => !frame.notable).length)),
      end() {},
    });
    for (let emitted = 0; emitted < 40 + index * 30; emitted += 10) {
      await turns(1);
      if (!upstream.paused) upstream.emit(Array.from({ length: 10 }, () => deltaFrame("word ", 1)));
    }
    if (index % 3 === 0) metered.body.stream.abort();
    else if (index % 3 === 1) upstream.end({ kind: "aborted" });
    else {
      upstream.emit([stopFrame(), usageFrame(INPUT, seen.delivered), doneFrame()]);
      upstream.end({ kind: "complete" });
    }
    const { settlement } = await metered.settled;
    if (!disk.crashed) seen.charge = settlement.charge;
  };
  const streams = Promise.all(Array.from({ length: STREAMS }, (_, index) => stream(index)));
  await Promise.race([streams, untilCrashed(disk)]);
  disk.crashed = true;
  await journal.close().catch(() => {});
  return refused;
}

const BUDGETS = [BUDGET];

/** The next process: replays what the disk kept, charges what is open, and holds it against what was seen. Resolves to the sum of all charges. */
async function judge(disk: SimulatedDisk, durability: Durability, oracle: ReadonlyMap<AttemptId, Seen>): Promise<bigint> {
  const { journal } = await openJournal({ directory: "/journal", durability, clock, makeId: newId, log: silent, fileSystem: disk });
  const found = new Attempts();
  const charged = new Map<AttemptId, SettledAttempt>();
  const take = (settled: SettledAttempt | null): void => {
    if (settled === null) return;
    assert.ok(!charged.has(settled.admission.facts.attempt), "an attempt is charged twice");
    charged.set(settled.admission.facts.attempt, settled);
  };
  for (const record of await journal.read(0, Infinity, Infinity)) take(found.apply(record));
  for (const open of found.open.values()) {
    const settlement = settleLost(open, found.lastAt, clock.now());
    journal.append(RECORD.settle, settlement.attempt, encodeSettlement(settlement));
    take({ admission: open.admission, settlement, sequence: 0 });
  }
  await journal.close();
  for (const [attempt, seen] of oracle) {
    const row = charged.get(attempt);
    assert.ok(row !== undefined, "an attempt was dispatched and is not charged");
    const { settlement, admission } = row;
    if (seen.charge !== null) assert.equal(settlement.charge, seen.charge);
    if (!settlement.dispatchUnknown) assert.ok(seen.delivered <= settlement.usage.tokens.output, "more was delivered than is charged");
    else assert.equal(seen.delivered, 0);
    assert.ok(settlement.charge <= admission.worstCase, "more is charged than was held");
  }
  return [...charged.values()].reduce((sum, { settlement }) => sum + settlement.charge, 0n);
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function untilCrashed(disk: SimulatedDisk): Promise<void> {
  while (!disk.crashed) await turns(1);
}

test("at every crash point, of the process or of its power, delivered ≤ charged ≤ held, and what is charged stays under the cap through the next life too", async (t) => {
  let [points, refused, lost] = [0, 0, 0];
  for (const durability of ["process", "power"] as const) {
    const whole = new SimulatedDisk();
    await live(whole, durability, 0n, new Map());
    // Every one: an operation is a write, a sync, a file made or removed.
    for (let point = 0; point < whole.operations; point++) {
      const faults = new Map<number, DiskFault>([[point, "crash"]]);
      const disk = new SimulatedDisk(faults);
      const oracle = new Map<AttemptId, Seen>();
      refused += await live(disk, durability, 0n, oracle);
      const after = (): SimulatedDisk =>
        durability === "power" && point % 2 === 1 ? disk.afterPowerLoss(new Map(), chanceFrom(point)) : disk.afterKill(new Map());
      const found = after();
      const spent = await judge(found, durability, oracle);
      assert.ok(spent <= BUDGET.cap, `after a crash at operation ${point} ${spent} of ${BUDGET.cap} is charged`);
      lost += [...oracle.values()].filter(({ charge }) => charge === null).length;
      const second = found.afterKill(new Map());
      await live(second, durability, spent, oracle);
      const total = await judge(second.afterKill(new Map()), durability, oracle);
      assert.ok(total <= BUDGET.cap, `after a crash at operation ${point} and another life ${total} of ${BUDGET.cap} is charged`);
      points += 1;
    }
  }
  assert.ok(points > 20 && refused > 0 && lost > 0, `too tame: ${points} points, ${refused} refused, ${lost} lost`);
  t.diagnostic(`${points} crash points: ${lost} attempts cut off, ${refused} refused for the budget, overshoot 0`);
});
