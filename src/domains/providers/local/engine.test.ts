import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { systemClock } from "../../../kernel/clock.ts";
import { Engine, type EngineSpec, type GenerationListener } from "./engine.ts";
import { Engines } from "./engines.ts";
import { renderPrompt } from "./request.ts";
import { CHAT_MODEL, needModels, quiet, requestOf } from "./testing/requests.ts";

const ONE_TOKEN = renderPrompt(requestOf({ messages: [{ role: "user", content: "Hello" }], max_tokens: 1 }), null).generation;

function specOf(models: string): EngineSpec {
  return {
    file: join(models, CHAT_MODEL),
    contextSize: 512,
    threads: 1,
    sequences: 1,
    memoryLimitBytes: 2 ** 32,
    unloadAfterIdleMs: 60_000,
  };
}

/** Writes what became of each generation. */
function recorder(): { readonly outcomes: string[]; readonly listener: GenerationListener } {
  const outcomes: string[] = [];
  const failed: GenerationListener["failed"] = (failure) => outcomes.push(failure.kind === "unavailable" ? failure.reason : failure.code);
  return {
    outcomes,
    listener: {
      sent: () => undefined,
      events: () => undefined,
      done: () => outcomes.push("done"),
      failed,
      stopped: () => outcomes.push("stopped"),
    },
  };
}

test("the queue is bounded: the request beyond it is refused, an aborted one makes room", async (t) => {
  const models = needModels(t);
  if (models === null) return;
  const engine = new Engine(
    { file: join(models, CHAT_MODEL), contextSize: 512, threads: 1, sequences: 1, memoryLimitBytes: 2 ** 32, unloadAfterIdleMs: 60_000 },
    systemClock,
    quiet,
  );
  t.after(() => engine.close());
  const { outcomes, listener } = recorder();
  const submit = (): { abort(): void } => engine.generate(ONE_TOKEN, listener);
  const tasks = Array.from({ length: 64 }, submit);
  submit();
  assert.deepEqual(outcomes, ["64 requests are waiting for this model already"]);
  tasks[5]?.abort();
  submit();
  assert.deepEqual(outcomes.slice(1), ["stopped"]);
  for (const task of tasks) task.abort();
  while (!engine.idle) await delay(20);
  assert.deepEqual(outcomes.slice(2).sort(), [...Array.from({ length: 63 }, () => "stopped"), "done"].sort());
});

test("an idle model is unloaded, and a request that comes while it goes is answered all the same", async (t) => {
  const models = needModels(t);
  if (models === null) return;
  const engine = new Engine({ ...specOf(models), unloadAfterIdleMs: 100 }, systemClock, quiet);
  t.after(() => engine.close());
  const { outcomes, listener } = recorder();
  const run = async (): Promise<void> => {
    engine.generate(ONE_TOKEN, listener);
    while (!engine.idle) await delay(5);
  };
  await run();
  const first = engine.pid;
  assert.notEqual(first, null);
  // The moment between the kill and the exit: this timer was set after the engine's own.
  await delay(101);
  await run();
  assert.notEqual(engine.pid, first);
  await delay(500);
  assert.equal(engine.pid, null);
  assert.deepEqual(outcomes, ["done", "done"]);
});

test("at most four models are in memory: a fifth takes the place of the one idle longest, or is refused while all work", async (t) => {
  const models = needModels(t);
  if (models === null) return;
  const engines = new Engines(systemClock, quiet);
  t.after(() => engines.close());
  const engineOf = (identity: string): Engine | null => engines.for({ path: "", bytes: 0, identity }, specOf(models));
  const [first, second] = ["1", "2", "3", "4"].map(engineOf);
  assert.equal(engineOf("1"), first);
  assert.notEqual(engineOf("5"), null);
  assert.equal(engineOf("1"), first);
  assert.notEqual(engineOf("2"), second);
  const { outcomes, listener } = recorder();
  const tasks = ["1", "2", "4", "5"].map((identity) => engineOf(identity)?.generate(ONE_TOKEN, listener));
  assert.equal(engineOf("6"), null);
  for (const task of tasks) task?.abort();
  assert.notEqual(engineOf("6"), null);
  assert.deepEqual(outcomes, ["stopped", "stopped", "stopped", "stopped"]);
});
