import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { copyFile, cp, mkdir, mkdtemp, open, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../../kernel/clock.ts";
import type { JsonObject } from "../../../kernel/request.ts";
import { DispatchError, type Dispatch, type ProviderResponse } from "../contract.ts";
import { line } from "./lines.ts";
import { createLocalProvider, type LocalProvider } from "./local.ts";
import {
  CHAT_MODEL,
  collect,
  deploymentOf,
  dispatchOf,
  EMBEDDING_MODEL,
  needModels,
  PLUGIN_FOLDER,
  quiet,
  TEST_MODELS,
  textOf,
} from "./testing/requests.ts";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "atrium-local-"));
});
after(() => rm(folder, { recursive: true }));

const STORY = { messages: [{ role: "user", content: "Tell a long story." }], stream: true, max_tokens: 1500 };
const SHORT = { messages: [{ role: "user", content: "What is the capital of France?" }], temperature: 0, max_tokens: 3 };
const LONG_PROMPT = { messages: [{ role: "user", content: "many words ".repeat(800) }], max_tokens: 3 };

async function withProvider(modelsDirectory: string | null, use: (provider: LocalProvider) => Promise<void>): Promise<void> {
  const provider = createLocalProvider({ modelsDirectory, clock: systemClock, log: quiet });
  try {
    await use(provider);
  } finally {
    await provider.close();
  }
}

function dispatch(
  provider: LocalProvider,
  fields: JsonObject,
  file = CHAT_MODEL,
  options: JsonObject = {},
  more: Partial<Dispatch> = {},
): Promise<ProviderResponse> {
  return provider.dispatch(dispatchOf(fields, deploymentOf(file, options), more));
}

async function failureOf(promise: Promise<ProviderResponse>): Promise<{ readonly kind: string; readonly cause: string }> {
  const error = await promise.then(
    () => assert.fail("a response came"),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof DispatchError, String(error));
  return { kind: error.failure.kind, cause: error.cause instanceof Error ? error.cause.message : "" };
}

/** A zombie has ended: that its new parent has not asked for its exit code is not ours to change. */
function alive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}

async function goneWithin(pid: number, limitMs: number): Promise<number> {
  const started = performance.now();
  while (alive(pid)) {
    assert.ok(performance.now() - started < limitMs, `process ${pid} still lives after ${limitMs} ms`);
    await delay(10);
  }
  return performance.now() - started;
}

test("a child killed in the middle of an answer truncates it; the next call is refused at once, and answered after the pause", async (t) => {
  if (needModels(t) === null) return;
  await withProvider(TEST_MODELS, async (provider) => {
    const response = await dispatch(provider, STORY);
    const [pid] = provider.pids();
    assert.ok(pid !== undefined);
    let events = 0;
    const { ending } = await collect(response, () => {
      events += 1;
      if (events === 4) process.kill(pid, "SIGKILL");
    });
    assert.ok(ending.kind === "truncated");
    assert.equal(ending.problem.code, "upstream_error");
    const refused = await failureOf(dispatch(provider, SHORT));
    assert.equal(refused.kind, "unavailable");
    assert.match(refused.cause, /starts again in \d+ ms.*SIGKILL/);
    await delay(300);
    assert.equal(textOf(await collect(await dispatch(provider, SHORT))), "The capital of");
  });
});

test("a child killed before the first token makes the call unavailable, so that it may be tried elsewhere", async (t) => {
  if (needModels(t) === null) return;
  await withProvider(TEST_MODELS, async (provider) => {
    let sent = 0;
    const killed = dispatch(
      provider,
      LONG_PROMPT,
      CHAT_MODEL,
      {},
      { onSent: () => void ((sent += 1), process.kill(provider.pids()[0] ?? 0, "SIGKILL")) },
    );
    assert.equal((await failureOf(killed)).kind, "unavailable");
    assert.equal(sent, 1);
  });
});

test("a truncated model ends the call with a reason, never the server", async (t) => {
  const models = needModels(t);
  if (models === null) return;
  for (const [name, bytes] of [
    ["half.gguf", 50_000_000],
    ["head.gguf", 4096],
  ] as const) {
    await copyFile(join(models, CHAT_MODEL), join(folder, name));
    await truncate(join(folder, name), bytes);
    await withProvider(folder, async (provider) => {
      const failure = await failureOf(dispatch(provider, SHORT, name));
      t.diagnostic(`${name}: ${failure.cause.slice(0, 200).replaceAll(folder, "…")}`);
      assert.equal(failure.kind, "unavailable");
      assert.notEqual(failure.cause, "");
    });
  }
});

test("a model damaged inside ends the call, never the server", async (t) => {
  const models = needModels(t);
  if (models === null) return;
  const path = join(folder, "damaged.gguf");
  await copyFile(join(models, CHAT_MODEL), path);
  const file = await open(path, "r+");
  await file.write(Buffer.alloc(64, 0xff), 0, 64, 8);
  await file.close();
  await withProvider(folder, async (provider) =>
    assert.equal((await failureOf(dispatch(provider, SHORT, "damaged.gguf"))).kind, "unavailable"),
  );
});

test("a model that writes no text is refused with that reason", async (t) => {
  const models = needModels(t);
  if (models === null) return;
  await withProvider(models, async (provider) =>
    assert.match((await failureOf(dispatch(provider, SHORT, EMBEDDING_MODEL))).cause, /writes no text/),
  );
});

test("a file that is missing or outside the folder makes the deployment unavailable", async () => {
  await writeFile(join(folder, "outside.gguf"), "GGUF");
  await mkdir(join(folder, "inner"), { recursive: true });
  await symlink(join(folder, "outside.gguf"), join(folder, "inner", "escape.gguf"));
  await withProvider(join(folder, "inner"), async (provider) => {
    for (const name of ["absent.gguf", "escape.gguf"]) assert.equal((await failureOf(dispatch(provider, SHORT, name))).kind, "unavailable");
    await assert.rejects(provider.check("escape.gguf"), /link that leaves/);
    assert.deepEqual(provider.pids(), []);
  });
});

test("a child that passes its memory limit is ended, and the reason names the limit", async (t) => {
  if (needModels(t) === null) return;
  await withProvider(TEST_MODELS, async (provider) => {
    const failure = await failureOf(dispatch(provider, SHORT, CHAT_MODEL, { memory_limit_mb: 100 }));
    t.diagnostic(failure.cause);
    assert.match(failure.cause, /used \d+ MiB of memory; its limit is 100 MiB/);
  });
});

test("without the plug-in the child says which command installs it", async (t) => {
  // A checkout in miniature, whose plugins/local has no node_modules; Node resolves from the real path, so the child is copied.
  const checkout = join(folder, "checkout");
  await mkdir(join(checkout, "plugins/local"), { recursive: true });
  await writeFile(join(checkout, "package.json"), '{"type":"module"}');
  await copyFile(join(PLUGIN_FOLDER, "inference.ts"), join(checkout, "plugins/local/inference.ts"));
  for (const part of ["kernel/tokens.ts", "domains/providers/local/lines.ts"])
    await cp(fileURLToPath(new URL(`../../../${part}`, import.meta.url)), join(checkout, "src", part), { recursive: true });
  const child = spawn(process.execPath, [join(checkout, "plugins/local/inference.ts")], { stdio: ["pipe", "ignore", "inherit", "pipe"] });
  t.after(() => child.kill("SIGKILL"));
  child.stdin?.write(line({ type: "load", file: "/none.gguf", contextSize: 256, threads: 1, sequences: 1 }));
  let said = "";
  for await (const chunk of child.stdio[3] as AsyncIterable<Buffer>) {
    said += chunk.toString();
    if (said.includes("unusable")) break;
  }
  assert.match(said, /npm run setup:local/);
});

test("when the server is killed, its child is gone within two seconds", async (t) => {
  if (needModels(t) === null) return;
  const server = spawn(process.execPath, [fileURLToPath(new URL("testing/parent.ts", import.meta.url))], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => server.kill("SIGKILL"));
  const [first] = (await server.stdout.take(1).toArray()) as readonly Buffer[];
  const pid = Number(first?.toString());
  assert.ok(alive(pid));
  server.kill("SIGKILL");
  t.diagnostic(`child gone after ${Math.round(await goneWithin(pid, 2000))} ms`);
});

test("a signal meant for the server's whole process group does not end a child that is answering", async (t) => {
  if (needModels(t) === null) return;
  await withProvider(TEST_MODELS, async (provider) => {
    const response = await dispatch(provider, { ...STORY, max_tokens: 10 });
    const [pid] = provider.pids();
    assert.ok(pid !== undefined);
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.kill(pid, signal);
    assert.equal((await collect(response)).ending.kind, "complete");
  });
});

test("close ends every child, and what was running is truncated", async (t) => {
  if (needModels(t) === null) return;
  const provider = createLocalProvider({ modelsDirectory: TEST_MODELS, clock: systemClock, log: quiet });
  const reading = collect(await dispatch(provider, STORY));
  const [pid] = provider.pids();
  assert.ok(pid !== undefined);
  await provider.close();
  assert.equal(alive(pid), false);
  assert.equal((await reading).ending.kind, "truncated");
  assert.equal((await failureOf(dispatch(provider, SHORT))).kind, "unavailable");
});

test("a first token later than the deployment allows is a timeout", async (t) => {
  if (needModels(t) === null) return;
  await withProvider(TEST_MODELS, async (provider) => {
    const deployment = deploymentOf(CHAT_MODEL, {}, { firstTokenTimeoutMs: 50 });
    assert.equal((await failureOf(provider.dispatch(dispatchOf(SHORT, deployment)))).kind, "timeout");
  });
});
