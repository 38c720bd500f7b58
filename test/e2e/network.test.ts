import assert from "node:assert/strict";
import { execFile, spawn, spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { copyFileSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import OpenAI from "openai";
import { Agent, fetch as fetchThrough } from "undici";
import {
  DONE,
  type Exchange,
  type ScriptedUpstream,
  SSE_HEADERS,
  scriptedUpstream,
  sse,
  STOP_CHUNK,
  textChunk,
} from "../../src/domains/providers/testing/scripted-upstream.ts";
import { type CertificateFiles, makeCertificate, noOpenssl } from "../../src/surfaces/http/testing/certificates.ts";
import {
  type AtriumProcess,
  BOOTSTRAP_KEY,
  createModel,
  createTenancy,
  removeData,
  startAtriumProcess,
  type Tenancy,
} from "../support/atrium.ts";

// The server as an operator puts it on a network: whole processes, `curl`, nginx and the official SDK.

const ROOT = path.join(import.meta.dirname, "..", "..");
const has = (command: string, flag: string): boolean => spawnSync(command, [flag]).status === 0;
const noCurl = noOpenssl || (/HTTP2/.test(String(spawnSync("curl", ["--version"]).stdout)) ? false : "there is no `curl` with HTTP/2");
const noNginx = noOpenssl || (has("nginx", "-v") ? false : "there is no `nginx`");
const MODEL = "slow";

const directory = mkdtempSync(path.join(tmpdir(), "atrium-network-"));
after(() => rmSync(directory, { recursive: true, force: true }));

/** An upstream whose streams go on until the test ends them. */
async function heldUpstream(): Promise<ScriptedUpstream> {
  return scriptedUpstream((exchange) => {
    exchange.head(200, SSE_HEADERS);
    exchange.write(sse(textChunk("first")));
  });
}

function finish(exchange: Exchange): void {
  exchange.write(sse(textChunk("last")) + sse(STOP_CHUNK));
  exchange.end(DONE);
}

interface CurlAnswer {
  readonly code: number;
  readonly version: string;
  readonly status: number;
  readonly body: string;
}

/** `curl`, with what it printed so far. */
function curl(args: readonly string[]): { readonly printed: () => string; readonly done: Promise<CurlAnswer> } {
  const MARK = "\n%{http_version} %{http_code}";
  const child = execFile("curl", ["-sN", "--max-time", "15", "-w", MARK, ...args]);
  let text = "";
  child.stdout?.on("data", (data: string) => (text += data));
  const done = new Promise<CurlAnswer>((resolve) =>
    child.once("close", (code) => {
      const [, body = "", version = "", status] = /^([^]*)\n(\S+) (\d+)$/.exec(text) ?? [];
      resolve({ code: code ?? -1, version, status: Number(status), body });
    }),
  );
  return { printed: () => text, done };
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let look = 0; !(await condition()); look++) {
    if (look === 500) assert.fail(`did not happen: ${what}`);
    await sleep(10);
  }
}

const chatBody = (stream: boolean) => JSON.stringify({ model: MODEL, stream, messages: [{ role: "user", content: "hi" }] });

describe("TLS, HTTP/2 and a management address", { skip: noCurl }, () => {
  let atrium: AtriumProcess;
  let upstream: ScriptedUpstream;
  let tenancy: Tenancy;
  let managementUrl: string;
  const live: CertificateFiles = { certFile: path.join(directory, "tls.crt"), keyFile: path.join(directory, "tls.key") };

  const renew = (from: CertificateFiles): void => {
    for (const file of ["keyFile", "certFile"] as const) {
      copyFileSync(from[file], `${live[file]}.new`);
      renameSync(`${live[file]}.new`, live[file]);
    }
  };
  /** Every certificate of these tests signs itself, so each is its own authority. */
  const bundle = path.join(directory, "bundle.crt");
  const post = (protocol: string, stream = true) =>
    curl([
      protocol,
      "--cacert",
      bundle,
      "-H",
      `authorization: Bearer ${tenancy.key}`,
      "--json",
      chatBody(stream),
      `${atrium.url}/v1/chat/completions`,
    ]);
  const get = (url: string, ...args: string[]) =>
    curl(["--cacert", bundle, "-H", `authorization: Bearer ${BOOTSTRAP_KEY}`, ...args, url]).done;

  before(async () => {
    const pairs = [makeCertificate(directory, "one"), makeCertificate(directory, "two")] as const;
    writeFileSync(bundle, pairs.map(({ certFile }) => readFileSync(certFile, "utf8")).join(""));
    renew(pairs[0]);
    upstream = await heldUpstream();
    atrium = await startAtriumProcess({
      environment: { TLS_CERT: live.certFile, TLS_KEY: live.keyFile, ATRIUM_MANAGEMENT_ADDRESS: "127.0.0.1:0", ATRIUM_DRAIN_SECONDS: "10" },
    });
    managementUrl = /Administration and metrics listen on (\S+)\n/.exec(atrium.output())?.[1] ?? "";
    const admin: AtriumProcess["admin"] = async (method, route, body) => {
      const answer = await get(`${managementUrl}/admin/v1/${route}`, "-X", method, "--json", JSON.stringify(body ?? {}));
      assert.ok(answer.status < 300, `${method} ${route}: ${answer.status} ${answer.body}`);
      return JSON.parse(answer.body) as unknown;
    };
    await createModel(
      { admin },
      { model: MODEL, provider: "openai_compatible", upstreamModel: "m", baseUrl: upstream.baseUrl, price: "free" },
    );
    tenancy = await createTenancy({ admin }, "net", MODEL);
  });

  after(async () => {
    await atrium.kill();
    await upstream.close();
    await removeData(atrium.dataDirectory);
  });

  test("`curl --http2` over a self-signed certificate streams event by event; HTTP/1.1 is on the same port", async () => {
    for (const [protocol, version] of [
      ["--http2", "2"],
      ["--http1.1", "1.1"],
    ] as const) {
      const asked = post(protocol);
      const exchange = await upstream.arrived(upstream.exchanges.length);
      await until(() => asked.printed().includes("first"), "the first event is printed while the upstream has not sent the last");
      finish(exchange);
      const answer = await asked.done;
      assert.deepEqual([answer.code, answer.version, answer.status], [0, version, 200]);
      assert.match(answer.body, /first[^]*last[^]*data: \[DONE\]\n\n$/);
    }
  });

  test("a client killed in the middle of an HTTP/2 stream ends its upstream call", async () => {
    const index = upstream.exchanges.length;
    const child = spawn(
      "curl",
      [
        "-sN",
        "--http2",
        "--cacert",
        bundle,
        "-H",
        `authorization: Bearer ${tenancy.key}`,
        "--json",
        chatBody(true),
        `${atrium.url}/v1/chat/completions`,
      ],
      { stdio: "ignore" },
    );
    const exchange = await upstream.arrived(index);
    await sleep(50);
    child.kill("SIGKILL");
    await Promise.race([exchange.closed, sleep(3_000).then(() => assert.fail("the upstream call goes on"))]);
  });

  test("administration and metrics are at the management address alone, the probes at both; the demo was made through it", async () => {
    assert.match(atrium.url, /^https:/);
    assert.match(managementUrl, /^https:/);
    for (const [route, onMain, onManagement] of [
      ["/admin/v1/tenants", false, true],
      ["/admin/v1/openapi.json", false, true],
      ["/metrics", false, true],
      ["/livez", true, true],
      ["/readyz", true, true],
      ["/v1/organization/costs?start_time=1", true, false],
      ["/v1/models", true, false],
    ] as const)
      for (const [url, expected] of [
        [atrium.url, onMain],
        [managementUrl, onManagement],
      ] as const) {
        const { status, body } = await get(`${url}${route}`);
        assert.equal(status !== 404, expected, `${url}${route}: ${status} ${body}`);
        assert.equal((await curl(["--cacert", bundle, `${url}${route}`]).done).status === 404, !expected, `${route}, without a key`);
      }
    assert.match(readFileSync(path.join(atrium.dataDirectory, "demo.json"), "utf8"), /"key":"atr_/);
  });

  test("a renewed certificate serves new connections, and no call in flight on an old one is dropped", async () => {
    const served = () =>
      new Promise<string>((resolve, reject) => {
        const socket = connectTls({ port: Number(new URL(atrium.url).port), ca: readFileSync(bundle) }, () => {
          resolve(new X509Certificate(socket.getPeerX509Certificate()?.raw ?? "").subject);
          socket.destroy();
        }).on("error", reject);
      });
    assert.equal(await served(), "CN=one");
    const begun = upstream.exchanges.length;
    const inFlight = Array.from({ length: 8 }, (_, index) => post(index % 2 === 0 ? "--http2" : "--http1.1"));
    await upstream.arrived(begun + inFlight.length - 1);
    renew({ certFile: path.join(directory, "two.crt"), keyFile: path.join(directory, "two.key") });
    let handshakes = 0;
    await until(async () => (handshakes++, (await served()) === "CN=two"), "the new certificate is served");
    for (const exchange of upstream.exchanges.slice(begun)) finish(exchange);
    const answers = await Promise.all(inFlight.map(({ done }) => done));
    assert.deepEqual(
      answers.map(({ code, status, body }) => `${code} ${status} ${body.endsWith(DONE)}`),
      inFlight.map(() => "0 200 true"),
    );
    assert.ok(handshakes > 1, "every handshake meanwhile succeeded");
  });

  test("SIGTERM: not ready, on both addresses; a stream in flight over HTTP/2 ends well; the process exits 0", async () => {
    const index = upstream.exchanges.length;
    const asked = post("--http2");
    const exchange = await upstream.arrived(index);
    await until(() => asked.printed().includes("first"), "under way");
    const stopped = atrium.stop();
    for (const url of [atrium.url, managementUrl])
      await until(async () => (await get(`${url}/readyz`)).status === 503, `${url} is not ready`);
    assert.equal((await post("--http2").done).status, 503, "a new call is refused");
    finish(exchange);
    const answer = await asked.done;
    assert.deepEqual([answer.code, answer.status], [0, 200]);
    assert.match(answer.body, /last[^]*data: \[DONE\]\n\n$/);
    assert.equal(await stopped, 0);
  });
});

test("TLS files that cannot be used stop the start with one sentence", { skip: noOpenssl }, async () => {
  const { certFile } = makeCertificate(directory, "lonely");
  const environment = { TLS_CERT: certFile, TLS_KEY: path.join(directory, "absent.key") };
  await assert.rejects(
    startAtriumProcess({ environment }),
    /^Error: exited with 1:\nTLS_KEY: \S+absent\.key cannot be read \(ENOENT\)\.\n$/,
  );
});

describe("behind nginx", { skip: noNginx || noCurl }, () => {
  let atrium: AtriumProcess;
  let upstream: ScriptedUpstream;
  let tenancy: Tenancy;
  let publicUrl: string;
  let stopNginx: () => Promise<void>;
  let ca: Buffer;

  before(async () => {
    const files = makeCertificate(directory, "nginx");
    ca = readFileSync(files.certFile);
    const port = await freePort();
    publicUrl = `https://127.0.0.1:${port}/ai`;
    upstream = await heldUpstream();
    atrium = await startAtriumProcess({
      environment: { BASE_PATH: "/ai", TRUSTED_PROXIES: "127.0.0.1", PUBLIC_URL: publicUrl, ATRIUM_LOG_LEVEL: "info" },
    });
    await createModel(atrium, {
      model: MODEL,
      provider: "openai_compatible",
      upstreamModel: "m",
      baseUrl: upstream.baseUrl,
      price: "free",
    });
    tenancy = await createTenancy(atrium, "proxied", MODEL);
    stopNginx = await startNginx(files, port, Number(new URL(atrium.url).port));
  });

  after(async () => {
    await stopNginx();
    await atrium.stop();
    await upstream.close();
    await removeData(atrium.dataDirectory);
  });

  test("the official SDK works through TLS, HTTP/2 termination and a base path, and streams unbuffered", async () => {
    assert.match(atrium.url, /\/ai$/);
    const dispatcher = new Agent({ connect: { ca } });
    const client = new OpenAI({
      baseURL: `${publicUrl}/v1`,
      apiKey: tenancy.key,
      maxRetries: 0,
      fetch: (url, init) => fetchThrough(url as string, { ...(init as object), dispatcher }) as unknown as Promise<Response>,
    });
    const index = upstream.exchanges.length;
    const stream = await client.chat.completions.create({ model: MODEL, stream: true, messages: [{ role: "user", content: "hi" }] });
    let text = "";
    for await (const chunk of stream) {
      const content = chunk.choices[0]?.delta.content ?? "";
      // What is held back by a buffer could not be here before the upstream has sent the rest.
      if (content === "first") finish(await upstream.arrived(index));
      text += content;
    }
    assert.equal(text, "firstlast");
    assert.ok((await client.models.list()).data.some(({ id }) => id === MODEL));
    await assert.rejects(client.chat.completions.create({ model: "absent", messages: [{ role: "user", content: "hi" }] }), { status: 404 });
    await dispatcher.close();
  });

  test("the caller's address is what the trusted proxy saw, not what the caller wrote; without the proxy nothing written counts", async () => {
    const ask = async (url: string, interfaceAddress: string, forwarded: string, id: string) => {
      await curl([
        "--cacert",
        path.join(directory, "nginx.crt"),
        "--interface",
        interfaceAddress,
        "-H",
        `x-forwarded-for: ${forwarded}`,
        "-H",
        `x-request-id: ${id}`,
        "-H",
        "authorization: Bearer nobody",
        "--json",
        chatBody(false),
        `${url}/v1/chat/completions`,
      ]).done;
      let line: string | undefined;
      await until(
        () =>
          (line = atrium
            .output()
            .split("\n")
            .find((each) => each.includes(`"callerRequestId":"${id}"`))) !== undefined,
        `the call ${id} is logged`,
      );
      return (JSON.parse(line ?? "{}") as { remoteAddress: string }).remoteAddress;
    };
    assert.equal(await ask(publicUrl, "127.0.0.2", "6.6.6.6", "spoofed"), "127.0.0.2");
    assert.equal(await ask(publicUrl, "127.0.0.2", "garbage", "garbled"), "127.0.0.2");
    assert.equal(await ask(atrium.url, "127.0.0.3", "6.6.6.6", "direct"), "127.0.0.3");
  });

  test("nothing is outside the base path but the probes; the OpenAPI document names the public URL", async (t) => {
    const origin = new URL(atrium.url).origin;
    const status = async (url: string) => (await curl([url]).done).status;
    assert.equal(await status(`${origin}/livez`), 200);
    assert.equal(await status(`${origin}/ai/readyz`), 200);
    for (const route of ["/v1/models", "/admin/v1/tenants", "/metrics"]) assert.equal(await status(`${origin}${route}`), 404, route);
    const document = (await atrium.admin("GET", "openapi.json")) as { servers: unknown };
    assert.deepEqual(document.servers, [{ url: publicUrl }]);
    t.diagnostic(`nginx in front: ${publicUrl}`);
  });
});

/** The example of `deploy/`, with this machine's ports and files in the place of its own. Resolves to what ends it. */
async function startNginx(files: CertificateFiles, port: number, atriumPort: number): Promise<() => Promise<void>> {
  const example = readFileSync(path.join(ROOT, "deploy", "nginx", "atrium.conf"), "utf8");
  const replacements = [
    ["127.0.0.1:4000", `127.0.0.1:${atriumPort}`],
    ["listen 443", `listen 127.0.0.1:${port}`],
    ["/etc/nginx/tls/tls.crt", files.certFile],
    ["/etc/nginx/tls/tls.key", files.keyFile],
  ] as const;
  for (const [written] of replacements) assert.ok(example.includes(written), `the example has no ${written}`);
  const server = replacements.reduce((text, [written, here]) => text.replace(written, here), example);
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (each) => `${each}_temp_path ${path.join(directory, `nginx-${each}`)};`,
  );
  const file = path.join(directory, "nginx.conf");
  const user = process.getuid?.() === 0 ? "user root;" : "";
  writeFileSync(
    file,
    `daemon off; ${user} worker_processes 1; pid ${path.join(directory, "nginx.pid")}; error_log stderr warn;\nevents {}\nhttp {\naccess_log off;\n${paths.join("\n")}\n${server}\n}\n`,
  );
  const nginx = spawn("nginx", ["-c", file, "-p", directory, "-e", "stderr"], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  nginx.stderr.on("data", (data: Buffer) => (said += data.toString("utf8")));
  const exited = new Promise<void>((resolve) => nginx.once("exit", () => resolve()));
  const reachable = () =>
    new Promise<boolean>((resolve) => {
      const socket = connectTls({ port, host: "127.0.0.1", ca: readFileSync(files.certFile) }, () => resolve(socket.destroy() !== null));
      socket.on("error", () => resolve(false));
    });
  await until(async () => nginx.exitCode !== null || (await reachable()), "nginx listens");
  assert.equal(nginx.exitCode, null, `nginx did not start: ${said}`);
  return async () => {
    nginx.kill("SIGTERM");
    await exited;
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
