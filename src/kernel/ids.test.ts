import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import type { Clock } from "./clock.ts";
import { createIdMaker, isUuid, leastIdAt, timeOf, type Uuid } from "./ids.ts";
import type { RandomBytes } from "./random.ts";

const random: RandomBytes = (bytes) => randomFillSync(bytes);
const at = (time: number): Clock => ({ now: () => time, monotonic: () => 0 });
/** UUIDv7 has 48 bits of milliseconds. */
const times = fc.integer({ min: 0, max: 2 ** 48 - 1 });
const bytes = fc.infiniteStream(fc.uint8Array({ minLength: 4096, maxLength: 4096 }));

test("an id has the form of a UUIDv7 whatever the randomness, and tells the millisecond it was made in", () => {
  fc.assert(
    fc.property(times, bytes, (time, pools) => {
      const id = createIdMaker(at(time), (pool) => (pool.set(pools.next().value), pool))<Uuid>();
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      assert.ok(isUuid(id));
      assert.equal(timeOf(id), time);
    }),
    { numRuns: 50 },
  );
});

test("ids of different milliseconds sort by them, and every id sorts from the least of its millisecond to the least of the next", () => {
  fc.assert(
    fc.property(times, times, (one, other) => {
      const [a, b] = [createIdMaker(at(one), random)<Uuid>(), createIdMaker(at(other), random)<Uuid>()];
      if (one !== other) assert.equal(a < b, one < other);
      assert.ok(leastIdAt(one) <= a && (one === 2 ** 48 - 1 || a < leastIdAt(one + 1)));
      assert.equal(timeOf(leastIdAt(one)), one);
    }),
  );
});

test("a hundred thousand ids of one millisecond are all different, and so are their random halves", () => {
  const make = createIdMaker(at(1_800_000_000_000), random);
  const made = Array.from({ length: 100_000 }, () => make<Uuid>());
  assert.equal(new Set(made).size, made.length);
  assert.equal(new Set(made.map((id) => id.slice(-12))).size, made.length);
});

test("every id takes ten bytes of randomness of its own, and a pool's rest is never stretched", () => {
  let pools = 0;
  const make = createIdMaker(at(0), (pool) => {
    pools += 1;
    return random(pool);
  });
  for (let made = 0; made < 2_000; made++) make<Uuid>();
  assert.equal(pools, Math.ceil(2_000 / Math.floor(4096 / 10)));
});

test("only the canonical lower-case form is an id: anything else may be a name", () => {
  const id = createIdMaker(at(1_800_000_000_000), random)<Uuid>();
  for (const name of [
    "",
    id.toUpperCase(),
    `{${id}}`,
    id.replaceAll("-", ""),
    `${id} `,
    `${id}\n`,
    id.slice(1),
    `${id.slice(0, -1)}g`,
    "main",
  ])
    assert.equal(isUuid(name), false, name);
  fc.assert(fc.property(fc.uuid(), (uuid) => isUuid(uuid)));
});
