import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type DeploymentId, type KeyId, type ModelId, PLATFORM_TENANT, type ProjectId, type TenantId } from "../../kernel/ids.ts";
import type { Json, ModelRequest } from "../../kernel/request.ts";
import { Problem } from "../../kernel/problem.ts";
import type { TokenBound } from "../../kernel/tokens.ts";
import { Counters } from "./counters.ts";
import { TICKS_PER_MINUTE } from "./level.ts";
import { type CallFacts, Limiter, type Permit, type Verdict } from "./limiter.ts";
import type { CapacityPart, Limit, Refusal, TierId } from "./model.ts";

const TENANT = "tenant-a" as TenantId;
const OTHER = "tenant-b" as TenantId;

let made = 0;
function limit(fields: Partial<Limit> = {}): Limit {
  const amount = fields.amount ?? 60;
  const blank = { tier: null, scope: "tenant", key: null, project: null, model: null, deployment: null } as const;
  const id = `limit-${++made}` as Limit["id"];
  return { id, name: id, ...blank, dimension: "requests", amount, burst: amount, window: "gcra", strict: false, ...fields };
}

function part(limits: readonly Limit[], tiers: Readonly<Record<string, string>> = {}): CapacityPart {
  return { limits, tiers: new Map(Object.entries(tiers) as [string, TierId][]) };
}

/** A limiter at a clock that the test moves, and the configuration it reads. */
function stage(parts: Readonly<Record<string, CapacityPart>>) {
  const world = { seconds: 1_000, parts: new Map(Object.entries(parts)) };
  const limiter = new Limiter({
    clock: { now: () => 0, monotonic: () => world.seconds * 1000 },
    partOf: (tenant) => world.parts.get(tenant),
    prefixSecret: (tenant) => Buffer.from(`secret of ${tenant}`),
  });
  return { world, limiter, ask: (fields?: Partial<CallFacts>) => limiter.permit(facts(fields)) as Verdict };
}

function facts(fields: Partial<CallFacts> = {}): CallFacts {
  return {
    tenant: TENANT,
    tier: null,
    project: "project" as ProjectId,
    key: "key" as KeyId,
    model: "model" as ModelId,
    deployment: "deployment" as DeploymentId,
    request: request(),
    bound: () => bound(30, 20),
    ...fields,
  };
}

function bound(input: number, output: number): TokenBound {
  return { input, output, certainty: "proof" };
}

function request(messages: readonly Json[] = [], bytes = 300): ModelRequest {
  return { kind: "generate", dialect: "openai", model: "m", fields: { messages }, body: Buffer.alloc(bytes) } as unknown as ModelRequest;
}

function permitted(verdict: Verdict): Permit {
  assert.equal(verdict.kind, "permitted", JSON.stringify(verdict));
  return (verdict as Verdict & { kind: "permitted" }).permit;
}

function refused(verdict: Verdict): Refusal {
  assert.equal(verdict.kind, "refused");
  return (verdict as Verdict & { kind: "refused" }).refusal;
}

const NOTHING = { input: 0, output: 0 };

test("a call is refused by any of its limits, and then takes from none", () => {
  const [calls, tokens, atOnce] = [
    limit({ amount: 5 }),
    limit({ dimension: "tokens", amount: 100 }),
    limit({ dimension: "concurrency", amount: 2 }),
  ];
  const { ask, limiter } = stage({ [TENANT]: part([calls, tokens, atOnce]) });
  const first = permitted(ask());
  permitted(ask());
  const before = first.figures();
  for (const [bounds, by] of [
    [bound(30, 20), atOnce],
    [bound(300, 1), tokens],
  ] as const) {
    assert.equal(refused(ask({ bound: () => bounds, ...(by === tokens ? { request: request([], 3_000) } : {}) })).limit.id, by.id);
    assert.deepEqual(first.figures(), before);
  }
  assert.equal(before.requests?.remaining, 3);
  assert.equal(limiter.levels, 3);
});

test("in random programs over four limits, a rejected call leaves every level as if it had never come", (t) => {
  let rejected = 0;
  const step = fc.record({
    seconds: fc.double({ min: 0, max: 5, noNaN: true }),
    input: fc.integer({ min: 0, max: 60 }),
    output: fc.integer({ min: 1, max: 60 }),
    ends: fc.nat(10),
    used: fc.nat(80),
    isStrict: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40, size: "max" }), fc.constantFrom("gcra" as const, "sliding" as const), (program, window) => {
      const own = part([
        limit({ amount: 30, burst: window === "gcra" ? 5 : 30, window }),
        limit({ dimension: "tokens", amount: 300, window }),
        limit({ dimension: "tokens", amount: 400, window, strict: true, scope: "key" }),
        limit({ dimension: "concurrency", amount: 4, scope: "project" }),
      ]);
      const [all, passing] = [stage({ [TENANT]: own }), stage({ [TENANT]: own })];
      const running: { both: Permit[]; at: number; used: number }[] = [];
      for (const [index, { seconds, input, output, ends, used }] of program.entries()) {
        for (const { world } of [all, passing]) world.seconds += seconds;
        for (const call of running.filter(({ at }) => at === index))
          for (const permit of call.both) permit.release({ input: call.used, output: 0 });
        const call = { bound: () => bound(input, output) };
        const verdict = all.ask(call);
        if (verdict.kind === "permitted") {
          running.push({
            both: [verdict.permit, permitted(passing.ask(call))],
            at: index + 1 + ends,
            used: Math.min(used, input + output),
          });
        } else rejected++;
        const [seen, expected] = [all, passing].map((each) => look(each.limiter));
        assert.deepEqual(seen, expected);
      }
    }),
    { numRuns: 300 },
  );
  t.diagnostic(`${rejected} calls rejected`);
  assert.ok(rejected > 300);

  /** What each limit says of a call that is too large for it. */
  function look(limiter: Limiter) {
    const verdicts = [bound(10_000, 0), bound(0, 1)].map((most) => {
      const verdict = limiter.permit(facts({ request: request([], 100_000), bound: () => most })) as Verdict;
      if (verdict.kind === "permitted") verdict.permit.release(NOTHING);
      return verdict.kind === "refused" ? [verdict.refusal.limit.id, verdict.refusal.figures] : verdict.permit.figures();
    });
    return verdicts[0];
  }
});

test("strict: what calls really used never passes burst + limit × t / 60, however they end", (t) => {
  let passes = 0;
  const step = fc.record({
    gap: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 30, noNaN: true })),
    most: fc.integer({ min: 1, max: 120 }),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
    ends: fc.nat(8),
    twice: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: "max" }), (program) => {
      const { ask, world } = stage({ [TENANT]: part([limit({ dimension: "tokens", amount: 100, strict: true })]) });
      const used: { at: number; tokens: number }[] = [];
      const running: { permit: Permit; until: number; tokens: number; twice: boolean }[] = [];
      for (const [index, { gap, most, share, ends, twice }] of program.entries()) {
        world.seconds += gap;
        for (const { permit, tokens, twice: again } of running.filter(({ until }) => until === index)) {
          permit.release({ input: tokens, output: 0 });
          if (again) permit.release(NOTHING);
        }
        const verdict = ask({ bound: () => bound(most, 0) });
        if (verdict.kind === "refused") continue;
        passes++;
        const tokens = Math.floor(most * share);
        used.push({ at: world.seconds, tokens });
        running.push({ permit: verdict.permit, until: index + 1 + ends, tokens, twice });
      }
      for (const from of used) {
        let sum = 0;
        for (const to of used.slice(used.indexOf(from))) {
          sum += to.tokens;
          assert.ok(sum <= 100 + (100 * (to.at - from.at + 0.00001)) / 60 + 1e-9, `${sum} in ${to.at - from.at} s`);
        }
      }
    }),
    { numRuns: 500 },
  );
  t.diagnostic(`${passes} calls passed`);
  assert.ok(passes > 500);
});

test("a call slot is given back exactly once, however often and in whatever order calls end", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.array(fc.record({ begins: fc.boolean(), which: fc.nat(100) }), { maxLength: 80 }),
      (amount, program) => {
        const { ask } = stage({ [TENANT]: part([limit({ dimension: "concurrency", amount })]) });
        const all: Permit[] = [];
        const running = new Set<Permit>();
        for (const { begins, which } of program) {
          const ended = all[which % Math.max(1, all.length)];
          if (begins) {
            const verdict = ask();
            assert.equal(verdict.kind, running.size < amount ? "permitted" : "refused");
            if (verdict.kind !== "permitted") continue;
            running.add(verdict.permit);
            all.push(verdict.permit);
          } else if (ended !== undefined) {
            ended.release(which % 2 === 0 ? "unknown" : NOTHING);
            running.delete(ended);
          }
        }
        for (const permit of all) permit.release("unknown");
        for (let index = 0; index < amount; index++) permitted(ask());
        refused(ask());
      },
    ),
  );
});

test("a charge above the burst can never pass, and says so however empty the limit is", () => {
  const large = limit({ dimension: "tokens", amount: 100, burst: 40, strict: true });
  const { ask } = stage({ [TENANT]: part([limit({ amount: 1 }), large]) });
  const { limit: by, charge, retryAfterSeconds } = refused(ask());
  assert.deepEqual([by.id, charge, retryAfterSeconds], [large.id, 50, null]);
  assert.equal(refused(ask()).figures.requests?.remaining, 1, "and the other limit was not touched");
});

test("estimated: a third of the bytes and the mean answer are charged, then what was used; a debt delays", () => {
  const { ask, world } = stage({ [TENANT]: part([limit({ dimension: "tokens", amount: 1_000 })]) });
  const long = { request: request([], 300), bound: () => bound(5_000, 10_000) };
  const first = permitted(ask(long));
  assert.equal(first.figures().tokens?.remaining, 1_000 - 100 - 256, "300 bytes, and the first guess");
  first.release({ input: 80, output: 40 });
  assert.equal(first.figures().tokens?.remaining, 1_000 - 120);
  const second = permitted(ask(long));
  assert.equal(second.figures().tokens?.remaining, 1_000 - 120 - 100 - 40, "the mean is 40 now");
  second.release({ input: 80, output: 1_920 });
  const { retryAfterSeconds, figures } = refused(ask(long));
  assert.equal(figures.tokens?.remaining, 0);
  assert.ok((retryAfterSeconds ?? 0) > 67, String(retryAfterSeconds));
  world.seconds += retryAfterSeconds ?? 0;
  const third = permitted(ask({ ...long, bound: () => bound(5_000, 7) }));
  const before = third.figures().tokens?.remaining ?? 0;
  third.release("unknown");
  assert.equal(third.figures().tokens?.remaining, before, "what nobody knows stays as it was charged");
});

test("numbers that change in flight take effect at once and keep what was counted; a limit that ends is forgotten", () => {
  const own = limit({ amount: 10 });
  const { ask, world } = stage({ [TENANT]: part([own]) });
  for (let index = 0; index < 8; index++) permitted(ask());
  world.parts.set(TENANT, part([{ ...own, amount: 8, burst: 8 }]));
  assert.equal(refused(ask()).limit.amount, 8);
  world.parts.set(TENANT, part([{ ...own, amount: 20, burst: 20 }]));
  const permit = permitted(ask());
  assert.equal(permit.figures().requests?.remaining, 11);
  world.parts.set(TENANT, part([]));
  assert.deepEqual(permitted(ask()).figures(), { requests: null, tokens: null });
  permit.release(NOTHING);
});

test("limits of the platform, of a tier, of a project, a key, a model and a deployment count whom they name, and nobody else", () => {
  const tier = "gold-id" as TierId;
  const model = "model" as ModelId;
  const [everyTenant, gold, perKey, ofProject, tenantModel, everybody, endpoint] = [
    limit({ amount: 100 }),
    limit({ amount: 90, tier }),
    limit({ amount: 80, scope: "key" }),
    limit({ amount: 70, scope: "project", project: "project" as ProjectId }),
    limit({ amount: 60, scope: "model", model }),
    limit({ amount: 50, scope: "model", model }),
    limit({ amount: 40, scope: "deployment", deployment: "deployment" as DeploymentId }),
  ];
  const parts = {
    [PLATFORM_TENANT]: part([everyTenant, gold, everybody, endpoint], { gold: tier }),
    [TENANT]: part([perKey, ofProject, tenantModel]),
  };
  /** Who refuses after as many calls of the first kind have passed, asked by the second. */
  const after = (count: number, by: Partial<CallFacts>, asked: Partial<CallFacts>): string | null => {
    const { ask } = stage(parts);
    for (let index = 0; index < count; index++) permitted(ask(by)).release(NOTHING);
    const verdict = ask(asked);
    return verdict.kind === "refused" ? verdict.refusal.limit.id : null;
  };
  const elsewhere = { model: "another" as ModelId, deployment: "elsewhere" as DeploymentId };
  const other = { tenant: OTHER };
  assert.equal(after(40, {}, {}), endpoint.id);
  assert.equal(after(40, {}, { ...other }), endpoint.id, "a deployment is everybody's");
  assert.equal(after(40, {}, { deployment: "elsewhere" as DeploymentId }), null);
  assert.equal(after(50, { deployment: null }, { ...other, deployment: null }), everybody.id, "so is a model of the platform's limit");
  assert.equal(after(70, elsewhere, elsewhere), ofProject.id);
  assert.equal(after(70, elsewhere, { ...elsewhere, project: "another" as ProjectId, key: "its own" as KeyId }), null);
  const unprojected = { ...elsewhere, project: null };
  assert.equal(after(80, unprojected, unprojected), perKey.id);
  assert.equal(after(80, unprojected, { ...unprojected, key: "another" as KeyId }), null, "each key has its own");
  assert.equal(after(90, { ...elsewhere, ...other, tier: "gold" }, { ...elsewhere, ...other, tier: "gold" }), gold.id);
  assert.equal(after(90, { ...elsewhere, ...other, tier: "gold" }, { ...elsewhere, ...other, tier: "silver" }), null);
  assert.equal(after(100, { ...elsewhere, ...other }, { ...elsewhere, ...other, key: "another" as KeyId }), everyTenant.id);
  assert.equal(after(100, { ...elsewhere, ...other }, { ...elsewhere, tenant: "tenant-c" as TenantId }), null, "each tenant has its own");
});

test("a limit that others are counted under is refused as shared, and shows no figures of itself", () => {
  const shared = limit({ amount: 1, scope: "deployment" });
  const { ask } = stage({ [PLATFORM_TENANT]: part([shared]), [TENANT]: part([limit({ amount: 9 })]) });
  assert.equal(permitted(ask()).figures().requests?.limit, 9);
  const { isShared, figures } = refused(ask());
  assert.deepEqual([isShared, figures.requests?.remaining], [true, 8]);
});

test("prefix_tokens counts only what is new, for ten minutes, apart for each tenant", () => {
  const flood = limit({ dimension: "prefix_tokens", amount: 1_000 });
  const { ask, world } = stage({ [TENANT]: part([flood]), [OTHER]: part([{ ...flood, id: "of-other" as Limit["id"] }]) });
  const [hello, answer] = [
    { role: "user", content: "x".repeat(900) },
    { role: "assistant", content: "y".repeat(900) },
  ];
  const charge = (messages: readonly Json[], tenant = TENANT): number =>
    refused(ask({ tenant, request: request([...messages, "z".repeat(30_000)]) })).charge;
  const fresh = charge([hello]);
  permitted(ask({ request: request([hello]) }));
  const known = charge([hello]);
  assert.ok(fresh - known > 300 && known > 10_000, `${fresh} then ${known}`);
  permitted(ask({ request: request([hello, answer]) }));
  assert.ok(charge([hello, answer]) <= known, "a conversation that goes on pays for what it adds");
  assert.ok(charge([answer, hello]) > fresh, "the same messages in another order are another prefix");
  assert.equal(charge([hello], OTHER), fresh);
  world.seconds += 601;
  permitted(ask({ request: { ...request([hello]), kind: "count" } }));
  assert.equal(charge([hello]), fresh, "ten minutes later, though its tokens were counted since");
});

test("levels of subjects that call no more are forgotten, and what is remembered is bounded", (t) => {
  const { ask, limiter, world } = stage({
    [TENANT]: part([limit({ amount: 60, scope: "key" }), limit({ dimension: "tokens", amount: 5_000, window: "sliding", scope: "key" })]),
  });
  for (let index = 0; index < 5_000; index++) permitted(ask({ key: `key-${index}` as KeyId })).release({ input: 1, output: 1 });
  const most = limiter.levels;
  world.seconds += 62;
  for (let index = 0; index < 10_200; index++) {
    permitted(ask({ key: "last" as KeyId })).release(NOTHING);
    world.seconds += 1.1;
  }
  t.diagnostic(`${most} levels of 5,000 keys, ${limiter.levels} after a quiet minute`);
  assert.equal(most, 10_000);
  assert.ok(limiter.levels <= 2);
});

test("where there are as many levels as can be, a new one is refused as overload, and what runs is settled all the same", () => {
  const counters = new Counters(2);
  const own = limit();
  const [first] = [counters.of("a", own, 0), counters.of("b", own, 0)];
  assert.throws(
    () => counters.of("c", own, 0),
    (thrown) => thrown instanceof Problem && thrown.code === "overloaded",
  );
  first.running = 1;
  for (let look = 0; look < 10; look++) counters.sweep(10 * TICKS_PER_MINUTE);
  assert.deepEqual([counters.size, first.isKept], [1, true], "a level that a call holds something of is kept for it");
  assert.equal(counters.of("a", own, 0), first);
  counters.of("c", own, 0);
});

test("a bound that takes time is awaited before anything is checked, and check and commit stay one step", async () => {
  const { limiter } = stage({ [TENANT]: part([limit({ dimension: "tokens", amount: 100, strict: true })]) });
  const slow = () => limiter.permit(facts({ bound: () => Promise.resolve(bound(30, 30)) }));
  const verdicts = await Promise.all([slow(), slow(), slow()]);
  assert.deepEqual(
    verdicts.map(({ kind }) => kind),
    ["permitted", "refused", "refused"],
  );
  await assert.rejects(async () => limiter.permit(facts({ bound: () => Promise.reject(new Error("unreadable")) })), /unreadable/);
});

test("an estimate charges what the model's tokenizer counts of the prompt, and a third of its bytes where that fails, is late or is not known", async () => {
  const tokens = limit({ dimension: "tokens", amount: 10_000 });
  const { limiter } = stage({ [TENANT]: part([tokens]) });
  const spent = async (prompt: CallFacts["prompt"]): Promise<number> => {
    const before = permitted(await limiter.permit(facts())).figures().tokens?.remaining ?? 0;
    const call = { ...facts({ bound: () => bound(5_000, 20), request: request([], 300) }), ...(prompt === undefined ? {} : { prompt }) };
    return before - (permitted(await limiter.permit(call)).figures().tokens?.remaining ?? 0) - 20;
  };
  assert.equal(await spent(() => Promise.resolve(17)), 17);
  assert.equal(await spent(() => Promise.resolve(1_000_000)), 5_000);
  for (const uncounted of [() => Promise.reject(new Error("busy")), () => new Promise<number>(() => {}), () => null, undefined])
    assert.equal(await spent(uncounted), 100);
});

test("a prompt is counted only where tokens are limited by an estimate", () => {
  const prompt = () => assert.fail("counted");
  const strict = limit({ dimension: "tokens", amount: 100_000, strict: true });
  for (const limits of [[], [limit({ amount: 5 })], [strict]]) permitted(stage({ [TENANT]: part(limits) }).ask({ prompt }));
});
