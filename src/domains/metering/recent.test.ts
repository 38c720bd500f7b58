import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Recent } from "./recent.ts";

test("what is remembered is what was written under that very sequence, once, however far sequences leap", () => {
  fc.assert(
    fc.property(fc.array(fc.record({ step: fc.integer({ min: 1, max: 9_000 }), take: fc.nat(3) }), { maxLength: 200 }), (steps) => {
      const recent = new Recent<string>();
      const written: number[] = [];
      const taken = new Set<number>();
      let sequence = 0;
      for (const { step, take } of steps) {
        sequence += step;
        recent.remember(sequence, `record ${sequence}`);
        written.push(sequence);
        const asked = written.at(-1 - take) ?? 0;
        const found = recent.take(asked);
        if (found === null) continue;
        assert.equal(found, `record ${asked}`);
        assert.ok(!taken.has(asked));
        taken.add(asked);
      }
    }),
  );
});

test("the last few thousand records are remembered, and no more are held", () => {
  const recent = new Recent<number>();
  for (let sequence = 1; sequence <= 10_000; sequence++) recent.remember(sequence, sequence);
  assert.equal(recent.take(10_000 - 4_095), 10_000 - 4_095);
  assert.equal(recent.take(10_000 - 4_096), null);
});
