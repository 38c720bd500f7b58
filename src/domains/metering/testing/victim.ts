import { systemClock } from "../../../kernel/clock.ts";
import type { AttemptId } from "../../../kernel/ids.ts";
import { systemRandom } from "../../../kernel/random.ts";
import { hold, sent } from "../hold.ts";
import { meter } from "../meter.ts";
import { Settler } from "../settle.ts";
import { Speeds } from "../speeds.ts";
import { factsOf, newId, PRICE, silent } from "./facts.ts";
import { deltaFrame, doneFrame, ScriptedStream, streamed, usageFrame } from "./scripted-stream.ts";
import { openTestJournal } from "./world.ts";

/**
 * The process that the kill test kills: `node victim.ts DIRECTORY` runs streams through hold, meter and settle on a real journal until it dies. What it
 * writes to its standard output is what a caller would have received, written before the next thing happens:
 * `held`, `sent`, `token <n in total>`, `end <tokens>`.
 */
const directory = process.argv[2];
if (directory === undefined) throw new Error("usage: victim.ts DIRECTORY");
const CONCURRENT_STREAMS = 8;

const journal = await openTestJournal(directory);
const clock = systemClock;
const speeds = new Speeds();
const settler = new Settler({ journal, clock, speeds, log: silent, settled() {} });
const tell = (attempt: AttemptId, what: string, tokens: number, inputTokens: number) =>
  process.stdout.write(`${attempt} ${what} ${tokens} ${inputTokens}\n`);

await Promise.all(Array.from({ length: CONCURRENT_STREAMS }, () => callForEver()));

async function callForEver(): Promise<never> {
  for (;;) await call(1 + randomBelow(600), 1 + randomBelow(90));
}

async function call(tokens: number, inputTokens: number): Promise<void> {
  const attempt = newId<AttemptId>();
  const facts = factsOf({ attempt, bound: { input: inputTokens * 4, output: tokens + randomBelow(400), certainty: "proof" } });
  const held = await hold(facts, PRICE, { journal, clock, speeds, voided: (lost) => settler.void(lost) });
  tell(attempt, "held", 0, inputTokens);
  sent(held, { journal, clock });
  const upstream = new ScriptedStream();
  const metered = await meter(streamed(upstream), held, { journal, clock, settler });
  if (metered.body.kind !== "stream") throw new Error("not a stream");
  let received = 0;
  metered.body.stream.pipe({
    frames: (frames) => {
      for (const frame of frames) if (!frame.notable) received++;
      tell(attempt, "token", received, inputTokens);
    },
    end: (ending) => tell(attempt, ending.kind === "complete" ? "end" : ending.kind, received, inputTokens),
  });
  for (let emitted = 0; emitted < tokens;) {
    await new Promise((resolve) => setImmediate(resolve));
    if (upstream.paused) continue;
    const batch = Array.from({ length: Math.min(1 + randomBelow(8), tokens - emitted) }, () => deltaFrame("word ", 1));
    emitted += batch.length;
    upstream.emit(batch);
  }
  upstream.emit([usageFrame(inputTokens, tokens), doneFrame()]);
  upstream.end({ kind: "complete" });
  await metered.settled;
}

function randomBelow(limit: number): number {
  return new DataView(systemRandom(new Uint8Array(4)).buffer).getUint32(0) % limit;
}
