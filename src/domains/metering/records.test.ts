import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { TOKEN_CLASSES, type TokenCounts } from "../../kernel/tokens.ts";
import { ATTEMPT_STATUSES, type Settlement } from "./model.ts";
import {
  type Admission,
  decodeAdmission,
  decodeMark,
  decodeSettlement,
  encodeAdmission,
  encodeMark,
  encodeSettlement,
  RecordUnreadable,
} from "./records.ts";
import { factsOf, newId } from "./testing/facts.ts";

const text = fc.string({ unit: "binary", maxLength: 256 });
const amount = fc.bigInt({ min: 0n, max: 10n ** 30n });
const anyAdmission: fc.Arbitrary<Admission> = fc.record(
  {
    facts: fc
      .record({
        user: fc.option(text),
        feature: text,
        modelRequested: text,
        trace: fc.option(text),
        stream: fc.boolean(),
        project: fc.option(fc.constant(newId())),
        markupMillionths: fc.nat(100_000_000),
      })
      .map((changes) => factsOf(changes as Partial<Admission["facts"]>)),
    worstCase: amount,
    inputRate: amount,
    outputRate: amount,
    tokensPerSecond: fc.double({ min: 0, max: 10_000, noNaN: true }),
  },
  { noNullPrototype: true },
);
const anySettlement: fc.Arbitrary<Settlement> = fc.record(
  {
    attempt: fc.constant(newId()),
    status: fc.constantFrom(...ATTEMPT_STATUSES),
    usage: fc.record(
      {
        tokens: fc
          .tuple(...TOKEN_CLASSES.map(() => fc.nat()))
          .map((counts) => Object.fromEntries(TOKEN_CLASSES.map((tokenClass, index) => [tokenClass, counts[index]])) as TokenCounts),
        source: fc.constantFrom("reported", "counted"),
      },
      { noNullPrototype: true },
    ),
    cost: amount,
    charge: amount,
    estimated: fc.boolean(),
    dispatchUnknown: fc.boolean(),
    modelServed: text,
    latencyMs: fc.nat(),
    firstTokenMs: fc.option(fc.nat()),
  },
  { noNullPrototype: true },
);

test("an ADMIT, a PROGRESS and a SETTLE record decode to what was encoded", () => {
  fc.assert(
    fc.property(anyAdmission, anySettlement, fc.nat(), (admission, settlement, mark) => {
      assert.deepEqual(decodeAdmission(admission.facts.attempt, Buffer.from(encodeAdmission(admission))), admission);
      assert.deepEqual(decodeSettlement(settlement.attempt, Buffer.from(encodeSettlement(settlement))), settlement);
      assert.equal(decodeMark(settlement.attempt, Buffer.from(encodeMark(mark))), mark);
    }),
  );
});

test("a record of another version, a changed one and garbage are refused, never misread", () => {
  const attempt = newId<Settlement["attempt"]>();
  const good = encodeAdmission({ facts: factsOf(), worstCase: 1n, inputRate: 1n, outputRate: 1n, tokensPerSecond: 1 });
  for (const payload of [
    "",
    "[]",
    "null",
    "{",
    good.replace("[2,", "[3,"),
    good.replace("[2,", "[0,"),
    good.replace("[2,", "[1,"),
    good.replace('"proof"', '"guess"'),
    good.replace(/\]$/, ",1]"),
    good.slice(0, -10),
  ]) {
    assert.throws(() => decodeAdmission(attempt, Buffer.from(payload)), RecordUnreadable, payload);
    assert.throws(() => decodeSettlement(attempt, Buffer.from(payload)), RecordUnreadable, payload);
    assert.throws(() => decodeMark(attempt, Buffer.from(payload)), RecordUnreadable, payload);
  }
});

test("an ADMIT of the first release, which knew no markup, replays: its charge is its cost", () => {
  const attempt = "0198a000-0000-7000-8000-000000000001" as Settlement["attempt"];
  const id = (last: number) => `"0198a000-0000-7000-8000-00000000000${last}"`;
  const written = `[1,${id(2)},${id(3)},${id(4)},${id(5)},"0123456789","ada","search",null,"generate","openai","small",${id(6)},"gpt-5",${id(7)},null,${id(8)},true,1000,2000,"proof",1790000000000,"1350000000","150000","600000",100]`;
  const { facts, ...rest } = decodeAdmission(attempt, Buffer.from(written));
  assert.deepEqual([facts.markupMillionths, facts.startedAt, facts.bound.output], [1_000_000, 1_790_000_000_000, 2000]);
  assert.deepEqual(rest, { worstCase: 1_350_000_000n, inputRate: 150_000n, outputRate: 600_000n, tokensPerSecond: 100 });
});

test("a record of the longest names and tags is a small part of what the journal carries", () => {
  const long = "\u0000".repeat(256);
  const payload = encodeAdmission({
    facts: factsOf({ user: long, feature: long, modelRequested: long, trace: long }),
    worstCase: 1n,
    inputRate: 1n,
    outputRate: 1n,
    tokensPerSecond: 1,
  });
  assert.ok(Buffer.byteLength(payload) < 8_192, String(Buffer.byteLength(payload)));
});
