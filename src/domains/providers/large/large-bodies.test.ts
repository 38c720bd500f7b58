import assert from "node:assert/strict";
import { after, test, type TestContext } from "node:test";
import fc from "fast-check";
import { scaled } from "../../../../test/support/scale.ts";
import { systemClock } from "../../../kernel/clock.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { ChatRequest } from "../../../kernel/chat.ts";
import type { Attribution, Json, ModelRequest } from "../../../kernel/request.ts";
import type { Provider } from "../contract.ts";
import { renderMessages } from "../dialects/anthropic/render-request.ts";
import { renderChatCompletion } from "../dialects/openai/render-request.ts";
import { NO_ATTRIBUTION } from "../dialects/parsed-request.ts";
import { createLocalProvider } from "../local/local.ts";
import { createProviders } from "../service.ts";
import { chatRequests } from "../testing/chat-requests.ts";
import { deploymentOf } from "../testing/dispatching.ts";
import { jsonObject, oddJson } from "../testing/odd-json.ts";
import { LARGE_BODY_BYTES, LargeBodies, MANY_VALUES, bare, bareModel, isLarge, withBuffers } from "./large-bodies.ts";
import type { LargeRequest } from "./large-request.ts";
import { PARSERS, type ParserName } from "./parsers.ts";
import { SMALL, manyMessages } from "./testing/bodies.ts";

const providers = createProviders({
  clock: systemClock,
  more: [createLocalProvider({ modelsDirectory: null, clock: systemClock, log: { info: () => undefined, warn: () => undefined } })],
});
after(() => providers.close());

const NEVER = new AbortController().signal;
const VALUES = { outputBound: 100, cacheSalt: "salt" };

test("a body is large by its bytes or by its values, however it is cut; a long text is not", () => {
  const cut = (text: string, bytes: number): boolean => {
    const body = Buffer.from(text);
    const chunks = Array.from({ length: Math.ceil(body.length / bytes) }, (_, index) => body.subarray(index * bytes, (index + 1) * bytes));
    return isLarge(chunks, body.length);
  };
  for (const bytes of [1000, LARGE_BODY_BYTES]) {
    assert.equal(cut(`[${"{},".repeat(MANY_VALUES / 2)}{}]`, bytes), true);
    assert.equal(cut(`[${"{},".repeat(MANY_VALUES / 2 - 2)}{}]`, bytes), false);
    assert.equal(cut("word ".repeat(200_000), bytes), false);
    assert.equal(cut("x".repeat(LARGE_BODY_BYTES + 1), bytes), true);
  }
});

test("a body is judged, bounded and rendered on the thread as it is here, whatever is in it and however it was cut", async (t) => {
  const large = largeBodies(t);
  const list = providers.list();
  const told = { judged: 0, rendered: 0 };
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...(Object.keys(PARSERS) as ParserName[])),
      fc.oneof({ weight: 3, arbitrary: chatRequests().map(bodiesOf) }, oddBodies),
      fc.nat({ max: list.length - 1 }),
      fc.integer({ min: 1, max: 4000 }),
      async (parser, bodies, index, chunkBytes) => {
        const body = bodies[parser];
        if (body === null) return;
        const provider = list[index] as Provider;
        const here = attempt(() => PARSERS[parser](body, ATTRIBUTION));
        const there = await attemptAsync(() => large.parse(parser, cut(body, chunkBytes), ATTRIBUTION, NEVER));
        assert.deepEqual(headOf(there), headOf(here));
        told.judged++;
        if ("problem" in here || "problem" in there) return;
        const asked = await answersOf(large, provider, there.value as LargeRequest);
        assert.deepEqual(asked, answersHere(provider, here.value));
        if (!("problem" in asked.render)) told.rendered++;
      },
    ),
    { numRuns: scaled(600) },
  );
  t.diagnostic(`${told.judged} bodies judged, ${told.rendered} rendered`);
  assert.ok(told.rendered > told.judged / 4);
});

test("nothing of a large body is parsed on this thread, from its arrival to its upstream bytes", async (t) => {
  const large = largeBodies(t);
  const body = Buffer.from(JSON.stringify({ model: "m", messages: [{ role: "user", content: "x".repeat(2 * LARGE_BODY_BYTES) }] }));
  const parse = t.mock.method(JSON, "parse");
  const request = (await large.parse("chatCompletion", cut(body, 65_536), NO_ATTRIBUTION, NEVER)) as LargeRequest;
  for (const provider of ["openai", "anthropic", "vllm", "simulated", "local"]) {
    const deployment = bare(deploymentFor({ id: provider }));
    await large.ask(request, { verb: "accept", provider, deployment });
    await large.ask(request, { verb: "bound", provider, model: deployment.model });
    await large.ask(request, { verb: "render", provider, deployment, values: VALUES });
  }
  const parsedHere = (): number => parse.mock.calls.filter((call) => call.arguments[0].length > LARGE_BODY_BYTES).length;
  assert.equal(parsedHere(), 0);
  assert.equal(request.chat().messages.length, 1, "who asks for its fields here gets them");
  assert.equal(parsedHere(), 1, "and that is what would be counted");
});

test("this thread turns while a large body is parsed on the other", async (t) => {
  const large = largeBodies(t);
  const chunks = cut(manyMessages(100_000), 65_536);
  await large.parse("chatCompletion", cut(Buffer.from(SMALL), 65_536), NO_ATTRIBUTION, NEVER);
  let turns = 0;
  let longest = 0;
  let last = process.threadCpuUsage();
  let over = false;
  const turn = (): void => {
    const used = process.threadCpuUsage(last);
    longest = Math.max(longest, (used.user + used.system) / 1000);
    last = process.threadCpuUsage();
    turns++;
    if (!over) setImmediate(turn);
  };
  setImmediate(turn);
  await large.parse("chatCompletion", chunks, NO_ATTRIBUTION, NEVER);
  over = true;
  // A turn copies 512 kB at most: fewer would mean that something took the body whole.
  assert.ok(turns > manyMessages(100_000).length / 512 / 1024, `${turns} turns`);
  t.diagnostic(`10 MB in 100,000 messages: ${turns} turns of this thread, the longest ${longest.toFixed(1)} ms of its processor time`);
});

const ATTRIBUTION: Attribution = { feature: "search", user: null, session: null, tags: { team: "blue" } };
const DEPLOYMENT = (provider: string) =>
  deploymentOf({ provider, baseUrl: "http://127.0.0.1:1/v1", secret: "secret", model: { contextWindow: 1_000_000 } });
const DEPLOYMENTS = new Map(providers.list().map(({ id }) => [id, { ...DEPLOYMENT(id), upstreamModel: "model.gguf" }]));

function largeBodies(t: TestContext): LargeBodies {
  const large = new LargeBodies();
  t.after(() => large.close());
  return large;
}

function cut(body: Buffer, chunkBytes: number): Buffer[] {
  return Array.from({ length: Math.ceil(body.length / chunkBytes) }, (_, index) =>
    body.subarray(index * chunkBytes, (index + 1) * chunkBytes),
  );
}

type Bodies = Readonly<Record<ParserName, Buffer | null>>;

/** A request as a caller of each dialect would write it; null where the dialect cannot say it. */
function bodiesOf(chat: ChatRequest): Bodies {
  const request = { dialect: "openai", model: "m", stream: false, chat: () => chat } as ModelRequest;
  const written = (render: () => Buffer): Buffer | null => {
    const outcome = attempt(render);
    return "problem" in outcome ? null : outcome.value;
  };
  const messages = written(() => renderMessages(request));
  return {
    chatCompletion: written(() =>
      renderChatCompletion(request, { earlierReasoning: "details", cacheBreakpoints: "prompt_cache_breakpoint", topK: true }),
    ),
    messages,
    countTokens: messages,
  };
}

const oddBodies: fc.Arbitrary<Bodies> = fc
  .oneof(
    fc
      .tuple(jsonObject, fc.array(fc.nat({ max: 20 }), { minLength: 1, maxLength: 20 }))
      .map(([value, spelling]) => oddJson(value as Json, spelling)),
    fc.string({ unit: "binary" }),
    fc.constantFrom(
      `{"model":"m","model":"n"}`,
      `${"[".repeat(100)}${"]".repeat(100)}`,
      `{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}`,
    ),
  )
  .map((text) => Buffer.from(text))
  .map((body) => ({ chatCompletion: body, messages: body, countTokens: body }));

type Outcome<T> = { readonly value: T } | { readonly problem: object };

function attempt<T>(work: () => T): Outcome<T> {
  try {
    return { value: work() };
  } catch (thrown) {
    return { problem: partsOf(thrown) };
  }
}

function attemptAsync<T>(work: () => Promise<T>): Promise<Outcome<T>> {
  return work().then(
    (value) => ({ value }),
    (thrown: unknown) => ({ problem: partsOf(thrown) }),
  );
}

function partsOf(thrown: unknown): object {
  assert.ok(thrown instanceof Problem, String(thrown));
  const { code, message, param, retryAfterSeconds, headers } = thrown;
  return { code, message, param, retryAfterSeconds, headers };
}

function headOf(outcome: Outcome<ModelRequest>): object {
  if ("problem" in outcome) return outcome;
  const { kind, dialect, model, stream, includeUsage, attribution, body } = outcome.value;
  return {
    kind,
    dialect,
    model,
    stream,
    includeUsage,
    attribution: { ...attribution, tags: { ...attribution.tags } },
    body: body.toString("latin1"),
  };
}

function answersHere(provider: Provider, request: ModelRequest) {
  const deployment = deploymentFor(provider);
  return {
    accept: attempt(() => provider.accept(request, deployment) ?? null),
    bound: attempt(() => provider.bound(request, deployment.model)),
    render: attempt(() => comparable(provider.render(request, deployment, VALUES))),
  };
}

async function answersOf(large: LargeBodies, { id: provider }: Provider, request: LargeRequest) {
  const deployment = bare(deploymentFor({ id: provider }));
  return {
    accept: await attemptAsync(() => large.ask(request, { verb: "accept", provider, deployment })),
    bound: await attemptAsync(() => large.ask(request, { verb: "bound", provider, model: bareModel(deployment.model) })),
    render: await attemptAsync(async () =>
      comparable(withBuffers(await large.ask(request, { verb: "render", provider, deployment, values: VALUES }))),
    ),
  };
}

function deploymentFor({ id }: Pick<Provider, "id">) {
  const deployment = DEPLOYMENTS.get(id);
  assert.ok(deployment !== undefined);
  return deployment;
}

/** Bytes as text, that a difference can be read; what shares no identity with this thread's objects as plain JSON. */
function comparable(rendered: unknown): unknown {
  return JSON.parse(
    JSON.stringify(rendered, (_key, value: unknown) => (isBuffer(value) ? Buffer.from(value.data).toString("latin1") : value)),
  );
}

function isBuffer(value: unknown): value is { readonly data: number[] } {
  return typeof value === "object" && value !== null && "type" in value && value.type === "Buffer" && "data" in value;
}
