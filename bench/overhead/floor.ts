import http from "node:http";
import { Pool } from "undici";

/**
 * The floor: node:http and undici's `dispatch`, moving bytes and nothing else. What Atrium costs is reported against it.
 * `node floor.ts UPSTREAM_ORIGIN` prints its port.
 */
const pool = new Pool(process.argv[2] as string, { connections: 256, pipelining: 1 });

const server = http.createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    pool.dispatch(
      { path: request.url as string, method: "POST", headers: { "content-type": "application/json" }, body: Buffer.concat(chunks) },
      {
        onRequestStart() {},
        onResponseStart(_controller, status, headers) {
          response.writeHead(status, { "content-type": headers["content-type"] as string });
        },
        onResponseData(_controller, chunk) {
          response.write(chunk);
        },
        onResponseEnd() {
          response.end();
        },
        onResponseError() {
          response.destroy();
        },
      },
    );
  });
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${JSON.stringify({ port: (server.address() as { port: number }).port })}\n`));
