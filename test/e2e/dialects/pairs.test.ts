import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { answerFor, type Answer, RESULTS } from "./answers.ts";
import { CALLERS, type Conversation, type Settings, type Transcript, type Turn } from "./callers.ts";
import { openWorld, PRICE, UPSTREAMS, type World } from "./world.ts";

// Every caller against every kind of upstream, over real servers: the clients are the official SDKs, the upstream is scripted from
// their types (scripted-openai.ts, scripted-anthropic.ts). What each upstream is sent is in bodies.golden.txt.

let world: World;
before(async () => void (world = await openWorld()));
after(() => world.close());

type CallerName = keyof typeof CALLERS;
type UpstreamName = keyof typeof UPSTREAMS;
const PAIRS = (Object.keys(CALLERS) as CallerName[]).flatMap((caller) =>
  (Object.keys(UPSTREAMS) as UpstreamName[]).map((upstream) => ({ caller, upstream, name: `${caller} → ${upstream}` })),
);
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const PLACE = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false,
};

interface Scenario {
  readonly name: string;
  readonly turns: readonly Turn[];
  readonly settings: Settings;
}

const SCENARIOS: readonly Scenario[] = [
  { name: "plain", turns: [{ text: "[plain] Say hello." }], settings: { system: "Be brief." } },
  { name: "tools", turns: [{ text: "[tools] Weather in Paris and Rome?" }, { results: RESULTS }], settings: { tools: true } },
  { name: "thinking", turns: [{ text: "[thinking] Six by seven?" }, { text: "Go on." }], settings: { thinking: true } },
  { name: "json", turns: [{ text: "[json] Where, and for how long?" }], settings: { schema: PLACE } },
  { name: "image", turns: [{ text: "[image] What is this?", image: PIXEL }], settings: {} },
  { name: "stop", turns: [{ text: "[stop] Count." }], settings: { stop: ["three"] } },
  { name: "length", turns: [{ text: "[length] Go on and on." }], settings: {} },
  { name: "refusal", turns: [{ text: "[refusal] Do harm." }], settings: {} },
  { name: "cached", turns: [{ text: "[cached] A long prompt." }], settings: { cached: true } },
];

/** What the upstream was sent, by pair and scenario; streamed requests differ in `stream` and are not kept. */
const bodies: string[] = [];

for (const { caller, upstream, name } of PAIRS)
  for (const stream of [false, true])
    test(`${name}${stream ? ", streamed" : ""}: each scenario comes out as the upstream said it, and is charged exactly, class by class`, async () => {
      for (const scenario of SCENARIOS) {
        const conversation = CALLERS[caller]({ url: world.atrium.url, key: world.key, model: upstream });
        if (!stream) bodies.push(`${name}: ${scenario.name}`);
        let said = "";
        for (const [index, turn] of scenario.turns.entries()) {
          said += `${turn.text ?? ""}${turn.results?.join() ?? ""}`;
          const transcript = await conversation.say(turn, { ...scenario.settings, stream });
          const answer = answerFor(said);
          assert.deepEqual(transcript, expected(answer, caller, upstream), `${scenario.name}, turn ${index}`);
          await assertCharged(answer, UPSTREAMS[upstream], scenario.name);
          if (!stream) bodies.push(`  ${world.upstream.exchanges.at(-1)?.body.toString()}`);
        }
      }
    });

/** The two dialects' words for one end, and what either cannot say. */
function expected({ parts, end, usage }: Answer, caller: CallerName, upstream: UpstreamName): Transcript {
  const text = parts.map((part) => (part.kind === "text" ? part.text : "")).join("");
  const thinking = parts.find((part) => part.kind === "thinking");
  const isRefusal = end === "refusal";
  return {
    text: isRefusal ? "" : text,
    refusal: isRefusal ? text : null,
    reasoning: thinking === undefined ? null : { text: thinking.text, signature: thinking.signature },
    calls: parts.flatMap((part) =>
      part.kind === "call" ? [{ id: part.id, name: part.name, input: JSON.parse(part.arguments) as unknown }] : [],
    ),
    end: caller === "openai" ? openaiEnd(end, upstream) : anthropicEnd(end, upstream),
    usage: {
      input: usage.input,
      cacheRead: usage.cacheRead,
      cacheWrite: usage.cacheWrite5m + usage.cacheWrite1h,
      output: usage.output + usage.reasoning,
    },
  };
}

function openaiEnd(end: Answer["end"], upstream: UpstreamName): string {
  if (end === "refusal") return UPSTREAMS[upstream] === "anthropic" ? "content_filter" : "stop";
  return typeof end === "object" ? "stop" : end === "tools" ? "tool_calls" : end;
}

/** OpenAI's dialect does not say that a stop sequence ended an answer. */
function anthropicEnd(end: Answer["end"], upstream: UpstreamName): string {
  if (typeof end === "object") return UPSTREAMS[upstream] === "anthropic" ? "stop_sequence" : "end_turn";
  return { stop: "end_turn", length: "max_tokens", tools: "tool_use", refusal: "refusal" }[end];
}

/** OpenAI's dialect does not say for how long a cache was written. */
async function assertCharged({ usage }: Answer, dialect: "openai" | "anthropic", what: string): Promise<void> {
  const row = await world.lastRow();
  const byTtl =
    dialect === "anthropic"
      ? { cache_write_5m: usage.cacheWrite5m, cache_write_1h: usage.cacheWrite1h }
      : { cache_write_5m: usage.cacheWrite5m + usage.cacheWrite1h, cache_write_1h: 0 };
  const tokens = { input_uncached: usage.input, cache_read: usage.cacheRead, ...byTtl, output: usage.output, reasoning: usage.reasoning };
  for (const [name, count] of Object.entries(tokens)) assert.equal(row.tokens[name], count, `${what}: ${name}`);
  const perMillion: Readonly<Record<keyof typeof tokens, string>> = { ...PRICE, input_uncached: PRICE.input };
  // In millionths of a cent, so that every price is whole.
  const exact = Object.entries(tokens).reduce(
    (sum, [name, count]) => sum + count * Math.round(Number(perMillion[name as keyof typeof tokens]) * 100),
    0,
  );
  assert.equal(Math.round(Number(row.cost) * 1e8), exact, `${what}: cost ${row.cost}`);
  assert.deepEqual([row.kind, row.status, row.estimated], ["generate", "completed", false], what);
}

test("the bodies that upstreams are sent are those of bodies.golden.txt", () => {
  const file = join(import.meta.dirname, "bodies.golden.txt");
  const text = `${bodies.join("\n")}\n`;
  if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(file, text);
  assert.equal(text, readFileSync(file, "utf8"), "to accept the change: UPDATE_GOLDEN=1, and read the diff");
});

test("one conversation with tools has the same transcript through every pair, plain and streamed", async () => {
  const transcripts = new Map<string, string>();
  for (const { caller, upstream, name } of PAIRS)
    for (const stream of [false, true]) {
      const conversation = CALLERS[caller]({ url: world.atrium.url, key: world.key, model: upstream });
      transcripts.set(`${name} ${stream}`, JSON.stringify(await twoTurns(conversation, stream)));
    }
  assert.equal(new Set(transcripts.values()).size, 1, JSON.stringify([...transcripts], null, 1));
});

async function twoTurns(conversation: Conversation, stream: boolean): Promise<unknown> {
  const first = await conversation.say({ text: "[tools] Weather in Paris and Rome?" }, { tools: true, stream });
  const second = await conversation.say({ results: RESULTS }, { tools: true, stream });
  return [first, second].map(({ text, calls }) => ({ text, calls }));
}
