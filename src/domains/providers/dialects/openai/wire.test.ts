import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import type OpenAI from "openai";
import { BOUNDS } from "../../../../kernel/bounds.ts";
import type { ModelEvent } from "../../../../kernel/events.ts";
import type { Frame } from "../../../../kernel/frame.ts";
import type { Json } from "../../../../kernel/request.ts";
import { inputTokens, outputTokens } from "../../../../kernel/tokens.ts";
import { DONE, STOP_CHUNK, USAGE, chunkOf, completionOf, sse, streamOf, textChunk } from "../../testing/scripted-upstream.ts";
import { UpstreamFault } from "../wire.ts";
import { parseUsage } from "./usage.ts";
import { openaiWire } from "./wire.ts";

test("any split of an upstream's bytes gives the same frames, events and verdict", () => {
  const choice = fc.nat({ max: 2 });
  const chunk = fc.oneof(
    fc
      .tuple(choice, fc.string({ unit: "grapheme" }))
      .map(([index, content]) => chunkOf([{ index, delta: { content }, finish_reason: null }])),
    fc.tuple(choice, choice, fc.string()).map(([index, call, written]) =>
      chunkOf([
        {
          index,
          delta: { tool_calls: [{ index: call, id: `c${call}`, type: "function", function: { name: "f", arguments: written } }] },
          finish_reason: null,
        },
      ]),
    ),
    choice.map((index) => chunkOf([{ index, delta: {}, finish_reason: "stop" }])),
    fc.constant(chunkOf([], USAGE)),
  );
  const event = fc.oneof(
    { weight: 8, arbitrary: chunk.map(sse) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        ": keep-alive\n\n",
        "\n",
        DONE,
        'data: {"error":{"message":"x"}}\n\n',
        "event: error\ndata: {}\n\n",
        "data: garbage\n\n",
        "data: {\n\n",
        'data: {"choices":[\ndata: ]}\n\n',
        "data: [DONE]",
      ),
    },
  );
  const style = fc.constantFrom(
    (text: string) => text,
    (text: string) => text.replaceAll("\n", "\r\n"),
    (text: string) => text.replaceAll("\n", "\r"),
    (text: string) => `\ufeff${text}`,
    (text: string) => text.replaceAll("data: ", "data:"),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 12 }), style, fc.array(fc.nat({ max: 3000 }), { maxLength: 16 }), (events, styled, cuts) => {
      const bytes = Buffer.from(styled(events.join("")));
      const whole = decode([bytes]);
      assert.deepEqual(decode(split(bytes, cuts)), whole);
      assert.deepEqual(decode([...bytes].map((byte) => Buffer.of(byte))), whole);
    }),
    { numRuns: 800 },
  );
});

test("any bytes at all end in a verdict, never in a crash", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          fc.uint8Array({ maxLength: 40 }),
          fc.constantFrom("data: ", "\n\n", "{", "}", DONE, sse(STOP_CHUNK)).map((text) => new Uint8Array(Buffer.from(text))),
        ),
        { maxLength: 12 },
      ),
      (parts) => {
        assert.match(decode(parts.map((part) => Buffer.from(part))).verdict, /^(done|more|malformed|fault)/);
      },
    ),
    { numRuns: 2000 },
  );
});

test("model text that looks like the protocol is data", () => {
  const text = '\n\ndata: [DONE]\n\n{"error":{"message":"x"}} "usage": 1, "finish_reason":"stop" [DONE] \u2028';
  const { events, verdict } = decode([Buffer.from(sse(textChunk(text)) + sse(STOP_CHUNK) + DONE)]);
  assert.equal(verdict, "done");
  assert.deepEqual(
    events.filter((event) => event.type === "text-delta"),
    [{ type: "text-delta", choice: 0, text }],
  );
});

test("after [DONE] nothing is looked at", () => {
  assert.deepEqual(decode([Buffer.from(streamOf(["a"]) + "garbage\n\ndata: {}\n\n")]), decode([Buffer.from(streamOf(["a"]))]));
});

test("a stream is whole only with a finish reason and [DONE]", () => {
  const text = sse(textChunk("a"));
  assert.equal(decode([Buffer.from(text)]).verdict, "more");
  assert.equal(decode([Buffer.from(text + sse(STOP_CHUNK))]).verdict, "more");
  assert.match(decode([Buffer.from(text + DONE)]).verdict, /^malformed/);
  assert.equal(decode([Buffer.from(text + sse(STOP_CHUNK) + DONE)]).verdict, "done");
  assert.equal(decode([Buffer.from(text + sse(STOP_CHUNK) + "data: [DONE]")]).verdict, "done");
});

test("an error inside a stream is a fault, in each of the forms that upstreams use", () => {
  const forms = [
    'data: {"error":{"message":"boom","code":429}}',
    'data: {"error":"boom"}',
    'data: {"object":"error","message":"boom","code":400}',
    'event: error\ndata: {"message":"boom"}',
    'data: {"err\\u006fr":{"message":"boom"}}',
    `data: ${JSON.stringify({ ...STOP_CHUNK, choices: [{ index: 0, delta: {}, finish_reason: "error" }] })}`,
  ];
  for (const form of forms) {
    assert.match(decode([Buffer.from(`${form}\n\n`)]).verdict, /^fault/, form);
    const late = decode([Buffer.from(`${sse(textChunk("a"))}${form}\n\n`)]);
    assert.match(late.verdict, /^fault/, form);
    assert.equal(late.bytes, sse(textChunk("a")));
  }
});

test("a frame is notable whenever it holds more than deltas, however its keys are spelt", () => {
  const spellings = fc.constantFrom(
    '"finish_reason":"stop"',
    '"finish_reason" : "stop"',
    '"finish\\u005freason":"length"',
    '"\\u0066inish_reason":"stop"',
  );
  const usages = fc.constantFrom(
    "",
    ',"usage":null',
    ',"usage": {"prompt_tokens":1,"completion_tokens":2}',
    ',"us\\u0061ge":{"prompt_tokens":1,"completion_tokens":2}',
  );
  fc.assert(
    fc.property(spellings, usages, fc.boolean(), (finish, usage, finished) => {
      const payload = `{"choices":[{"index":0,"delta":{"content":"null"},${finished ? finish : '"finish_reason":null'}}]${usage}}`;
      const frames: Frame[] = [];
      openaiWire.decoder().push(Buffer.from(`${sse(textChunk("first"))}data: ${payload}\n\n`), frames);
      const frame = frames[1];
      assert.ok(frame);
      const plain = frame.events().every((event) => event.type === "text-delta");
      if (!plain) assert.equal(frame.notable, true, payload);
      if (plain && !payload.includes("\\u")) assert.equal(frame.notable, false, payload);
    }),
  );
});

test("an event beyond the bound ends the stream as malformed", () => {
  const decoder = openaiWire.decoder();
  const chunk = Buffer.alloc(1024 * 1024, 0x78);
  decoder.push(Buffer.from("data: "), []);
  assert.throws(() => {
    for (let sent = 0; sent <= BOUNDS.frameBytes; sent += chunk.length) decoder.push(chunk, []);
  }, /malformed upstream: an event is too large/);
});

test("a whole answer gives the same events as the same answer streamed", () => {
  const whole = openaiWire.whole(Buffer.from(JSON.stringify(completionOf("héllo"))));
  const events = whole.events();
  assert.deepEqual(
    events.map((event) => event.type),
    ["response-start", "text-delta", "choice-end", "usage", "response-end"],
  );
  const streamed = decode([Buffer.from(streamOf(["héllo"]))]).events;
  assert.deepEqual(events, streamed);
  assert.equal(whole.events(), events);
  assert.throws(() => openaiWire.whole(Buffer.from('{"error":{"message":"x","code":503}}')), UpstreamFault);
  for (const garbage of ["", "<html>", "[]", "null", "{}", '{"choices":5}'])
    assert.throws(() => openaiWire.whole(Buffer.from(garbage)), /malformed upstream/, garbage);
});

test("usage is split so that its classes sum to the provider's totals, and absurd figures count as absent", () => {
  const detail = fc.oneof(fc.integer({ min: -5, max: 2000 }), fc.constantFrom(null, "7", 1.5, 1e300));
  fc.assert(
    fc.property(
      fc.nat({ max: 1000 }),
      fc.nat({ max: 1000 }),
      fc.array(detail, { minLength: 6, maxLength: 6 }),
      (prompt, completion, [cached, written, audio, image, reasoning, spoken]) => {
        const usage = parseUsage(
          JSON.parse(
            JSON.stringify({
              prompt_tokens: prompt,
              completion_tokens: completion,
              total_tokens: prompt + completion,
              prompt_tokens_details: { cached_tokens: cached, cache_write_tokens: written, audio_tokens: audio, image_tokens: image },
              completion_tokens_details: { reasoning_tokens: reasoning, audio_tokens: spoken },
            }),
          ),
        );
        assert.ok(usage);
        assert.deepEqual([inputTokens(usage.tokens), outputTokens(usage.tokens)], [prompt, completion]);
        for (const count of Object.values(usage.tokens)) assert.ok(count >= 0);
      },
    ),
  );
  for (const absurd of [
    null,
    5,
    {},
    { prompt_tokens: 1 },
    { prompt_tokens: -1, completion_tokens: 1 },
    { prompt_tokens: 1e12, completion_tokens: 1 },
    { prompt_tokens: 0.5, completion_tokens: 1 },
  ])
    assert.equal(parseUsage(absurd), null);
  const split = parseUsage({
    prompt_tokens: 100,
    completion_tokens: 50,
    prompt_tokens_details: { cached_tokens: 60, audio_tokens: 10 },
    completion_tokens_details: { reasoning_tokens: 20 },
  } satisfies Partial<OpenAI.CompletionUsage>);
  assert.deepEqual(
    [split?.tokens.input_uncached, split?.tokens.cache_read, split?.tokens.audio_input, split?.tokens.output, split?.tokens.reasoning],
    [30, 60, 10, 30, 20],
  );
  const beside = parseUsage({
    prompt_tokens: 10,
    completion_tokens: 5,
    total_tokens: 35,
    completion_tokens_details: { reasoning_tokens: 20 },
  });
  assert.deepEqual([beside?.tokens.output, beside?.tokens.reasoning], [5, 20]);
});

interface Decoded {
  readonly bytes: string;
  readonly events: readonly ModelEvent[];
  readonly verdict: string;
}

function decode(chunks: readonly Buffer[]): Decoded {
  const decoder = openaiWire.decoder();
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
    bytes: Buffer.concat(frames.map((frame) => frame.bytes)).toString(),
    events: frames.flatMap((frame) => frame.events()),
    verdict,
  };
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b);
  return [0, ...at].map((start, index) => bytes.subarray(start, at[index] ?? bytes.length));
}

test("a call's arguments that come as an object are that object's text", () => {
  const call = { id: "t", type: "function", function: { name: "f", arguments: { city: "Paris" } } };
  const body = { choices: [{ index: 0, message: { content: null, tool_calls: [call] }, finish_reason: "tool_calls" }] };
  const [, , said] = openaiWire.whole(Buffer.from(JSON.stringify(body))).events();
  assert.deepEqual(said, { type: "tool-call-delta", choice: 0, index: 0, arguments: '{"city":"Paris"}' });
});

test("an answer in parts is its text and its reasoning; a part of another type is no clean end", () => {
  const eventsOf = (content: Json): readonly ModelEvent[] =>
    openaiWire.whole(Buffer.from(JSON.stringify({ choices: [{ index: 0, message: { content }, finish_reason: "stop" }] }))).events();
  const text = { type: "text", text: "Hi" };
  assert.deepEqual(eventsOf([{ type: "thinking", thinking: [{ type: "text", text: "Hm" }] }, text]).slice(1, 3), [
    { type: "reasoning-delta", choice: 0, text: "Hm" },
    { type: "text-delta", choice: 0, text: "Hi" },
  ]);
  assert.equal(eventsOf([text, { type: "hologram" }])[2]?.type, "error");
});
