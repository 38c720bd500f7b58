import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Frame } from "../../../../kernel/frame.ts";
import { Tally } from "../../../metering/passed.ts";
import { openaiWire } from "./wire.ts";

const HEAD = 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,';
const FIRST = `${HEAD}"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n`;
const LAST = `${HEAD}"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n`;
const delta = (text: string, padding: string | null) =>
  `${HEAD}"delta":{"content":${text}},"finish_reason":null}]${padding === null ? "" : `,"obfuscation":"${padding}"`}}\n\n`;

/** Strings as JSON writes them, some written another way, some that are none. */
const text = fc.oneof(
  { weight: 8, arbitrary: fc.string({ unit: "binary", maxLength: 12 }).map((value) => JSON.stringify(value)) },
  fc.constantFrom(
    '"\\u0022usage\\u0022:1"',
    '"\\\\"',
    '"a\\\\\\""',
    '""',
    '"\\q"',
    "null",
    '"a","role":"assistant"',
    '"},"finish_reason":"stop"}]}',
  ),
);
const line = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(text, fc.boolean()).map(([value, padded]) => delta(value, padded ? "x7Fq" : null)) },
  fc.constantFrom(": a comment\n\n", delta('"crlf"', null).replaceAll("\n", "\r\n"), delta('"b"', null).replace('"index":0', '"index":1')),
);

interface Decoded {
  readonly bytes: string;
  readonly events: readonly unknown[];
  readonly tally: Tally;
  readonly failed: boolean;
  readonly frames: readonly Frame[];
}

function decode(chunks: readonly Buffer[]): Decoded {
  const decoder = openaiWire.decoder();
  const frames: Frame[] = [];
  let failed = false;
  try {
    for (const chunk of chunks) if (decoder.push(chunk, frames) === "done") break;
  } catch {
    failed = true;
  }
  const tally = new Tally();
  for (const frame of frames) tally.add(frame, "openai");
  return {
    bytes: Buffer.concat(frames.map((frame) => frame.bytes)).toString("latin1"),
    events: frames.flatMap((frame) => frame.events()),
    tally,
    failed,
    frames,
  };
}

test("a run of plain deltas says, byte by byte, event by event and in what it measures, what its events say one by one", () => {
  let runs = 0;
  fc.assert(
    fc.property(fc.array(fc.array(line, { maxLength: 6 }), { maxLength: 8 }), (chunks) => {
      const stream = [FIRST, ...chunks.map((lines) => lines.join("")), LAST];
      const together = decode(stream.map((chunk) => Buffer.from(chunk)));
      // A chunk that ends inside an event is never read as a run.
      const apart = decode([...Buffer.from(stream.join(""))].map((byte) => Buffer.of(byte)));
      assert.ok(apart.frames.every((frame) => frame.deltas === undefined));
      runs += together.frames.filter((frame) => frame.deltas !== undefined).length;
      assert.deepEqual({ ...together, frames: [] }, { ...apart, frames: [] });
    }),
    { numRuns: 1000 },
  );
  assert.ok(runs > 300, `only ${runs} runs were met`);
});

test("of a stream of plain deltas, no event is cut, searched or measured alone once the first has been seen", () => {
  const deltas = Array.from({ length: 64 }, (_, index) => delta(`"word${index}"`, null));
  const { frames } = decode(
    [FIRST + deltas[0], deltas.slice(1, 32).join(""), deltas.slice(32).join(""), LAST].map((chunk) => Buffer.from(chunk)),
  );
  assert.equal(frames.length, 2 + 2 + 2);
  assert.deepEqual(frames[2]?.deltas, {
    events: 31,
    bytes: deltas
      .slice(1, 32)
      .join("")
      .match(/word\d+/g)
      ?.join("").length,
  });
});
