import { createServer, type Socket } from "node:net";

/**
 * The fastest upstream that Node makes easy: canned OpenAI answers over plain sockets. A request whose body holds
 * `"stream":true` gets 64 events in 8 writes, one per turn of the event loop; any other gets one JSON body.
 * Prints its port.
 */
const EVENTS = 64;
const EVENTS_PER_WRITE = 8;

const chunk = (choices: unknown[], extra: object = {}) =>
  `data: ${JSON.stringify({ id: "chatcmpl-bench", object: "chat.completion.chunk", created: 1_700_000_000, model: "bench-1", choices, ...extra })}\n\n`;

const usage = { prompt_tokens: 12, completion_tokens: EVENTS, total_tokens: 12 + EVENTS };
const events = [
  ...Array.from({ length: EVENTS - 2 }, (_, index) => chunk([{ index: 0, delta: { content: ` word${index}` }, finish_reason: null }])),
  chunk([{ index: 0, delta: {}, finish_reason: "stop" }]),
  `${chunk([], { usage })}data: [DONE]\n\n`,
];
const writes: string[] = [];
for (let at = 0; at < events.length; at += EVENTS_PER_WRITE) {
  const text = events.slice(at, at + EVENTS_PER_WRITE).join("");
  writes.push(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`);
}
const STREAM_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const BODY = JSON.stringify({
  id: "chatcmpl-bench",
  object: "chat.completion",
  created: 1_700_000_000,
  model: "bench-1",
  choices: [
    { index: 0, message: { role: "assistant", content: "A short answer of some ten words, as chat answers go." }, finish_reason: "stop" },
  ],
  usage: { prompt_tokens: 12, completion_tokens: 13, total_tokens: 25 },
});
const WHOLE = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${BODY.length}\r\n\r\n${BODY}`;

function answer(socket: Socket, body: string): void {
  if (!body.includes('"stream":true')) {
    socket.write(WHOLE);
    return;
  }
  let next = 0;
  const step = () => {
    if (socket.destroyed) return;
    socket.write((next === 0 ? STREAM_HEAD : "") + writes[next++] + (next === writes.length ? "0\r\n\r\n" : ""));
    if (next < writes.length) setImmediate(step);
  };
  step();
}

const server = createServer({ noDelay: true }, (socket) => {
  let pending = "";
  socket.on("error", () => socket.destroy());
  socket.on("data", (data) => {
    pending += data.toString("latin1");
    for (;;) {
      const headEnd = pending.indexOf("\r\n\r\n");
      if (headEnd === -1) return;
      const length = Number(/content-length: (\d+)/i.exec(pending.slice(0, headEnd))?.[1] ?? 0);
      if (pending.length < headEnd + 4 + length) return;
      const body = pending.slice(headEnd + 4, headEnd + 4 + length);
      pending = pending.slice(headEnd + 4 + length);
      answer(socket, body);
    }
  });
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${JSON.stringify({ port: (server.address() as { port: number }).port })}\n`));
