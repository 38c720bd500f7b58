import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { IS_SOAK } from "../../../../test/support/scale.ts";
import { systemClock } from "../../../kernel/clock.ts";
import { DispatchError } from "../contract.ts";
import { Engine, type GenerationListener } from "./engine.ts";
import { createLocalProvider } from "./local.ts";
import { renderPrompt } from "./request.ts";
import { CHAT_MODEL, collect, deploymentOf, dispatchOf, needModels, quiet, requestOf, TEST_MODELS, textOf } from "./testing/requests.ts";

const STORY = { messages: [{ role: "user", content: "Tell a long story." }], stream: true, max_tokens: 1500 };
const LONG_PROMPT = { messages: [{ role: "user", content: "many words ".repeat(900) }], stream: true, max_tokens: 3 };
/** The promise of capacity.md: the upstream has stopped this long after the client left. */
const ABORT_MS = 100;
const ROUNDS = 7;

/** Aborts a generation at a moment and returns how long its child went on computing, ms. */
function stopAfter(engine: Engine, fields: typeof STORY, moment: "first token" | "in the prompt"): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let began = 0;
  const abort = (): void => {
    began = performance.now();
    task.abort();
  };
  const listener: GenerationListener = {
    sent: () => void (moment === "in the prompt" && setTimeout(abort, 150)),
    events: (events) => {
      if (began > 0) reject(new Error("an event came after the abort"));
      if (moment === "in the prompt") reject(new Error("the prompt was read before the abort"));
      if (events.length > 0) abort();
    },
    done: () => reject(new Error("it was done before the abort")),
    failed: (failure) => reject(new Error(JSON.stringify(failure))),
    stopped: () => resolve(performance.now() - began),
  };
  const task = engine.generate(renderPrompt(requestOf(fields), null).generation, listener);
  return promise;
}

/** How long a generation takes that nobody aborts, ms. */
function runWhole(engine: Engine, fields: typeof STORY): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const began = performance.now();
  const ended = (): void => reject(new Error("it did not run to its end"));
  engine.generate(renderPrompt(requestOf(fields), null).generation, {
    sent() {},
    events() {},
    done: () => resolve(performance.now() - began),
    failed: ended,
    stopped: ended,
  });
  return promise;
}

test("an aborted generation stops computing, within 100 ms where that is asserted (soak), while it writes and while it reads a long prompt", async (t) => {
  const models = needModels(t);
  if (models === null) return;
  const engine = new Engine(
    { file: join(models, CHAT_MODEL), contextSize: 2048, threads: 1, sequences: 1, memoryLimitBytes: 2 ** 32, unloadAfterIdleMs: 60_000 },
    systemClock,
    quiet,
  );
  t.after(() => engine.close());
  for (const [moment, fields] of [
    ["first token", STORY],
    ["in the prompt", LONG_PROMPT],
  ] as const) {
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) times.push(await stopAfter(engine, fields, moment));
    t.diagnostic(`${moment}: ${times.map(Math.round).join(", ")} ms`);
    // The best round, and a loose bound on the worst, because the machine that runs the tests runs other things: at its quiet
    // moments all rounds are below 50 ms.
    if (IS_SOAK) assert.ok(Math.min(...times) < ABORT_MS && Math.max(...times) < 10 * ABORT_MS, `${times.join()} ms`);
    else t.diagnostic("the 100 ms are asserted by `npm run soak`");
    if (moment === "in the prompt") assert.ok(Math.max(...times) < (await runWhole(engine, fields)), "the prompt was read to its end");
  }
});

test("the caller's side ends at once: before the first token as an aborted dispatch, after it as an aborted stream", async (t) => {
  if (needModels(t) === null) return;
  const provider = createLocalProvider({ modelsDirectory: TEST_MODELS, clock: systemClock, log: quiet });
  t.after(() => provider.close());
  const deployment = deploymentOf(CHAT_MODEL, { sequences: 1 });

  const early = new AbortController();
  const waiting = provider.dispatch(
    dispatchOf(LONG_PROMPT, deployment, { signal: early.signal, onSent: () => void setTimeout(() => early.abort(), 50) }),
  );
  await assert.rejects(waiting, (error) => error instanceof DispatchError && error.failure.kind === "aborted");

  const late = new AbortController();
  const response = await provider.dispatch(dispatchOf(STORY, deployment, { signal: late.signal }));
  let events = 0;
  let aborted = 0;
  const { ending } = await collect(response, () => {
    events += 1;
    if (events === 5) {
      aborted = performance.now();
      late.abort();
    }
  });
  const took = performance.now() - aborted;
  t.diagnostic(`stream ended ${took.toFixed(2)} ms after the abort`);
  assert.equal(ending.kind, "aborted");
  assert.equal(events, 5);
  if (IS_SOAK) assert.ok(took < ABORT_MS);
  // The one sequence is free again: the next request is answered.
  assert.equal(
    textOf(await collect(await provider.dispatch(dispatchOf({ ...STORY, max_tokens: 2, temperature: 0 }, deployment)))).length > 0,
    true,
  );
});
