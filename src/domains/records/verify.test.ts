import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { masterKeyFrom } from "../../storage/secrets/index.ts";
import { GENESIS, type Link, linkHash, linkSchema, sha256 } from "./chain.ts";
import { type Checkpoint, createCheckpointSigner } from "./checkpoint.ts";
import type { TrailEntry } from "./trail.ts";
import { verifyTrails } from "./verify.ts";

const TENANT = "01900000-0000-7000-8000-00000000000a";
const INSTALLATION = "01900000-0000-7000-8000-0000000000ff";
const clock = { now: () => Date.parse("2026-11-22T08:00:00Z"), monotonic: () => 0 };
const signer = createCheckpointSigner(masterKeyFrom("01".repeat(32)), INSTALLATION, clock);

/** Each link as a writer makes it. */
function chain(rows: number): Link[] {
  const links: Link[] = [];
  for (let sequence = 1; sequence <= rows; sequence++) links.push(relinked(bare(sequence), links.at(-1)?.hash ?? GENESIS));
  return links;
}

function bare(sequence: number): Link {
  return {
    sequence,
    id: `id-${sequence}`,
    actor: "0123456789",
    actor_kind: "key",
    action: "project.put",
    target: `target-${sequence}`,
    before: sequence % 2 === 0 ? `{"sealed": "${sequence}"}` : null,
    before_digest: sequence % 2 === 0 ? sha256(`{"sealed": "${sequence}"}`) : null,
    after: `{"sealed": "after ${sequence}"}`,
    after_digest: sha256(`{"sealed": "after ${sequence}"}`),
    request_id: sequence % 3 === 0 ? null : `request-${sequence}`,
    remote_address: "127.0.0.1",
    status: 200,
    count: 1,
    at: `2026-11-22T08:00:0${sequence % 10}.000000Z`,
    hash: "",
  };
}

function relinked(link: Link, previous: string): Link {
  return { ...link, hash: linkHash(previous, TENANT, link) };
}

function entries(links: readonly Link[], head = headOf(links)): TrailEntry[] {
  const trail = { format: "atrium audit trail 1", installation: INSTALLATION, tenant: TENANT, of: "all" } as const;
  return [{ trail }, ...links.map((row) => ({ row })), { head }];
}

function headOf(links: readonly Link[]) {
  return { sequence: links.at(-1)?.sequence ?? 0, hash: links.at(-1)?.hash ?? GENESIS };
}

async function* streamed(all: readonly TrailEntry[]): AsyncGenerator<TrailEntry> {
  yield* all;
}

async function findings(all: readonly TrailEntry[], checkpoints: readonly Checkpoint[] = [], erased = false): Promise<readonly string[]> {
  return (await verifyTrails(streamed(all), { checkpoints, publicKeys: [signer.publicKey], erased })).findings;
}

const seen = (links: readonly Link[]) => signer.sign([{ tenant: TENANT, ...headOf(links) }]);

test("a trail as it was written has no findings, with and without the checkpoints that saw it", async () => {
  for (let rows = 0; rows <= 12; rows++) {
    const links = chain(rows);
    const checkpoints = links.map((_, index) => seen(links.slice(0, index + 1)));
    assert.deepEqual(await findings(entries(links), checkpoints), []);
    assert.deepEqual(await findings(entries(links)), []);
  }
});

test("one field of one row changed, whichever it is, is found", async () => {
  const links = chain(8);
  const names = Object.keys(links[0] as Link) as (keyof Link)[];
  const digest = fc.string().map(sha256);
  const cells = fc.record({
    at: fc.nat(7),
    name: fc.constantFrom(...names),
    to: fc.oneof(fc.string(), fc.constant(null), fc.integer(), digest),
  });
  let changed = 0;
  await fc.assert(
    fc.asyncProperty(cells, async ({ at, name, to }) => {
      // Anything else is no line of an export.
      fc.pre(linkSchema.safeParse({ ...links[at], [name]: to }).success && links[at]?.[name] !== to);
      const tampered = links.map((link, index) => (index === at ? ({ ...link, [name]: to } as Link) : link));
      const found = await findings(entries(tampered, headOf(links)));
      assert.notEqual(found.length, 0, `row ${at + 1}, ${name} = ${JSON.stringify(to)}`);
      changed += 1;
    }),
    { numRuns: 1_000, maxSkipsPerRun: 100 },
  );
  assert.ok(changed >= 1_000, `${changed} changes`);
});

test("fields that run into each other are told apart: no other split of the same text has the same hash", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.nat(20), (action, target, shift) => {
      const whole = action + target;
      const cut = Math.min(shift, whole.length);
      const other = { ...bare(1), action: whole.slice(0, cut), target: whole.slice(cut) };
      fc.pre(other.action !== action);
      assert.notEqual(linkHash(GENESIS, TENANT, { ...bare(1), action, target }), linkHash(GENESIS, TENANT, other));
    }),
  );
});

test("any rows deleted, swapped, repeated or put in are found, also where the head was made to fit", async () => {
  const links = chain(9);
  const index = fc.nat(8);
  await fc.assert(
    fc.asyncProperty(fc.constantFrom("delete", "swap", "repeat", "insert"), index, index, async (deed, a, b) => {
      fc.pre(deed !== "swap" || a !== b);
      const done = [...links];
      if (deed === "delete") done.splice(Math.min(a, b), 1 + Math.abs(a - b));
      if (deed === "swap") [done[a], done[b]] = [links[b] as Link, links[a] as Link];
      if (deed === "repeat") done.splice(a, 0, links[b] as Link);
      if (deed === "insert") done.splice(a, 0, relinked({ ...bare(a + 1), target: "forged" }, links[a - 1]?.hash ?? GENESIS));
      const fits = deed === "delete" && done.at(-1)?.sequence === done.length;
      const found = await findings(entries(done, headOf(done)), [seen(links)]);
      assert.notEqual(found.length, 0, `${deed} ${a} ${b}`);
      // A deed at the trail's end alone fits the head that was made to fit it: only the checkpoint shows it.
      if (fits) assert.match(found.join(), /checkpoint of .* saw 9 rows/);
    }),
    { numRuns: 500 },
  );
});

test("a trail cut at its end, or written anew from any row on, is found by the checkpoint and by nothing else", async () => {
  const links = chain(6);
  for (let cut = 0; cut < links.length; cut++) {
    const kept = links.slice(0, cut);
    assert.deepEqual(await findings(entries(kept)), [], "the rest is a trail of its own");
    assert.match((await findings(entries(kept), [seen(links)])).join(), new RegExp(`saw 6 rows, and there are ${cut}`));

    const anew = [...kept];
    for (const link of links.slice(cut)) anew.push(relinked({ ...link, actor: "somebody else" }, anew.at(-1)?.hash ?? GENESIS));
    assert.deepEqual(await findings(entries(anew)), []);
    assert.match((await findings(entries(anew), [seen(links)])).join(), /row 6 is not the one that the checkpoint/);
  }
});

test("a checkpoint counts only as it was signed, by a key that is trusted", async () => {
  const links = chain(3);
  const genuine = seen(links);
  const moved = { ...genuine, heads: [{ ...genuine.heads[0]!, sequence: 2, hash: links[1]!.hash }] };
  assert.match((await findings(entries(links), [moved])).join(), /not signed by the key that it names/);
  assert.match((await findings(entries(links), [{ ...genuine, installation: "another" }])).join(), /not signed/);
  assert.match((await findings(entries(links), [{ ...genuine, at: "2020-01-01T00:00:00.000Z" }])).join(), /not signed/);
  assert.match((await findings(entries(links), [{ ...genuine, public_key: "c2hvcnQ=" }])).join(), /not signed/);
  const stranger = createCheckpointSigner(masterKeyFrom("02".repeat(32)), INSTALLATION, clock);
  assert.match((await findings(entries(links), [stranger.sign([{ tenant: TENANT, ...headOf(links) }])])).join(), /another key/);
});

test("the trail of a tenant whose contents were erased verifies, when told so, and says what is gone otherwise", async () => {
  const links = chain(4);
  const erased = links.map((link) => ({ ...link, before: null, after: null }));
  assert.deepEqual(await findings(entries(erased), [seen(links)], true), []);
  assert.equal((await findings(entries(erased), [seen(links)])).length, 6, "two before and four after");
});

test("an export that breaks off, a trail that comes twice, and one that only checkpoints know are found", async () => {
  const links = chain(3);
  assert.match((await findings(entries(links).slice(0, -1))).join(), /breaks off after row 3/);
  assert.match((await findings([...entries(links), ...entries(links)])).join(), /comes twice/);
  const other = signer.sign([{ tenant: "01900000-0000-7000-8000-00000000000b", sequence: 1, hash: GENESIS }]);
  assert.match((await findings(entries(links), [other])).join(), /saw a trail of .*b, and it is gone/);
});
