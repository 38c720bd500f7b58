import assert from "node:assert/strict";
import { test } from "node:test";
import type { Dialect, Frame } from "../../src/kernel/frame.ts";
import { Problem } from "../../src/kernel/problem.ts";
import type { ModelRequest } from "../../src/kernel/request.ts";
import { NO_ATTRIBUTION } from "../../src/domains/providers/dialects/parsed-request.ts";
import { anthropicWire } from "../../src/domains/providers/dialects/anthropic/wire.ts";
import { PARSERS } from "../../src/domains/providers/index.ts";
import { openaiWire } from "../../src/domains/providers/dialects/openai/wire.ts";
import { MalformedUpstream, UpstreamFault } from "../../src/domains/providers/dialects/wire.ts";
import { type Reading, type Received, readAsAnthropic, readAsOpenAI } from "../../src/domains/providers/testing/official-clients.ts";
import { messages } from "../../src/surfaces/anthropic/messages.ts";
import { retell } from "../../src/surfaces/http/retell.ts";
import { chatCompletions } from "../../src/surfaces/openai/chat.ts";
import { IS_SOAK, scaled } from "../support/scale.ts";
import { type HostileStream, hostileStream, reference } from "./hostile-streams.ts";

/** In `npm run soak`, at its usual scale of 10, a million. */
const STREAMS = IS_SOAK ? scaled(100_000) : 2_500;
const FIRST_SEED = Number(process.env["ATRIUM_TEST_SEED"] ?? 1);
const DIALECTS: readonly Dialect[] = ["openai", "anthropic"];
const WIRES = { openai: openaiWire, anthropic: anthropicWire } as const;
const SURFACES = { openai: chatCompletions, anthropic: messages } as const;
const READERS: Readonly<Record<Dialect, (received: Received) => Promise<Reading>>> = { openai: readAsOpenAI, anthropic: readAsAnthropic };

test("whatever bytes an upstream sends, no official client is misled: a clean end only for a whole answer, and never a text that was not said", async (t) => {
  let whole = 0;
  let clean = 0;
  for (let seed = FIRST_SEED; seed < FIRST_SEED + STREAMS; seed++) {
    const stream = hostileStream(seed);
    const caller = DIALECTS[seed % 2] as Dialect;
    const expected = reference(stream.dialect, Buffer.concat(stream.pieces));
    const read = await READERS[caller](serve(stream, caller));
    const what = `ATRIUM_TEST_SEED=${seed}: ${stream.dialect} → ${caller}, ${stream.tricks.join(", ")}`;
    if (stream.meant !== null) {
      assert.deepEqual(expected, { whole: true, text: stream.meant }, `the judge is wrong: ${what}`);
      assert.ok(read.clean, `a whole answer was refused (${String(read.error)}): ${what}`);
    }
    if (read.clean) assert.deepEqual({ whole: true, text: read.text }, expected, what);
    else assert.ok(expected.text.startsWith(read.text), `${what}\nread ${JSON.stringify(read.text)} of ${JSON.stringify(expected.text)}`);
    whole += Number(expected.whole);
    clean += Number(read.clean);
  }
  assert.ok(whole > STREAMS / 10 && whole < STREAMS * 0.9, "too few streams were whole, or too few broken, for the test to mean anything");
  t.diagnostic(`${STREAMS} hostile streams, ${whole} whole by the reference, ${clean} taken for whole by an official client, 0 misled`);
});

test("a line of 10 MB reaches both clients whole, from either upstream", async () => {
  const text = "0123456789abcdef".repeat((10 * 1024 * 1024) / 16);
  for (const dialect of DIALECTS) {
    const events: Readonly<Record<Dialect, readonly string[]>> = {
      openai: [
        `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"${text}"},"finish_reason":null}]}\n\n`,
        'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
      ],
      anthropic: [
        'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}\n\n',
        'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
        `event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"${text}"}}\n\n`,
        'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
        'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}\n\n',
        'event: message_stop\ndata: {"type":"message_stop"}\n\n',
      ],
    };
    const bytes = Buffer.from(events[dialect].join(""));
    const pieces = Array.from({ length: Math.ceil(bytes.length / 65_536) }, (_, index) =>
      bytes.subarray(index * 65_536, (index + 1) * 65_536),
    );
    for (const caller of DIALECTS) {
      const read = await READERS[caller](serve({ dialect, pieces }, caller));
      assert.deepEqual([read.clean, read.text.length, read.text === text], [true, text.length, true], `${dialect} → ${caller}`);
    }
  }
});

/** What a caller gets of an upstream's bytes, decoded, and forwarded or retold: as surfaces/http does it, without its sockets. */
function serve({ dialect, pieces }: Pick<HostileStream, "dialect" | "pieces">, caller: Dialect): Received {
  const surface = SURFACES[caller];
  const render = surface.streamRenderer(REQUESTS[caller], dialect);
  const sent: Buffer[] = [];
  const send = (frames: readonly Frame[]): void => {
    for (const frame of frames) sent.push(dialect === caller ? frame.bytes : render(retell(frame.events(), 0)));
  };
  try {
    if (decode(dialect, pieces, send)) return { pieces: [Buffer.concat(sent)], broke: false };
    throw new MalformedUpstream("it ended early");
  } catch (thrown) {
    if (!(thrown instanceof MalformedUpstream || thrown instanceof UpstreamFault || thrown instanceof Problem)) throw thrown;
    return { pieces: [Buffer.concat([...sent, surface.renderError(new Problem("upstream_error"), "id")])], broke: true };
  }
}

/** Whether the stream was whole. @throws MalformedUpstream, UpstreamFault */
function decode(dialect: Dialect, pieces: readonly Buffer[], send: (frames: readonly Frame[]) => void): boolean {
  const decoder = WIRES[dialect].decoder();
  const step = (read: (frames: Frame[]) => "more" | "done"): "more" | "done" => {
    const frames: Frame[] = [];
    try {
      return read(frames);
    } finally {
      send(frames);
    }
  };
  for (const piece of pieces) if (step((frames) => decoder.push(Buffer.from(piece), frames)) === "done") return true;
  return step((frames) => decoder.end(frames)) === "done";
}

const MESSAGES = [{ role: "user", content: "hello" }];
const REQUESTS: Readonly<Record<Dialect, ModelRequest>> = {
  openai: PARSERS[chatCompletions.parser](Buffer.from(JSON.stringify({ model: "m", stream: true, messages: MESSAGES })), NO_ATTRIBUTION),
  anthropic: PARSERS[messages.parser](
    Buffer.from(JSON.stringify({ model: "m", stream: true, max_tokens: 10, messages: MESSAGES })),
    NO_ATTRIBUTION,
  ),
};
