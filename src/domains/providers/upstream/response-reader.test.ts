import { test } from "node:test";
import assert from "node:assert/strict";
import { createServer, type AddressInfo } from "node:net";
import fc from "fast-check";
import { Client } from "undici";
import { MalformedUpstream } from "../dialects/wire.ts";
import { ResponseReader } from "./response-reader.ts";

/** What a reader made of some bytes, and of a close after them. */
interface Outcome {
  readonly verdict: "whole" | "refused" | "cut" | "nothing";
  readonly status: number;
  readonly body: string;
  readonly mayReuse: boolean;
}

/** `cuts`: where the bytes are cut on their way. */
function outcomeOf(bytes: Buffer, cuts: readonly number[] = []): Outcome {
  let status = 0;
  let ends = 0;
  const body: Buffer[] = [];
  const reader = new ResponseReader({
    onHead: (head) => {
      assert.equal(status, 0, "one head");
      status = head.status;
    },
    onBody: (slice) => {
      assert.ok(slice.length > 0 && ends === 0, "a body is said in slices, before its end");
      body.push(slice);
    },
    onEnd: () => ends++,
  });
  const outcome = (verdict: Outcome["verdict"], mayReuse = false): Outcome => ({
    verdict,
    status,
    body: Buffer.concat(body).toString("latin1"),
    mayReuse,
  });
  let from = 0;
  try {
    for (const cut of [...cuts, bytes.length]) {
      if (cut > from) reader.push(bytes.subarray(from, cut));
      from = Math.max(from, cut);
    }
  } catch (thrown) {
    assert.ok(thrown instanceof MalformedUpstream);
    return outcome("refused");
  }
  const { mayReuse } = reader;
  const verdict = reader.close();
  assert.equal(ends, verdict === "whole" ? 1 : 0);
  return outcome(verdict, mayReuse);
}

const OK = "HTTP/1.1 200 OK\r\n";
const long = (length: number): string => "x".repeat(length);

type Case = readonly [name: string, bytes: string, verdict: Outcome["verdict"], body?: string, mayReuse?: boolean];

const WHOLE: readonly Case[] = [
  ["a length", `${OK}content-length: 5\r\n\r\nhello`, "whole", "hello", true],
  ["a length of nothing", `${OK}content-length: 0\r\n\r\n`, "whole", "", true],
  ["names in any case", `${OK}Content-LENGTH: 5\r\n\r\nhello`, "whole", "hello", true],
  ["no reason phrase", "HTTP/1.1 200\r\ncontent-length: 1\r\n\r\na", "whole", "a", true],
  ["an empty reason phrase", "HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\na", "whole", "a", true],
  ["high bytes in a value", `${OK}x: \xe9\xff\r\ncontent-length: 1\r\n\r\na`, "whole", "a", true],
  ["chunks", `${OK}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n`, "whole", "abc0123456789", true],
  ["chunked in capitals", `${OK}Transfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n`, "whole", "a", true],
  ["zeros before a size", `${OK}transfer-encoding: chunked\r\n\r\n0000001\r\na\r\n000\r\n\r\n`, "whole", "a", true],
  ["chunk extensions", `${OK}transfer-encoding: chunked\r\n\r\n1;a=b;c;d="e\\" ;f"\r\na\r\n0;z\r\n\r\n`, "whole", "a", true],
  ["trailers", `${OK}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\nz: w\r\n\r\n`, "whole", "a", true],
  ["the end of a close", `${OK}\r\nhello`, "whole", "hello", false],
  ["connection: close", `${OK}connection: close\r\ncontent-length: 1\r\n\r\na`, "whole", "a", false],
  [
    "close among other words, in two lines",
    `${OK}connection: foo\r\nconnection: bar , CLOSE\r\ncontent-length: 1\r\n\r\na`,
    "whole",
    "a",
    false,
  ],
  ["HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na", "whole", "a", false],
  ["HTTP/1.0 that keeps", "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 1\r\n\r\na", "whole", "a", true],
  ["HTTP/1.0 by close", "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\nabc", "whole", "abc", false],
  ["204", "HTTP/1.1 204 No Content\r\n\r\n", "whole", "", true],
  ["304 without a length", "HTTP/1.1 304 Not Modified\r\n\r\n", "whole", "", true],
  ["304 with the length of another", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", "whole", "", false],
  ["204 with a coding", "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "whole", "", false],
  ["early hints first", `HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n${OK}content-length: 1\r\n\r\na`, "whole", "a", true],
  ["bytes after a length", `${OK}content-length: 1\r\n\r\nab`, "whole", "a", false],
  ["a second response after the first", `${OK}content-length: 1\r\n\r\na${OK}content-length: 1\r\n\r\nb`, "whole", "a", false],
  ["bytes after the last chunk", `${OK}transfer-encoding: chunked\r\n\r\n0\r\n\r\n\r\n`, "whole", "", false],
];

/** Where the RFC asks for more than undici gives: 9110 15.2 (interim answers are skipped), 5.5 (blanks around any value are none of it). */
const MORE_LENIENT: readonly Case[] = [
  ["blanks around a length", `${OK}content-length: \t 5 \t\r\n\r\nhello`, "whole", "hello", true],
  ["100 Continue first", `HTTP/1.1 100 Continue\r\n\r\n${OK}content-length: 1\r\n\r\na`, "whole", "a", true],
];

const NOT_WHOLE: readonly Case[] = [
  ["nothing", "", "nothing"],
  ["half a status line", "HTTP/1.1 2", "cut"],
  ["half a head", `${OK}content-le`, "cut"],
  ["a short body", `${OK}content-length: 6\r\n\r\nhello`, "cut"],
  ["a chunk cut", `${OK}transfer-encoding: chunked\r\n\r\n5\r\nhel`, "cut"],
  ["chunks without the last", `${OK}transfer-encoding: chunked\r\n\r\n1\r\na\r\n`, "cut"],
  ["a last chunk without its end", `${OK}transfer-encoding: chunked\r\n\r\n0\r\n`, "cut"],
  ["interim answers only", "HTTP/1.1 103 Early Hints\r\n\r\n", "cut"],
  ["another protocol", "SSH-2.0-OpenSSH\r\n\r\n", "refused"],
  ["a blank line first", `\r\n${OK}content-length: 1\r\n\r\na`, "refused"],
  ["HTTP/2.0", "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["HTTP/1.2", "HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["lower case", "http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["two spaces", "HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["two digits", "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["four digits", "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["status 099", "HTTP/1.1 099 No\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["status 600", "HTTP/1.1 600 No\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["a control character in the reason", "HTTP/1.1 200 O\x01K\r\ncontent-length: 0\r\n\r\n", "refused"],
  ["line feeds alone", "HTTP/1.1 200 OK\ncontent-length: 0\n\n", "refused"],
  ["one line feed alone", `${OK}a: b\ncontent-length: 0\r\n\r\n`, "refused"],
  ["a carriage return alone", `${OK}a: b\rc\r\ncontent-length: 0\r\n\r\n`, "refused"],
  ["a folded line", `${OK}a: b\r\n c\r\ncontent-length: 0\r\n\r\n`, "refused"],
  ["a space before the colon", `${OK}content-length : 0\r\n\r\n`, "refused"],
  ["a space in a name", `${OK}content length: 0\r\n\r\n`, "refused"],
  ["no name", `${OK}: a\r\ncontent-length: 0\r\n\r\n`, "refused"],
  ["no colon", `${OK}content-length\r\n\r\n`, "refused"],
  ["NUL in a value", `${OK}a: \0\r\ncontent-length: 0\r\n\r\n`, "refused"],
  ["DEL in a value", `${OK}a: \x7f\r\ncontent-length: 0\r\n\r\n`, "refused"],
  ["a head too long", `${OK}a: ${long(17 * 1024)}\r\n\r\n`, "refused"],
  ["a head without end", `${OK}a: ${long(20 * 1024)}`, "refused"],
  ["too many lines", `${OK}${"a: b\r\n".repeat(200)}content-length: 0\r\n\r\n`, "refused"],
  ["interim answers without end", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(700), "refused"],
  ["two lengths that differ", `${OK}content-length: 1\r\ncontent-length: 2\r\n\r\nab`, "refused"],
  ["two lengths that agree", `${OK}content-length: 1\r\ncontent-length: 1\r\n\r\na`, "refused"],
  ["a list of lengths", `${OK}content-length: 1, 1\r\n\r\na`, "refused"],
  ["a signed length", `${OK}content-length: +1\r\n\r\na`, "refused"],
  ["a negative length", `${OK}content-length: -1\r\n\r\na`, "refused"],
  ["a hex length", `${OK}content-length: 0x1\r\n\r\na`, "refused"],
  ["an empty length", `${OK}content-length:\r\n\r\na`, "refused"],
  ["a length with a hard space", `${OK}content-length: 1\xa0\r\n\r\na`, "refused"],
  ["a length beyond exactness", `${OK}content-length: 99999999999999999999\r\n\r\na`, "refused"],
  ["a length and chunks", `${OK}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`, "refused"],
  ["chunks and a length", `${OK}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n`, "refused"],
  ["chunked twice", `${OK}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`, "refused"],
  ["chunked, chunked", `${OK}transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n`, "refused"],
  ["another coding", `${OK}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, "refused"],
  ["an unknown coding", `${OK}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n`, "refused"],
  ["chunks of HTTP/1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "refused"],
  ["two content types", `${OK}content-type: a/b\r\ncontent-type: c/d\r\ncontent-length: 0\r\n\r\n`, "refused"],
  ["an upgrade", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", "refused"],
  ["an interim answer with a body", `HTTP/1.1 103 Early Hints\r\ncontent-length: 3\r\n\r\nabc${OK}content-length: 0\r\n\r\n`, "refused"],
  ["an empty size", `${OK}transfer-encoding: chunked\r\n\r\n\r\n`, "refused"],
  ["a size that is no number", `${OK}transfer-encoding: chunked\r\n\r\nzz\r\n`, "refused"],
  ["a signed size", `${OK}transfer-encoding: chunked\r\n\r\n+1\r\na\r\n`, "refused"],
  ["0x before a size", `${OK}transfer-encoding: chunked\r\n\r\n0x1\r\na\r\n`, "refused"],
  ["a space after a size", `${OK}transfer-encoding: chunked\r\n\r\n1 \r\na\r\n`, "refused"],
  ["a space before a size", `${OK}transfer-encoding: chunked\r\n\r\n 1\r\na\r\n`, "refused"],
  ["a size beyond every body", `${OK}transfer-encoding: chunked\r\n\r\nfffffffffffffff\r\na`, "refused"],
  ["a size with too many zeros", `${OK}transfer-encoding: chunked\r\n\r\n${"0".repeat(17)}1\r\na\r\n`, "refused"],
  ["a line feed alone after a size", `${OK}transfer-encoding: chunked\r\n\r\n1\na\r\n`, "refused"],
  ["data longer than its size", `${OK}transfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n`, "refused"],
  ["a line feed alone after data", `${OK}transfer-encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n`, "refused"],
  ["a line feed in an extension", `${OK}transfer-encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n`, "refused"],
  ["an extension without a name", `${OK}transfer-encoding: chunked\r\n\r\n1;\r\na\r\n0\r\n\r\n`, "refused"],
  ["extensions without end", `${OK}transfer-encoding: chunked\r\n\r\n1;${long(17 * 1024)}\r\na\r\n0\r\n\r\n`, "refused"],
  ["extensions of many chunks", `${OK}transfer-encoding: chunked\r\n\r\n${`1;${long(500)}\r\na\r\n`.repeat(40)}0\r\n\r\n`, "refused"],
  ["a trailer that is none", `${OK}transfer-encoding: chunked\r\n\r\n0\r\nabc\r\n\r\n`, "refused"],
  ["a folded trailer", `${OK}transfer-encoding: chunked\r\n\r\n0\r\na: b\r\n c\r\n\r\n`, "refused"],
  ["a trailer that speaks of the length", `${OK}transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 5\r\n\r\n`, "refused"],
  ["a trailer too long", `${OK}transfer-encoding: chunked\r\n\r\n0\r\na: ${long(9 * 1024)}\r\n\r\n`, "refused"],
  ["a line feed alone in a trailer", `${OK}transfer-encoding: chunked\r\n\r\n0\r\na: b\n\r\n`, "refused"],
];

const CORPUS = [...WHOLE, ...MORE_LENIENT, ...NOT_WHOLE];

test("every way to frame a response is read as RFC 9112 says, and every malformation is refused", () => {
  for (const [name, text, verdict, body, mayReuse] of CORPUS) {
    const outcome = outcomeOf(Buffer.from(text, "latin1"));
    assert.equal(outcome.verdict, verdict, name);
    if (body !== undefined) assert.equal(outcome.body, body, name);
    assert.equal(outcome.mayReuse, mayReuse ?? false, name);
  }
});

test("every split point of every response of the corpus gives the same outcome", (t) => {
  let splits = 0;
  for (const [name, text] of CORPUS) {
    const bytes = Buffer.from(text, "latin1");
    const expected = outcomeOf(bytes);
    const step = Math.max(1, Math.floor(bytes.length / 400));
    for (let at = 1; at < bytes.length; at += step) {
      splits++;
      assert.deepEqual(comparable(outcomeOf(bytes, [at])), comparable(expected), `${name}, cut at ${at}`);
    }
    if (bytes.length < 2000)
      assert.deepEqual(comparable(outcomeOf(bytes, [...bytes.keys()])), comparable(expected), `${name}, byte by byte`);
  }
  t.diagnostic(`${CORPUS.length} responses, ${splits} splits`);
});

const piece = fc.constantFrom(
  OK,
  "HTTP/1.0 200 OK\r\n",
  "HTTP/1.1 204 No Content\r\n",
  "HTTP/1.1 103 Early Hints\r\n\r\n",
  "content-length: 5\r\n",
  "content-length: 0\r\n",
  "Content-Length: 05\r\n",
  "transfer-encoding: chunked\r\n",
  "transfer-encoding: identity\r\n",
  "connection: close\r\n",
  "connection: keep-alive\r\n",
  "x: y\r\n",
  " folded\r\n",
  "\r\n",
  "\n",
  "\r",
  "hello",
  "5\r\nhello\r\n",
  "5;a=b\r\nhello\r\n",
  "5 \r\nhello\r\n",
  "0\r\n\r\n",
  "0\r\n",
  "\0",
  ":",
  ";",
  " ",
);
/** Responses that are nearly right: pieces in a likely order, with noise. */
const nearly = fc
  .tuple(
    fc.oneof({ weight: 6, arbitrary: fc.constant(OK) }, { weight: 1, arbitrary: piece }),
    fc.array(piece, { maxLength: 5 }),
    fc.constantFrom("\r\n", "\r\n", "\r\n", ""),
    fc.array(piece, { maxLength: 5 }),
  )
  .map(([first, headers, end, body]) => Buffer.from(first + headers.join("") + end + body.join(""), "latin1"));

test("whatever an upstream sends, any split of it gives the same outcome", () => {
  fc.assert(
    fc.property(nearly, fc.array(fc.nat({ max: 200 }), { maxLength: 12 }), (bytes, at) => {
      const cuts = at.map((cut) => Math.min(cut, bytes.length)).sort((one, other) => one - other);
      assert.deepEqual(comparable(outcomeOf(bytes, cuts)), comparable(outcomeOf(bytes)));
    }),
    { numRuns: 5000 },
  );
});

test("a response that is accepted is one that undici accepts, with the same status and body", async (t) => {
  let served: Buffer = Buffer.alloc(0);
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.end(served));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const stricter: string[] = [];
  let agreed = 0;
  const compare = async (name: string, bytes: Buffer): Promise<void> => {
    served = bytes;
    const theirs = await undiciOutcome(origin);
    const ours = outcomeOf(bytes);
    if (ours.verdict === "whole")
      assert.deepEqual(
        theirs,
        { status: ours.status, body: ours.body },
        `${name}: ${JSON.stringify(bytes.toString("latin1").slice(0, 300))}`,
      );
    if ((ours.verdict === "whole") === (theirs !== null)) agreed++;
    else stricter.push(name);
  };
  for (const [name, text] of [...WHOLE, ...NOT_WHOLE]) await compare(name, Buffer.from(text, "latin1"));
  t.diagnostic(`of the corpus, ours is stricter on: ${stricter.join("; ")}`);
  await fc.assert(
    fc.asyncProperty(nearly, (bytes) => compare("generated", bytes)),
    { numRuns: 800 },
  );
  t.diagnostic(`agreed on ${agreed} responses; stricter on ${stricter.length}`);
});

/** Null where undici refuses. */
function undiciOutcome(origin: string): Promise<{ status: number; body: string } | null> {
  const client = new Client(origin, { pipelining: 1 });
  return new Promise<{ status: number; body: string } | null>((resolve) => {
    let status = 0;
    const body: Buffer[] = [];
    client.dispatch(
      { path: "/", method: "POST", headers: {}, body: Buffer.from("{}") },
      {
        onRequestStart: () => undefined,
        onResponseStart: (_controller, code) => {
          if (code >= 200) status = code;
        },
        onResponseData: (_controller, chunk) => void body.push(Buffer.from(chunk)),
        onResponseEnd: () => resolve({ status, body: Buffer.concat(body).toString("latin1") }),
        onResponseError: () => resolve(null),
      },
    );
  }).finally(() => client.destroy());
}

/** What a refused response had said before it was refused depends on how it was cut; nothing else may. */
function comparable(outcome: Outcome): Outcome {
  return outcome.verdict === "refused" ? { verdict: "refused", status: 0, body: "", mayReuse: false } : outcome;
}
