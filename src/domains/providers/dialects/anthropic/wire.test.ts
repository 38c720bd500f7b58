import { test } from "node:test";
import assert from "node:assert/strict";
import type Anthropic from "@anthropic-ai/sdk";
import fc from "fast-check";
import { BOUNDS } from "../../../../kernel/bounds.ts";
import type { ModelEvent } from "../../../../kernel/events.ts";
import type { Frame } from "../../../../kernel/frame.ts";
import {
  blockDelta,
  blockStart,
  blockStop,
  messageDelta,
  messageEvent,
  messageOf,
  messageStreamOf,
  MESSAGE_START,
  MESSAGE_STOP,
  MESSAGE_USAGE,
  PING,
  TEXT_BLOCK,
  THINKING_BLOCK,
  toolBlock,
} from "../../testing/scripted-messages.ts";
import { MalformedUpstream, UpstreamFault } from "../wire.ts";
import { parseUsage } from "./usage.ts";
import { anthropicWire } from "./wire.ts";

test("any split of an upstream's bytes gives the same frames, events and verdict", () => {
  const index = fc.nat({ max: 2 });
  const text = fc.string({ unit: "grapheme" });
  const event = fc.oneof(
    { weight: 4, arbitrary: fc.tuple(index, text).map(([at, said]) => blockDelta(at, { type: "text_delta", text: said })) },
    { weight: 2, arbitrary: fc.tuple(index, text).map(([at, said]) => blockDelta(at, { type: "input_json_delta", partial_json: said })) },
    { weight: 2, arbitrary: index.map((at) => blockStart(at, at === 1 ? toolBlock("t", "f") : TEXT_BLOCK)) },
    { weight: 1, arbitrary: index.map(blockStop) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        ": keep-alive\n\n",
        "\n",
        messageEvent(PING),
        messageDelta("end_turn"),
        messageEvent(MESSAGE_STOP),
        'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n',
        "data: garbage\n\n",
        'event: message_stop\ndata: {"type":"message_\ndata: stop"}\n\n',
        'data: {"type":"message_stop"}',
      ),
    },
  );
  const style = fc.constantFrom(
    (whole: string) => whole,
    (whole: string) => whole.replaceAll("\n", "\r\n"),
    (whole: string) => whole.replaceAll("\n", "\r"),
    (whole: string) => `\ufeff${whole}`,
    (whole: string) => whole.replaceAll("data: ", "data:").replaceAll("event: ", "event:"),
    (whole: string) => whole.replaceAll(/event: .*\n/g, ""),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 12 }), style, fc.array(fc.nat({ max: 3000 }), { maxLength: 16 }), (events, styled, cuts) => {
      const bytes = Buffer.from(styled(messageEvent(MESSAGE_START) + blockStart(0, TEXT_BLOCK) + events.join("")));
      const whole = decode([bytes]);
      assert.deepEqual(decode(split(bytes, cuts)), whole);
      assert.deepEqual(decode([...bytes].map((byte) => Buffer.of(byte))), whole);
    }),
    { numRuns: 800 },
  );
});

test("any bytes at all end in a verdict, never in a crash", () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc
      .constantFrom(
        "event: ",
        "data: ",
        "\n\n",
        "{",
        "}",
        '"type":',
        messageEvent(MESSAGE_START),
        blockStart(0, TEXT_BLOCK),
        blockDelta(0, { type: "text_delta", text: "\\" }),
      )
      .map((text) => new Uint8Array(Buffer.from(text))),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (parts) => {
      assert.match(decode(parts.map((part) => Buffer.from(part))).verdict, /^(done|more|malformed|fault)/);
    }),
    { numRuns: 2000 },
  );
});

test("blocks become events in order: thinking and its signature, hidden reasoning, text, tools counted apart, a stop sequence, the usage", () => {
  const bytes = [
    messageEvent(MESSAGE_START),
    blockStart(0, THINKING_BLOCK),
    blockDelta(0, { type: "thinking_delta", thinking: "hm" }),
    blockDelta(0, { type: "signature_delta", signature: "sig" }),
    blockStop(0),
    blockStart(1, { type: "redacted_thinking", data: "secret" }),
    blockStop(1),
    blockStart(2, TEXT_BLOCK),
    blockDelta(2, { type: "text_delta", text: "hé" }),
    blockStop(2),
    blockStart(3, toolBlock("t1", "f")),
    blockDelta(3, { type: "input_json_delta", partial_json: "" }),
    blockDelta(3, { type: "input_json_delta", partial_json: '{"a":' }),
    blockDelta(3, { type: "input_json_delta", partial_json: "1.0}" }),
    blockStop(3),
    blockStart(4, toolBlock("t2", "g")),
    blockStop(4),
    messageDelta("stop_sequence", { stop_sequence: "END" }),
    messageEvent(MESSAGE_STOP),
  ].join("");
  const { events, verdict } = decode([Buffer.from(bytes)]);
  assert.equal(verdict, "done");
  assert.deepEqual(
    events.filter((event) => event.type !== "usage"),
    [
      { type: "response-start", id: "msg_1", model: "upstream-model", createdSeconds: 0 },
      { type: "reasoning-delta", choice: 0, text: "hm" },
      { type: "reasoning-signature", choice: 0, signature: "sig" },
      { type: "reasoning-hidden", choice: 0, data: "secret" },
      { type: "text-delta", choice: 0, text: "hé" },
      { type: "tool-call-start", choice: 0, index: 0, id: "t1", name: "f" },
      { type: "tool-call-delta", choice: 0, index: 0, arguments: '{"a":' },
      { type: "tool-call-delta", choice: 0, index: 0, arguments: "1.0}" },
      { type: "tool-call-start", choice: 0, index: 1, id: "t2", name: "g" },
      { type: "tool-call-delta", choice: 0, index: 1, arguments: "{}" },
      { type: "choice-end", choice: 0, reason: "stop", stopSequence: "END" },
      { type: "response-end" },
    ] satisfies ModelEvent[],
  );
});

test("every stop reason of the SDK has its meaning, and a refusal says why", () => {
  const reasons: Record<Anthropic.StopReason, string> = {
    end_turn: "stop",
    stop_sequence: "stop",
    max_tokens: "length",
    model_context_window_exceeded: "length",
    pause_turn: "length",
    tool_use: "tool_calls",
    refusal: "content_filter",
  };
  for (const [reason, meaning] of Object.entries(reasons) as [Anthropic.StopReason, string][]) {
    const streamed = decode([Buffer.from(messageStreamOf(["a"], reason))]).events.find((event) => event.type === "choice-end");
    assert.equal(streamed?.reason, meaning, reason);
    const whole = anthropicWire.whole(Buffer.from(JSON.stringify(messageOf([], reason)))).events();
    assert.equal(whole.find((event) => event.type === "choice-end")?.reason, meaning, reason);
  }
  const refusal = messageDelta("refusal", { stop_details: { type: "refusal", category: "bio", explanation: "no" } });
  const { events } = decode([Buffer.from(messageEvent(MESSAGE_START) + refusal + messageEvent(MESSAGE_STOP))]);
  assert.deepEqual(
    events.find((event) => event.type === "refusal-delta"),
    { type: "refusal-delta", choice: 0, text: "no" },
  );
});

test("model text that looks like the protocol is data", () => {
  const text = '\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n"type":"error" \\" \\\\ \u2028 data: [DONE]';
  const { events, verdict, notable } = decode([Buffer.from(messageStreamOf([text, '"', "\\"]))]);
  assert.equal(verdict, "done");
  assert.equal(textOf(events), `${text}"\\`);
  assert.equal(notable.filter((each) => !each).length, 3);
});

test("after message_stop nothing is looked at", () => {
  const bytes = messageStreamOf(["a"]);
  const expected = decode([Buffer.from(bytes)]);
  for (const after of ["garbage\n\ndata: {}\n\n", "data: [DONE]\n\n", 'event: error\ndata: {"type":"error"}\n\n', messageStreamOf(["b"])])
    assert.deepEqual(decode([Buffer.from(bytes + after)]), expected, after);
});

test("a stream is whole only with a stop reason, every block closed, and message_stop", () => {
  const start = messageEvent(MESSAGE_START);
  const stop = messageEvent(MESSAGE_STOP);
  const block = blockStart(0, TEXT_BLOCK) + blockDelta(0, { type: "text_delta", text: "a" });
  const cases: readonly (readonly [string, RegExp])[] = [
    [start, /^more/],
    [start + block + blockStop(0), /^more/],
    [start + block + blockStop(0) + messageDelta("end_turn"), /^more/],
    [start + block + blockStop(0) + stop, /^malformed.*without a stop reason/],
    [start + block + messageDelta("end_turn") + stop, /^malformed.*inside a block/],
    [start + block + blockStop(0) + messageDelta("end_turn") + stop, /^done/],
    [start + block + blockStop(0) + messageDelta("end_turn") + stop.trimEnd(), /^done/],
    [start + messageDelta("end_turn") + stop, /^done/],
  ];
  for (const [bytes, verdict] of cases) assert.match(decode([Buffer.from(bytes)]).verdict, verdict, bytes);
});

test("what a client would put together wrongly is malformed", () => {
  const open = messageEvent(MESSAGE_START) + blockStart(0, TEXT_BLOCK);
  const delta = blockDelta(0, { type: "text_delta", text: "a" });
  const wrong: Record<string, string> = {
    "a delta before the message": delta,
    "a delta of a block that never began": open + blockDelta(1, { type: "text_delta", text: "a" }),
    "a delta after its block's end": open + blockStop(0) + delta,
    "a delta of another kind": open + blockDelta(0, { type: "input_json_delta", partial_json: "a" }),
    "a delta that says nothing": open + delta.replace('"text":"a"', '"kext":"a"'),
    "a block out of turn": open + blockStart(2, TEXT_BLOCK),
    "a second message": open + messageEvent(MESSAGE_START),
    "a second stop reason": open + blockStop(0) + messageDelta("end_turn") + messageDelta("max_tokens"),
    "a block after the stop reason": open + blockStop(0) + messageDelta("end_turn") + blockStart(1, TEXT_BLOCK),
    "a name that is not the type": open + delta.replace("event: content_block_delta", "event: ping"),
    "an end under another name":
      open + blockStop(0) + messageDelta("end_turn") + messageEvent(MESSAGE_STOP).replace("event: message_stop", "event: ping"),
    "a type under the name of a delta": `${open}event: content_block_delta\ndata: {"type":"message_stop"}\n\n`,
    "no type": `${open}event: ping\ndata: {}\n\n`,
    "no JSON": `${open}event: ping\ndata: {\n\n`,
    "[DONE]": `${open}data: [DONE]\n\n`,
  };
  for (const [what, bytes] of Object.entries(wrong)) assert.match(decode([Buffer.from(bytes)]).verdict, /^malformed/, what);
});

test("an error inside a stream is a fault with the status that its type goes with", () => {
  const forms: readonly (readonly [string, number | null])[] = [
    ['event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"boom"}}', 529],
    ['event: error\ndata: {"type":"error","error":{"type":"rate_limit_error","message":"boom"}}', 429],
    ['data: {"type":"error","error":{"type":"api_error","message":"boom"}}', 500],
    ['event: error\ndata: {"message":"boom"}', null],
    ['data: {"error":{"message":"boom"}}', null],
    ['data: {"error":"boom"}', null],
  ];
  const start = messageEvent(MESSAGE_START);
  for (const [form, status] of forms) {
    const fault = `fault {"status":${status},"message":"boom"`;
    assert.ok(decode([Buffer.from(`${form}\n\n`)]).verdict.startsWith(fault), form);
    const late = decode([Buffer.from(`${start}${form}\n\n`)]);
    assert.ok(late.verdict.startsWith(fault), form);
    assert.equal(late.bytes, start);
  }
  assert.deepEqual(anthropicWire.fault(Buffer.from('{"type":"error","error":{"type":"invalid_request_error","message":"m"}}')), {
    status: 400,
    message: "m",
    param: null,
    code: "invalid_request_error",
  });
  for (const anything of ["", "<html>", "[]", "null"]) assert.equal(anthropicWire.fault(Buffer.from(anything)).message, null);
});

test("an event without a name gets its type for one, because the official SDK skips what has none; pings before the message are not an answer", () => {
  const named = messageStreamOf(["a", "b"]);
  const unnamed = messageEvent(PING) + named.replaceAll(/event: .*\n/g, "");
  assert.deepEqual(decode([Buffer.from(unnamed)]).bytes, named);
  assert.deepEqual(decode([Buffer.from(messageEvent(PING))]).bytes, "");
});

test("events and deltas of types that are not known are forwarded, and say nothing", () => {
  const odd = 'event: novelty\ndata: {"type":"novelty","text":"a"}\n\n';
  const oddDelta =
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"novel_delta","text":"a"}}\n\n';
  const bytes =
    messageEvent(MESSAGE_START) +
    odd +
    blockStart(0, TEXT_BLOCK) +
    oddDelta +
    blockStop(0) +
    messageDelta("end_turn") +
    messageEvent(MESSAGE_STOP);
  const decoded = decode([Buffer.from(bytes)]);
  assert.equal(decoded.verdict, "done");
  assert.equal(decoded.bytes, bytes);
  assert.equal(textOf(decoded.events), "");
});

test("a block that nobody asked for is forwarded, and told to others as an error", () => {
  const block: Anthropic.ServerToolUseBlock = {
    type: "server_tool_use",
    id: "s",
    name: "web_search",
    input: {},
    caller: { type: "direct" },
  };
  const bytes = messageEvent(MESSAGE_START) + blockStart(0, block) + blockStop(0) + messageDelta("end_turn") + messageEvent(MESSAGE_STOP);
  const { events, verdict } = decode([Buffer.from(bytes)]);
  assert.equal(verdict, "done");
  assert.ok(events.some((event) => event.type === "error"));
  const whole = anthropicWire.whole(Buffer.from(JSON.stringify(messageOf([block], "end_turn"))));
  assert.ok(whole.events().some((event) => event.type === "error"));
});

test("usage accumulates over the stream: an event names what changed, the last figure counts", () => {
  const usage = {
    ...MESSAGE_USAGE,
    cache_creation_input_tokens: 30,
    cache_read_input_tokens: 7,
    cache_creation: { ephemeral_1h_input_tokens: 20, ephemeral_5m_input_tokens: 10 },
  };
  const start = messageEvent({ ...MESSAGE_START, message: { ...MESSAGE_START.message, usage } });
  const told = (changed: object): ModelEvent[] => {
    const delta = `event: message_delta\ndata: ${JSON.stringify({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage: changed })}\n\n`;
    return decode([Buffer.from(start + delta + messageEvent(MESSAGE_STOP))]).events.filter((event) => event.type === "usage");
  };
  const [first, last] = told({ output_tokens: 50, output_tokens_details: { thinking_tokens: 40 }, input_tokens: null });
  assert.ok(first?.type === "usage" && last?.type === "usage");
  assert.deepEqual([first.usage.tokens.input_uncached, first.usage.tokens.output], [9, 1]);
  const { input_uncached, cache_read, cache_write_5m, cache_write_1h, output, reasoning } = last.usage.tokens;
  assert.deepEqual([input_uncached, cache_read, cache_write_5m, cache_write_1h, output, reasoning], [9, 7, 10, 20, 10, 40]);
  for (const useless of [{ output_tokens: -1 }, {}, { output_tokens: null, input_tokens: 9 }]) assert.equal(told(useless).length, 1);
});

test("absurd figures count as absent, and classes never exceed their totals", () => {
  const good = { input_tokens: 1, output_tokens: 2 };
  for (const absurd of [
    null,
    5,
    {},
    { input_tokens: 1 },
    { ...good, output_tokens: -1 },
    { ...good, input_tokens: 1e12 },
    { ...good, output_tokens: 0.5 },
    { ...good, cache_read_input_tokens: -3 },
  ])
    assert.equal(parseUsage(absurd), null, JSON.stringify(absurd));
  const tokens = parseUsage({
    ...good,
    cache_creation_input_tokens: 5,
    cache_creation: { ephemeral_1h_input_tokens: 9, ephemeral_5m_input_tokens: 0 },
    output_tokens_details: { thinking_tokens: 99 },
  })?.tokens;
  assert.deepEqual([tokens?.cache_write_1h, tokens?.cache_write_5m, tokens?.output, tokens?.reasoning], [5, 0, 0, 2]);
});

test("a whole message gives the events of the same message streamed, its tool inputs digit for digit", () => {
  const input = '{"big":12345678901234567890,"text":"a\\"b","tiny":1e-999}';
  const body = JSON.stringify(messageOf([{ ...TEXT_BLOCK, text: "héllo" }, toolBlock("t", "f", "INPUT")], "tool_use")).replace(
    '"INPUT"',
    input,
  );
  const whole = anthropicWire.whole(Buffer.from(body));
  assert.deepEqual(whole.events(), [
    { type: "response-start", id: "msg_1", model: "upstream-model", createdSeconds: 0 },
    { type: "text-delta", choice: 0, text: "héllo" },
    { type: "tool-call-start", choice: 0, index: 0, id: "t", name: "f" },
    { type: "tool-call-delta", choice: 0, index: 0, arguments: input },
    { type: "choice-end", choice: 0, reason: "tool_calls", stopSequence: null },
    { type: "usage", usage: parseUsage({ input_tokens: 9, output_tokens: 1 }) },
    { type: "response-end" },
  ]);
  assert.equal(whole.events(), whole.events());
  assert.throws(
    () => anthropicWire.whole(Buffer.from('{"type":"error","error":{"type":"overloaded_error","message":"x"}}')),
    UpstreamFault,
  );
  for (const garbage of ["", "<html>", "[]", "null", "{}", '{"content":5}', JSON.stringify(messageOf([], null))])
    assert.throws(() => anthropicWire.whole(Buffer.from(garbage)), /malformed upstream/, garbage);
});

test("an event beyond the bound ends the stream as malformed", () => {
  const decoder = anthropicWire.decoder();
  const chunk = Buffer.alloc(1024 * 1024, 0x78);
  decoder.push(Buffer.from("data: "), []);
  assert.throws(() => {
    for (let sent = 0; sent <= BOUNDS.frameBytes; sent += chunk.length) decoder.push(chunk, []);
  }, /malformed upstream: an event is too large/);
});

interface Decoded {
  /** Whether each frame was notable. */
  readonly notable: readonly boolean[];
  readonly bytes: string;
  readonly events: readonly ModelEvent[];
  readonly verdict: string;
}

function decode(chunks: readonly Buffer[]): Decoded {
  const decoder = anthropicWire.decoder();
  const frames: Frame[] = [];
  let verdict = "more";
  try {
    for (const chunk of chunks) if (verdict === "more") verdict = decoder.push(Buffer.from(chunk), frames);
    if (verdict === "more") verdict = decoder.end(frames);
  } catch (thrown) {
    verdict = thrown instanceof UpstreamFault ? `fault ${JSON.stringify(thrown.fault)}` : `malformed ${String(thrown)}`;
    if (!(thrown instanceof UpstreamFault) && !String(thrown).includes("MalformedUpstream")) throw thrown;
  }
  return {
    notable: frames.map((frame) => frame.notable),
    bytes: Buffer.concat(frames.map((frame) => frame.bytes)).toString(),
    events: frames.flatMap((frame) => frame.events()),
    verdict,
  };
}

function textOf(events: readonly ModelEvent[]): string {
  return events.map((event) => (event.type === "text-delta" ? event.text : "")).join("");
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b);
  return [0, ...at].map((start, index) => bytes.subarray(start, at[index] ?? bytes.length));
}

test("an input nested deeper than can be written again is malformed, streamed and whole", () => {
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  const block = `{"type":"tool_use","id":"t","name":"f","input":{"a":${deep}}}`;
  const whole = `{"id":"m","model":"m","type":"message","content":[${block}],"stop_reason":"tool_use"}`;
  assert.throws(() => anthropicWire.whole(Buffer.from(whole)), MalformedUpstream);
  const stream = `${messageEvent(MESSAGE_START)}event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":${block}}\n\n`;
  assert.throws(() => anthropicWire.decoder().push(Buffer.from(stream), []), MalformedUpstream);
});
