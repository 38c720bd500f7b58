import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { Ending, Frame } from "../../kernel/frame.ts";
import { Problem } from "../../kernel/problem.ts";
import { NO_TOKENS } from "../../kernel/tokens.ts";
import { RECORD } from "../../storage/journal/index.ts";
import { hold, type HoldNeeds, sent } from "./hold.ts";
import { meter } from "./meter.ts";
import type { AttemptFacts, Hold, MeteredResponse, Settlement } from "./model.ts";
import { decodeMark, decodeSettlement } from "./records.ts";
import { Settler } from "./settle.ts";
import { Speeds } from "./speeds.ts";
import { factsOf, PRICE, silent, TestClock } from "./testing/facts.ts";
import { ScriptedJournal } from "./testing/scripted-journal.ts";
import {
  deltaFrame,
  doneFrame,
  ScriptedStream,
  stopFrame,
  streamed,
  type TestFrame,
  usageFrame,
  whole,
} from "./testing/scripted-stream.ts";

/** One attempt from hold to end over a scripted journal, with every promise of the meter checked at each delivery. */
class Attempt {
  readonly journal = new ScriptedJournal();
  readonly clock = new TestClock();
  readonly speeds = new Speeds();
  readonly settler = new Settler({ journal: this.journal, clock: this.clock, speeds: this.speeds, log: silent, settled() {} });
  readonly upstream: ScriptedStream;
  readonly delivered: TestFrame[] = [];
  readonly endings: Ending[] = [];
  hold!: Hold;
  metered!: MeteredResponse;
  clientLeft = false;
  /** The client leaves while it is given this many frames or more. */
  leavesAt = Number.POSITIVE_INFINITY;

  constructor(endsAtOnce = true) {
    this.upstream = new ScriptedStream(endsAtOnce);
  }

  async begin(changes: Partial<AttemptFacts> = {}): Promise<void> {
    const held = hold(factsOf(changes), PRICE, this.needs());
    this.journal.commit();
    this.hold = await held;
    sent(this.hold, this.needs());
    this.metered = await meter(streamed(this.upstream), this.hold, { journal: this.journal, clock: this.clock, settler: this.settler });
  }

  needs(): HoldNeeds {
    return { journal: this.journal, clock: this.clock, speeds: this.speeds, voided: (held) => this.settler.void(held) };
  }

  leave(): void {
    this.clientLeft = true;
    this.stream.abort();
  }

  get stream() {
    assert.equal(this.metered.body.kind, "stream");
    return (this.metered.body as Extract<MeteredResponse["body"], { kind: "stream" }>).stream;
  }

  pipe(): void {
    this.stream.pipe({
      frames: (frames) => this.#check(frames),
      end: (ending) => {
        this.endings.push(ending);
        assert.equal(this.endings.length, 1, "the stream ended twice");
        if (ending.kind !== "complete") return;
        assert.ok(this.settled, "a clean end before the SETTLE was durable");
        assert.ok(this.delivered.at(-1)?.last === true, "a clean end without the last frame");
      },
    });
  }

  #check(frames: readonly Frame[]): void {
    assert.equal(this.endings.length, 0, "a frame after the end");
    assert.ok(!this.clientLeft, "a frame after the client left");
    assert.ok(frames.length > 0);
    this.delivered.push(...(frames as TestFrame[]));
    if (!this.settled) this.#checkMark();
    if (this.delivered.length >= this.leavesAt) this.leave();
  }

  #checkMark(): void {
    assert.ok(!this.delivered.some((frame) => frame.last), "the last frame before the SETTLE was durable");
    assert.ok(this.deliveredTokens <= this.mark, `${this.deliveredTokens} tokens delivered, the durable mark is ${this.mark}`);
  }

  get deliveredTokens(): number {
    return this.delivered.reduce((sum, frame) => sum + frame.outputTokens, 0);
  }

  get mark(): number {
    return Math.max(
      0,
      ...this.journal.records
        .filter((record) => record.kind === RECORD.progress)
        .map((record) => decodeMark(record.attempt, record.payload)),
    );
  }

  get settled(): boolean {
    return this.settlements.length > 0;
  }

  get settlements(): Settlement[] {
    return this.journal.records
      .filter((record) => record.kind === RECORD.settle)
      .map((record) => decodeSettlement(record.attempt, record.payload));
  }
}

type Step = { readonly kind: "emit" | "commit one" | "commit" | "pause" | "resume" | "abort" | "fail" | "recover" | "truncate" | "drain" };

const weighted: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: fc.constant<Step>({ kind: "emit" }) },
  { weight: 6, arbitrary: fc.constantFrom<Step>({ kind: "commit one" }, { kind: "commit" }) },
  { weight: 3, arbitrary: fc.constantFrom<Step>({ kind: "pause" }, { kind: "resume" }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Step>({ kind: "abort" }, { kind: "fail" }, { kind: "recover" }, { kind: "truncate" }, { kind: "drain" }),
  },
);

const anyText = fc
  .tuple(fc.string({ unit: "binary", minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 20 }))
  .map(([piece, times]) => piece.repeat(times));
const anyFrame = fc.tuple(anyText, fc.nat(1_000_000)).map(([text, n]) => deltaFrame(text, 1 + (n % Buffer.byteLength(text))));
const anyStream = fc.record({
  frames: fc.array(anyFrame, { maxLength: 40 }),
  reportsUsage: fc.boolean(),
  batches: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 60 }),
  steps: fc.array(weighted, { maxLength: 80 }),
  spare: fc.nat(500),
  endsAtOnce: fc.boolean(),
  leavesAt: fc.option(fc.nat(40), { freq: 1 }),
});

test("whatever the upstream, the client and the journal do, and in whatever order: nothing is delivered beyond the durable mark, the last frame never precedes the SETTLE, the stream ends once and settles once", async () => {
  let waited = 0;
  let completed = 0;
  await fc.assert(
    fc.asyncProperty(anyStream, async ({ frames, reportsUsage, batches, steps, spare, endsAtOnce, leavesAt }) => {
      const output = frames.reduce((sum, frame) => sum + frame.outputTokens, 0);
      const all = [...frames, ...(reportsUsage ? [usageFrame(11, output)] : []), doneFrame()];
      const attempt = new Attempt(endsAtOnce);
      attempt.leavesAt = leavesAt ?? Number.POSITIVE_INFINITY;
      await attempt.begin({ bound: { input: 100, output: output + spare, certainty: "proof" } });
      attempt.pipe();
      let next = 0;
      let chunk = 0;
      /** After a pause, one chunk that had been read already may come. */
      let inFlight = 0;
      const emit = () => {
        if (attempt.upstream.ended || next >= all.length) return;
        if (attempt.upstream.paused && ++inFlight > 1) return;
        if (!attempt.upstream.paused) inFlight = 0;
        else waited++;
        const batch = all.slice(next, next + (batches[chunk++ % batches.length] as number));
        next += batch.length;
        attempt.upstream.emit(batch);
        if (batch.at(-1)?.last === true) attempt.upstream.end({ kind: "complete" });
      };
      const act: Record<Step["kind"], () => void> = {
        emit,
        "commit one": () => attempt.journal.commit(1),
        commit: () => attempt.journal.commit(),
        pause: () => attempt.stream.pause(),
        resume: () => attempt.stream.resume(),
        abort: () => attempt.leave(),
        fail: () => attempt.journal.fail(),
        recover: () => attempt.journal.recover(),
        truncate: () => attempt.upstream.end({ kind: "truncated", problem: new Problem("upstream_error") }),
        drain: () => attempt.upstream.end({ kind: "aborted" }),
      };
      for (const { kind } of steps) act[kind]();
      attempt.journal.recover();
      attempt.stream.resume();
      for (let turn = 0; turn < 500 && attempt.endings.length === 0; turn++) {
        emit();
        attempt.journal.commit();
        if (turn % 3 === 2 && attempt.upstream.aborted) attempt.upstream.end({ kind: "aborted" });
        assert.ok(
          !attempt.upstream.paused || attempt.upstream.aborted || attempt.upstream.ended || attempt.journal.pending > 0,
          "the upstream stays paused although nothing waits",
        );
      }
      assert.equal(attempt.endings.length, 1, "the stream never ended");
      const { settlement, ending } = await attempt.metered.settled;
      assert.deepEqual(ending, attempt.endings[0]);
      const closing = attempt.settler.close();
      attempt.journal.commit();
      await closing;
      assert.ok(attempt.settlements.length > 0, "nothing settled");
      for (const written of attempt.settlements) assert.deepEqual(written, settlement, "two settlements differ");
      if (ending.kind === "complete") {
        completed++;
        assert.equal(attempt.delivered.length, all.length, "a clean end without all frames");
        assert.equal(settlement.status, "completed");
        assert.equal(settlement.usage.source, reportsUsage ? "reported" : "counted");
        if (reportsUsage) assert.equal(settlement.usage.tokens.output, output);
      }
      assert.deepEqual(attempt.delivered, all.slice(0, attempt.delivered.length), "frames were lost, repeated or reordered");
    }),
    { numRuns: 600 },
  );
  assert.ok(waited > 100, "the property met too few streams that had to wait");
  assert.ok(completed > 100, `only ${completed} streams ended well`);
});

test("marks are written ahead: a stream of one-token frames waits for the journal once, not once a frame", async () => {
  const attempt = new Attempt();
  await attempt.begin({ bound: { input: 10, output: 100_000, certainty: "proof" } });
  attempt.pipe();
  attempt.journal.commit();
  let waits = 0;
  for (let index = 0; index < 2_000; index++) {
    attempt.upstream.emit([deltaFrame("word", 1)]);
    if (attempt.upstream.paused) waits++;
    attempt.journal.commit();
  }
  assert.equal(waits, 1);
  assert.equal(attempt.delivered.length, 2_000);
  const marks = attempt.journal.records.filter((record) => record.kind === RECORD.progress).length;
  assert.ok(marks <= 10, `${marks} PROGRESS records for 2,000 frames`);
});

test("a mark never passes the output bound", async () => {
  const attempt = new Attempt();
  await attempt.begin({ bound: { input: 10, output: 5, certainty: "proof" } });
  attempt.pipe();
  attempt.upstream.emit([deltaFrame("a long run of text", 5)]);
  attempt.journal.commit();
  assert.equal(attempt.mark, 5);
  assert.equal(attempt.delivered.length, 1);
});

test("a client that leaves is charged what was received, counted, and the upstream is stopped at once", async () => {
  const attempt = new Attempt();
  await attempt.begin();
  attempt.pipe();
  for (let index = 0; index < 7; index++) attempt.upstream.emit([deltaFrame("abc", 1)]);
  attempt.stream.abort();
  assert.ok(attempt.upstream.aborted);
  attempt.journal.commit();
  const { settlement, ending } = await attempt.metered.settled;
  assert.equal(ending.kind, "aborted");
  assert.deepEqual(
    [settlement.status, settlement.estimated, settlement.usage.source, settlement.usage.tokens.output],
    ["aborted", true, "counted", 7],
  );
  assert.equal(settlement.cost, BigInt(settlement.usage.tokens.input_uncached) * 150_000n + 7n * 600_000n);
  assert.ok(settlement.usage.tokens.input_uncached > 0);
});

test("a stream that is aborted before it is piped settles, and ends when it is piped", async () => {
  const attempt = new Attempt();
  await attempt.begin();
  attempt.stream.abort();
  attempt.journal.commit();
  assert.equal((await attempt.metered.settled).settlement.status, "aborted");
  attempt.pipe();
  assert.deepEqual(attempt.endings, [{ kind: "aborted" }]);
});

test("the usage that the provider reported is charged as it is, with the model it named", async () => {
  const attempt = new Attempt();
  await attempt.begin();
  attempt.pipe();
  attempt.upstream.emit([deltaFrame("Hello", 1), usageFrame(9, 1), doneFrame()]);
  attempt.upstream.end({ kind: "complete" });
  attempt.journal.commit();
  const { settlement } = await attempt.metered.settled;
  assert.deepEqual(settlement.usage, { tokens: { ...NO_TOKENS, input_uncached: 9, output: 1 }, source: "reported" });
  assert.deepEqual(
    [settlement.cost, settlement.charge, settlement.estimated, settlement.modelServed],
    [1_950_000n, 1_950_000n, false, "small-served"],
  );
});

test("an answer that breaks off after an early usage report is charged the report and what came since", async () => {
  const attempt = new Attempt();
  await attempt.begin();
  attempt.pipe();
  attempt.journal.commit();
  attempt.upstream.emit([deltaFrame("one", 1), usageFrame(7, 1)]);
  for (let token = 0; token < 500; token++) attempt.upstream.emit([deltaFrame(" t", 1)]);
  attempt.leave();
  attempt.journal.commit();
  const { settlement } = await attempt.metered.settled;
  assert.deepEqual(settlement.usage, { tokens: { ...NO_TOKENS, input_uncached: 7, output: 501 }, source: "counted" });
  assert.equal(settlement.estimated, true);
});

test("a whole answer whose only usage report came at its beginning is charged the report and what came since", async () => {
  const attempt = new Attempt();
  await attempt.begin();
  attempt.pipe();
  attempt.journal.commit();
  attempt.upstream.emit([usageFrame(7, 1)]);
  for (let token = 0; token < 500; token++) attempt.upstream.emit([deltaFrame(" t", 1)]);
  attempt.upstream.emit([stopFrame(), doneFrame()]);
  attempt.upstream.end({ kind: "complete" });
  attempt.journal.commit();
  const { settlement } = await attempt.metered.settled;
  assert.deepEqual([settlement.usage.source, settlement.usage.tokens.output, settlement.estimated], ["counted", 501, true]);
});

test("a whole answer whose usage was reported at its end is charged that, whatever came after", async () => {
  const attempt = new Attempt();
  await attempt.begin();
  attempt.pipe();
  attempt.journal.commit();
  attempt.upstream.emit([deltaFrame("one", 1), stopFrame(), usageFrame(7, 3), deltaFrame("late", 1), doneFrame()]);
  attempt.upstream.end({ kind: "complete" });
  attempt.journal.commit();
  const { settlement } = await attempt.metered.settled;
  assert.deepEqual([settlement.usage.source, settlement.usage.tokens.output, settlement.estimated], ["reported", 3, false]);
});

test("a count uses nothing and settles once it is durable", async () => {
  const journal = new ScriptedJournal();
  const clock = new TestClock();
  const speeds = new Speeds();
  const settler = new Settler({ journal, clock, speeds, log: silent, settled() {} });
  const held = hold(factsOf({ kind: "count", bound: { input: 0, output: 0, certainty: "proof" } }), PRICE, {
    journal,
    clock,
    speeds,
    voided() {},
  });
  journal.commit();
  const response = { ...streamed(new ScriptedStream()), body: { kind: "count", count: { tokens: 12, exact: true } } };
  const metered = meter(response as Parameters<typeof meter>[0], await held, { journal, clock, settler });
  let told = false;
  void metered.then(() => (told = true));
  await Promise.resolve();
  assert.equal(told, false);
  journal.commit();
  const { body, settled } = await metered;
  assert.deepEqual(body, { kind: "count", count: { tokens: 12, exact: true } });
  const { settlement } = await settled;
  assert.deepEqual(
    [settlement.usage, settlement.cost, settlement.charge, settlement.estimated],
    [{ tokens: NO_TOKENS, source: "reported" }, 0n, 0n, false],
  );
});

test("a usage report that nothing followed is charged as it is, also when the answer then breaks off", async () => {
  const attempt = new Attempt();
  await attempt.begin();
  attempt.pipe();
  attempt.journal.commit();
  attempt.upstream.emit([deltaFrame("one", 1), usageFrame(7, 3)]);
  attempt.leave();
  attempt.journal.commit();
  const { settlement } = await attempt.metered.settled;
  assert.deepEqual([settlement.usage.source, settlement.usage.tokens.output, settlement.estimated], ["reported", 3, false]);
});

test("an upstream that does not name its model is recorded as the one that was asked for", async () => {
  const attempt = new Attempt();
  const facts = factsOf({ stream: false });
  const held = hold(facts, PRICE, attempt.needs());
  attempt.journal.commit();
  const metering = meter(
    whole([{ type: "response-start", id: "", model: "", createdSeconds: 0 }, { type: "response-end" }]),
    await held,
    attempt,
  );
  attempt.journal.commit();
  const { settlement } = await (await metering).settled;
  assert.equal(settlement.modelServed, facts.upstreamModel);
});

test("a whole body is handed on only once its SETTLE is durable, and not at all when it cannot be", async () => {
  const events = [{ type: "text-delta", choice: 0, text: "four words of text" }, { type: "response-end" }] as const;
  for (const failing of [false, true]) {
    const attempt = new Attempt();
    await attempt.begin({ stream: false });
    let handedOn = false;
    const metered = meter(whole(events), attempt.hold, {
      journal: attempt.journal,
      clock: attempt.clock,
      settler: attempt.settler,
    }).finally(() => (handedOn = true));
    metered.catch(() => {});
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(handedOn, false);
    if (failing) {
      attempt.journal.fail();
      await assert.rejects(
        metered,
        (thrown) => thrown instanceof Problem && thrown.code === "overloaded" && thrown.retryAfterSeconds !== null,
      );
      attempt.journal.recover();
      const closing = attempt.settler.close();
      attempt.journal.commit();
      await closing;
    } else {
      attempt.journal.commit();
      assert.equal((await (await metered).settled).settlement.usage.tokens.output, 6);
    }
    assert.equal(attempt.settlements.length, 1);
    assert.equal(attempt.settlements[0]?.estimated, true);
  }
});

test("an upstream that breaks off after it has said that the response is whole has answered wholly", async () => {
  const attempt = new Attempt();
  await attempt.begin();
  attempt.pipe();
  attempt.upstream.emit([deltaFrame("Hello", 1), usageFrame(9, 1), doneFrame()]);
  attempt.upstream.end({ kind: "truncated", problem: new Problem("upstream_error") });
  attempt.journal.commit();
  assert.equal((await attempt.metered.settled).settlement.status, "completed");
  assert.deepEqual(attempt.endings, [{ kind: "complete" }]);
});

test("a client that leaves while it is given the frames before the last gets nothing more", async () => {
  for (const endsAtOnce of [true, false]) {
    const attempt = new Attempt(endsAtOnce);
    attempt.leavesAt = 2;
    await attempt.begin();
    attempt.pipe();
    attempt.upstream.emit([deltaFrame("Hello", 1)]);
    attempt.journal.commit();
    attempt.upstream.emit([deltaFrame("you", 1), usageFrame(9, 2), doneFrame()]);
    attempt.upstream.end({ kind: "aborted" });
    attempt.journal.commit();
    assert.equal((await attempt.metered.settled).settlement.usage.source, "reported");
    assert.deepEqual(attempt.endings, [{ kind: "aborted" }]);
    assert.deepEqual(
      attempt.delivered.map((frame) => frame.outputTokens),
      [1, 1, 0],
    );
  }
});
