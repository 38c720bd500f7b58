import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { inputTokens, NO_TOKENS, outputTokens } from "../../kernel/tokens.ts";
import { type JournalRecord, RECORD, type RecordKind } from "../../storage/journal/index.ts";
import { nextMark, priceOf, worstCase } from "./decide.ts";
import type { Price } from "../catalog/index.ts";
import { Held } from "./hold.ts";
import type { AttemptFacts, Settlement } from "./model.ts";
import { type Admission, decodeAdmission, encodeAdmission, encodeMark, encodeSettlement } from "./records.ts";
import { Attempts, type SettledAttempt, settleLost } from "./replay.ts";
import { factsOf, PRICE } from "./testing/facts.ts";

/** What really happened to an attempt by some point of the program. */
interface Truth {
  readonly admission: Admission;
  left: boolean;
  delivered: number;
  completed: Settlement | null;
}

interface Program {
  readonly records: JournalRecord[];
  /** After each record: what was true when exactly the records so far were durable. */
  readonly truths: ReadonlyMap<string, Truth>[];
}

/** Attempts that interleave as the meter lets them: nothing leaves before its ADMIT, nothing is delivered beyond its mark. */
const anyProgram: fc.Arbitrary<Program> = fc
  .record({
    attempts: fc.array(
      fc.record({
        stream: fc.boolean(),
        input: fc.nat(10_000),
        output: fc.integer({ min: 1, max: 5_000 }),
        markupMillionths: fc.integer({ min: 10_000, max: 3_000_000 }),
      }),
      {
        minLength: 1,
        maxLength: 6,
      },
    ),
    steps: fc.array(fc.tuple(fc.nat(5), fc.nat(700)), { maxLength: 60 }),
  })
  .map(({ attempts, steps }) => {
    const records: JournalRecord[] = [];
    const truths: ReadonlyMap<string, Truth>[] = [];
    const live = attempts.map(({ stream, input, output, markupMillionths }) =>
      begin(factsOf({ stream, markupMillionths, bound: { input, output, certainty: "proof" }, startedAt: 1_000 })),
    );
    const write = (kind: RecordKind, facts: AttemptFacts, payload: string) => {
      records.push({
        sequence: records.length + 1,
        kind,
        attempt: facts.attempt,
        payload: Buffer.from(payload),
        at: 1_000 + records.length * 100,
      });
      truths.push(
        new Map(
          live.filter((attempt) => attempt.stage > 0).map((attempt) => [attempt.truth.admission.facts.attempt, { ...attempt.truth }]),
        ),
      );
    };
    for (const [pick, amount] of steps) advanceAttempt(live[pick % live.length] as Live, amount, write);
    return { records, truths };
  });

interface Live {
  /** 0 planned, 1 admitted, 2 sent, 3 settled. */
  stage: number;
  mark: number;
  readonly truth: Truth;
}

function begin(facts: AttemptFacts): Live {
  return {
    stage: 0,
    mark: 0,
    truth: {
      admission: {
        facts,
        worstCase: worstCase(facts.bound, PRICE, facts.markupMillionths),
        inputRate: 150_000n,
        outputRate: 600_000n,
        tokensPerSecond: 50,
      },
      left: false,
      delivered: 0,
      completed: null,
    },
  };
}

function advanceAttempt(attempt: Live, amount: number, write: (kind: RecordKind, facts: AttemptFacts, payload: string) => void): void {
  const { truth } = attempt;
  const { facts } = truth.admission;
  if (attempt.stage === 3) return;
  if (attempt.stage === 0) {
    attempt.stage = 1;
    write(RECORD.admit, facts, encodeAdmission(truth.admission));
  } else if (attempt.stage === 1) {
    attempt.stage = 2;
    truth.left = true;
    write(RECORD.progress, facts, encodeMark(0));
  } else if (amount < 600) {
    // Delivered only up to the mark that was durable before this record.
    if (facts.stream) truth.delivered = Math.min(truth.delivered + amount, attempt.mark);
    attempt.mark = nextMark(attempt.mark, amount, facts.bound);
    write(RECORD.progress, facts, encodeMark(attempt.mark));
  } else {
    attempt.stage = 3;
    const tokens = { ...NO_TOKENS, input_uncached: facts.bound.input, output: truth.delivered };
    const { cost, charge } = priceOf(tokens, PRICE, facts.markupMillionths);
    truth.completed = {
      attempt: facts.attempt,
      status: "completed",
      usage: { tokens, source: "reported" },
      cost,
      charge,
      estimated: false,
      dispatchUnknown: false,
      modelServed: "m",
      latencyMs: 1,
      firstTokenMs: null,
    };
    write(RECORD.settle, facts, encodeSettlement(truth.completed));
  }
}

/** What a process that finds these records charges. */
function replayed(records: readonly JournalRecord[]): Map<string, Pick<SettledAttempt, "settlement">> {
  const attempts = new Attempts();
  const charged = new Map<string, Pick<SettledAttempt, "settlement">>();
  for (const record of records) {
    const settled = attempts.apply(record);
    if (settled === null) continue;
    assert.ok(!charged.has(record.attempt), "an attempt was settled twice");
    charged.set(record.attempt, settled);
  }
  for (const [attempt, open] of attempts.open)
    charged.set(attempt, { settlement: settleLost(open, attempts.lastAt, attempts.lastAt + 3_000) });
  return charged;
}

test("whatever prefix of a program a crash leaves: every admitted attempt is charged exactly once, what completed at its price, what was lost with delivered ≤ charged ≤ held", () => {
  let lost = 0;
  fc.assert(
    fc.property(anyProgram, ({ records, truths }) => {
      for (let end = 1; end <= records.length; end++) {
        const charged = replayed(records.slice(0, end));
        const truth = truths[end - 1] as ReadonlyMap<string, Truth>;
        assert.deepEqual(new Set(charged.keys()), new Set(truth.keys()));
        for (const [attempt, { admission, left, delivered, completed }] of truth) {
          const { settlement } = charged.get(attempt) as SettledAttempt;
          if (completed !== null) {
            assert.deepEqual(settlement, completed);
            continue;
          }
          lost++;
          const { bound } = admission.facts;
          assert.equal(settlement.status, "lost");
          assert.equal(settlement.estimated, true);
          assert.equal(settlement.dispatchUnknown, !left);
          const { cost, charge } = priceOf(settlement.usage.tokens, PRICE, admission.facts.markupMillionths);
          assert.deepEqual([settlement.cost, settlement.charge], [cost, charge], "the money is not that of the usage");
          assert.ok(delivered <= outputTokens(settlement.usage.tokens), `${delivered} delivered`);
          assert.equal(inputTokens(settlement.usage.tokens), bound.input);
          assert.ok(settlement.charge <= admission.worstCase, "charged more than was held");
          if (!left) assert.equal(outputTokens(settlement.usage.tokens), 0);
        }
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(lost > 1_000, `only ${lost} lost attempts were met`);
});

test("replay is idempotent: reading records again, in any overlap, settles nothing a second time", () => {
  fc.assert(
    fc.property(anyProgram, fc.nat(), ({ records }, cut) => {
      const once = replayed(records);
      const from = records.length === 0 ? 0 : cut % records.length;
      const attempts = new Attempts();
      const first = records.map((record) => attempts.apply(record)).filter((settled) => settled !== null);
      const again = records
        .slice(from)
        .map((record) => (record.kind === RECORD.admit ? null : attempts.apply(record)))
        .filter((settled) => settled !== null);
      assert.equal(again.length, 0);
      assert.ok(first.every((settled) => once.has(settled.admission.facts.attempt)));
    }),
  );
});

test("a lost attempt of long input is charged the rates of the tier that its bound reaches, as its hold was, with the markup", () => {
  const price: Price = { ...PRICE, tiers: [{ above: 1_000, rates: { input_uncached: 300_000n, output: 900_000n } }] };
  const facts = factsOf({ bound: { input: 1_001, output: 500, certainty: "proof" }, markupMillionths: 1_500_000 });
  const admission = new Held(facts, price, 0, 100).admission();
  const { cost, charge } = settleLost(
    { admission: decodeAdmission(facts.attempt, Buffer.from(encodeAdmission(admission))), sequence: 1, mark: 256 },
    0,
    0,
  );
  assert.equal(cost, 1_001n * 300_000n + 256n * 900_000n);
  assert.equal(charge, (cost * 3n) / 2n);
  assert.equal(admission.worstCase, ((1_001n * 300_000n + 500n * 900_000n) * 3n) / 2n);
});

test("downtime is not charged: what an answer in one piece may have cost ends soon after the last sign of life", () => {
  const { truth } = begin(factsOf({ stream: false, bound: { input: 1, output: 1_000_000, certainty: "proof" }, startedAt: 0 }));
  const lost = settleLost({ admission: truth.admission, sequence: 1, mark: 0 }, 5_000, 86_400_000);
  assert.equal(lost.usage.tokens.output, 15 * 50);
});
