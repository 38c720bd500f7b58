import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { SseSplitter, type SseEvent } from "./sse.ts";

const MAX_BYTES = 200;

test("any split of a stream's bytes gives the same events, canonical in form", () => {
  const line = fc.oneof(
    fc.string({ unit: "grapheme", maxLength: 12 }).map((text) => `data: ${text.replaceAll(/[\r\n]/g, "")}`),
    fc.constantFrom(
      "data:x",
      "data",
      "data:",
      "data:  two",
      ": comment",
      "event: error",
      "event:  spaced ",
      "event:bare",
      "id: 7",
      "retry: 1",
      "dat",
      "",
      "",
      "",
      "data: [DONE]",
      "\ufeffdata: bom",
      "x".repeat(150),
    ),
  );
  const stream = fc
    .array(fc.tuple(line, fc.constantFrom("\n", "\n", "\r\n", "\r")), { maxLength: 30 })
    .map((lines) => lines.map(([text, end]) => text + end).join(""));
  const bytes = fc.oneof(
    fc.tuple(fc.boolean(), stream).map(([bom, text]) => Buffer.from((bom ? "\ufeff" : "") + text)),
    fc
      .array(fc.constantFrom(0x0a, 0x0d, 0x3a, 0x20, 0x64, 0x61, 0x74, 0xef, 0xbb, 0xbf, 0xff), { maxLength: 60 })
      .map((list) => Buffer.from(list)),
  );
  fc.assert(
    fc.property(bytes, fc.array(fc.nat({ max: 400 }), { maxLength: 20 }), fc.boolean(), fc.boolean(), (whole, cuts, ends, named) => {
      const expected = read([whole], ends, named);
      assert.deepEqual(read(split(whole, cuts), ends, named), expected);
      const bytewise = [...whole].map((byte) => Buffer.of(byte));
      assert.deepEqual(read(bytewise, ends, named), expected);
      for (const { bytes: written, name } of expected.events) {
        assert.match(written, /^(event: [^\r\n]*\n)?(data: [^\r\n]*\n)+\n$/);
        assert.equal(written.startsWith("event: "), named && name !== null);
      }
    }),
    { numRuns: 3000 },
  );
});

test("events follow the HTML standard: line ends, BOM, comments, optional space, several data lines", () => {
  const payloads = (text: string): string[] => read([Buffer.from(text)], false).events.map((event) => event.payload);
  assert.deepEqual(payloads("data: a\n\ndata: b\r\n\r\ndata: c\r\rdata:d\n\n"), ["a", "b", "c", "d"]);
  assert.deepEqual(payloads("\ufeffdata: a\n\n\ufeffdata: b\n\n"), ["a"]);
  assert.deepEqual(payloads(": hello\n\nevent: x\ndata: 1\ndata: 2\nid: 3\n\ndata\n\n"), ["1\n2", ""]);
  assert.deepEqual(payloads("data: 1\r\ndata: 2\r\n\r\ndata: 3\rdata: 4\r\r"), ["1\n2", "3\n4"]);
  assert.deepEqual(payloads("data: unfinished\n"), []);
  assert.deepEqual(
    read([Buffer.from("data: unfinished")], true).events.map((event) => event.payload),
    ["unfinished"],
  );
});

test("an event in canonical form is a slice of what came, not a copy", () => {
  const chunk = Buffer.from("data: {}\n\ndata: {}\r\n\r\n");
  const events: SseEvent[] = [];
  new SseSplitter(MAX_BYTES).push(chunk, events);
  assert.deepEqual(
    events.map((event) => event.bytes.buffer === chunk.buffer && event.bytes.byteOffset === chunk.byteOffset),
    [true, false],
  );
  const named = Buffer.from(
    "event: a\ndata: 1\n\nevent:a\ndata: 1\n\nevent: a \ndata: 1\n\ndata: 1\nevent: a\n\nevent: b\nevent: a\ndata: 1\n\n",
  );
  const read: SseEvent[] = [];
  new SseSplitter(MAX_BYTES, true).push(named, read);
  assert.deepEqual(
    read.map((event) => [event.bytes.toString(), liesIn(named, event.bytes)]),
    [true, false, false, false, false].map((isSlice) => ["event: a\ndata: 1\n\n", isSlice]),
  );
});

test("an event beyond the bound is refused, and a 10 MB line costs a copy per byte, not per chunk", () => {
  assert.equal(read([Buffer.from(`data: ${"x".repeat(MAX_BYTES)}\n\n`)], false).within, false);
  const splitter = new SseSplitter(16 * 1024 * 1024);
  const events: SseEvent[] = [];
  const chunk = Buffer.alloc(1024, 0x78);
  splitter.push(Buffer.from("data: "), events);
  const before = process.cpuUsage();
  for (let sent = 0; sent < 10 * 1024; sent++) assert.equal(splitter.push(chunk, events), true);
  splitter.push(Buffer.from("\n\n"), events);
  const { user, system } = process.cpuUsage(before);
  assert.equal(events[0]?.payload.length, 10 * 1024 * 1024);
  // A copy per chunk would move 52 GB.
  assert.ok(user + system < 3_000_000, `${(user + system) / 1000} ms of CPU`);
});

interface Outcome {
  readonly within: boolean;
  readonly events: { readonly payload: string; readonly bytes: string; readonly name: string | null }[];
}

function read(chunks: readonly Buffer[], ends: boolean, named = false): Outcome {
  const splitter = new SseSplitter(MAX_BYTES, named);
  const events: SseEvent[] = [];
  const within = chunks.every((chunk) => splitter.push(Buffer.from(chunk), events));
  if (within && ends) splitter.end(events);
  return {
    within,
    events: events.map(({ payload, bytes, name }) => ({ payload: payload.toString("latin1"), bytes: bytes.toString("latin1"), name })),
  };
}

function liesIn(whole: Buffer, part: Buffer): boolean {
  return part.buffer === whole.buffer && part.byteOffset >= whole.byteOffset && part.byteOffset < whole.byteOffset + whole.length;
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b);
  return [0, ...at].map((start, index) => bytes.subarray(start, at[index] ?? bytes.length));
}
