import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseUsd, parseUsdPerMillion } from "../../src/kernel/money.ts";
import type { AtriumProcess } from "./atrium.ts";

// What the tests that kill a server under load have in common: the load, an upstream that writes down the truth, and the judge of both.

/** Each dispatched call has one row, charged what was delivered at least and held at most; what completed, exactly what was emitted. */
export function judge(truths: ReadonlyMap<string, Truth>, rows: readonly Row[]) {
  const byFeature = Map.groupBy(rows, (row) => row.feature);
  const violations: string[] = [];
  const figures = {
    calls: truths.size,
    dispatched: 0,
    rows: rows.length,
    completed: 0,
    lost: 0,
    dispatchUnknown: 0,
    chargedTwice: 0,
    notCharged: 0,
  };
  for (const [feature, truth] of truths) {
    const own = byFeature.get(feature) ?? [];
    const [row] = own;
    if (truth.dispatched > 0) figures.dispatched += 1;
    if (own.length > 1) {
      figures.chargedTwice += 1;
      violations.push(`${feature}: ${own.length} rows for one attempt`);
    }
    if (truth.dispatched > 1) violations.push(`${feature}: dispatched ${truth.dispatched} times`);
    if (row === undefined) {
      if (truth.dispatched === 0) continue;
      figures.notCharged += 1;
      violations.push(`${feature}: dispatched and not charged`);
      continue;
    }
    const charge = parseUsd(row.charge) as bigint;
    const price = (tokens: number) => BigInt(PROMPT_TOKENS) * INPUT_RATE + BigInt(tokens) * OUTPUT_RATE;
    if (row.status === "completed") {
      figures.completed += 1;
      if (charge !== price(truth.emitted)) violations.push(`${feature}: completed at ${row.charge}, the upstream emitted ${truth.emitted}`);
    } else if (truth.completed) violations.push(`${feature}: the client saw a clean end of a call that is ${row.status}`);
    if (row.status === "lost") figures.lost += 1;
    if (row.dispatch_unknown) {
      figures.dispatchUnknown += 1;
      if (truth.delivered > 0) violations.push(`${feature}: dispatch unknown, yet ${truth.delivered} tokens were delivered`);
    } else if (row.status !== "failed") {
      if (charge < price(truth.delivered))
        violations.push(`${feature}: ${row.status} at ${row.charge}, but ${truth.delivered} tokens were delivered`);
      if (charge > (parseUsd(row.worst_case) as bigint))
        violations.push(`${feature}: charged ${row.charge}, more than was held (${row.worst_case})`);
    }
  }
  const strangers = rows.filter((row) => !truths.has(row.feature));
  if (strangers.length > 0) violations.push(`${strangers.length} rows of calls nobody made`);
  return { figures, violations };
}

/** Reads the rows once everything journalled has been shipped: until there are enough, and twice the same number. */
export async function settledRows(atrium: AtriumProcess, truths: ReadonlyMap<string, Truth>): Promise<Row[]> {
  const least = [...truths.values()].filter((truth) => truth.dispatched > 0).length;
  let before = -1;
  for (let look = 0; ; look++) {
    const rows = await allRows(atrium).catch(() => []);
    if (rows.length >= least && rows.length === before) return rows;
    if (look === 60) return rows;
    before = rows.length;
    await sleep(500);
  }
}

async function allRows(atrium: AtriumProcess): Promise<Row[]> {
  const rows: Row[] = [];
  for (let after = ""; ;) {
    const page = (await atrium.admin("GET", `usage/hops?limit=100${after === "" ? "" : `&after=${encodeURIComponent(after)}`}`)) as {
      data: Row[];
      has_more: boolean;
      last_id: string;
    };
    rows.push(...page.data);
    if (!page.has_more) return rows;
    after = page.last_id;
  }
}

/**
 * An upstream scripted from the OpenAI SDK's ChatCompletionChunk and ChatCompletion types, which writes down every token it
 * emits before it emits it.
 */
export async function startOracle(truths: Map<string, Truth>) {
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (data) => (body += data));
    request.on("end", () => {
      const { messages, stream } = JSON.parse(body) as { messages: { content: string }[]; stream?: boolean };
      const truth = truths.get(messages[0]?.content as string) as Truth;
      truth.dispatched += 1;
      if (stream === true) void emitStream(response, truth);
      else emitWhole(response, truth);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as { port: number }).port}/v1`,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

const usageOf = (tokens: number) => ({ prompt_tokens: PROMPT_TOKENS, completion_tokens: tokens, total_tokens: PROMPT_TOKENS + tokens });

async function emitStream(response: http.ServerResponse, truth: Truth): Promise<void> {
  const chunk = (choices: unknown[], extra: object = {}) =>
    response.write(
      `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", created: 1, model: "oracle-1", choices, ...extra })}\n\n`,
    );
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (let token = 0; token < TOKENS_PER_STREAM && !response.destroyed; token++) {
    truth.emitted += 1;
    chunk([{ index: 0, delta: { content: " t" }, finish_reason: null }]);
    await sleep(TOKEN_INTERVAL_MS);
  }
  if (response.destroyed) return;
  truth.reported = true;
  chunk([{ index: 0, delta: {}, finish_reason: "stop" }]);
  chunk([], { usage: usageOf(truth.emitted) });
  response.end("data: [DONE]\n\n");
}

function emitWhole(response: http.ServerResponse, truth: Truth): void {
  setTimeout(() => {
    if (response.destroyed) return;
    truth.emitted = TOKENS_PER_STREAM;
    truth.reported = true;
    response.writeHead(200, { "content-type": "application/json" });
    response.end(
      JSON.stringify({
        id: "c",
        object: "chat.completion",
        created: 1,
        model: "oracle-1",
        choices: [{ index: 0, message: { role: "assistant", content: "t ".repeat(TOKENS_PER_STREAM) }, finish_reason: "stop" }],
        usage: usageOf(TOKENS_PER_STREAM),
      }),
    );
  }, TOKEN_INTERVAL_MS * 10);
}

let calls = 0;

/** Clients that call without a pause until they are stopped, each call with a feature of its own and the headers given. */
export function startLoad(
  atrium: AtriumProcess,
  key: string,
  truths: Map<string, Truth>,
  headersOf: (call: number) => http.OutgoingHttpHeaders = () => ({}),
) {
  let running = true;
  const clients = Array.from({ length: CLIENTS }, async () => {
    while (running) {
      const feature = `call-${++calls}`;
      const truth = { dispatched: 0, emitted: 0, reported: false, delivered: 0, completed: false };
      truths.set(feature, truth);
      const headers = { authorization: `Bearer ${key}`, "x-atrium-feature": feature, ...headersOf(calls) };
      const ended = await call(atrium.url, headers, feature, truth, calls % 3 !== 0);
      if (!ended) await sleep(10);
    }
  });
  return {
    async stop() {
      running = false;
      await Promise.all(clients);
    },
  };
}

/** One call over plain HTTP; counts what arrives. False when it failed. */
function call(url: string, headers: http.OutgoingHttpHeaders, feature: string, truth: Truth, stream: boolean): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.request(
      `${url}/v1/chat/completions`,
      { method: "POST", headers: { ...headers, "content-type": "application/json" } },
      (response) => {
        let text = "";
        response.on("data", (data) => {
          text += data;
          if (stream) truth.delivered = text.split('"content":" t"').length - 1;
        });
        response.on("end", () => {
          truth.completed = stream ? text.includes("data: [DONE]") : response.statusCode === 200 && response.complete;
          if (!stream && truth.completed) truth.delivered = TOKENS_PER_STREAM;
          resolve(truth.completed);
        });
        response.on("error", () => resolve(false));
      },
    );
    request.on("error", () => resolve(false));
    request.end(
      JSON.stringify({ model: "oracle", stream, max_tokens: TOKENS_PER_STREAM * 2, messages: [{ role: "user", content: feature }] }),
    );
  });
}

export function postgresPid(dataDirectory: string): number {
  const pid = Number(readFileSync(path.join(dataDirectory, "postgres", "18", "postmaster.pid"), "utf8").split("\n")[0]);
  assert.ok(pid > 1, "PostgreSQL is not running");
  return pid;
}

/** What really happened to one call, by its feature tag. */
export interface Truth {
  /** The upstream saw the request, so many times. */
  dispatched: number;
  /** Tokens the upstream wrote. */
  emitted: number;
  /** Whether the upstream reported its usage. */
  reported: boolean;
  /** Tokens the client read. */
  delivered: number;
  /** The client saw a clean end. */
  completed: boolean;
}

export interface Row {
  readonly feature: string;
  readonly status: string;
  readonly charge: string;
  readonly worst_case: string;
  readonly estimated: boolean;
  readonly dispatch_unknown: boolean;
}

const CLIENTS = 8;
const PROMPT_TOKENS = 7;
const TOKENS_PER_STREAM = 40;
const TOKEN_INTERVAL_MS = 4;
export const PRICE = { input: "3", output: "15" };
const INPUT_RATE = parseUsdPerMillion(PRICE.input) as bigint;
const OUTPUT_RATE = parseUsdPerMillion(PRICE.output) as bigint;
