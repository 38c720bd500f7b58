import { type Server, type ServerResponse, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Network } from "../../config.ts";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { CallId, Uuid } from "../../kernel/ids.ts";
import { Problem, asProblem } from "../../kernel/problem.ts";
import type { Log } from "../../telemetry/index.ts";
import { openaiEnvelope } from "../openai/envelope.ts";
import { createRemoteAddress } from "./addresses.ts";
import { withoutBasePath } from "./base-path.ts";
import { problemHeaders } from "./problem.ts";
import { createSecureServer, type SecureServer } from "./secure-server.ts";
import type { Certificate } from "./tls.ts";
import type { SurfaceWire } from "./wire.ts";

export interface HttpNeeds {
  readonly newId: <Id extends Uuid>() => Id;
  readonly log: Log;
  /** HTTPS with it, plain HTTP/1.1 without. */
  readonly certificate?: Certificate | null;
  /** Whose `x-forwarded-for` counts: nobody's unless named. */
  readonly trustedProxies?: readonly Network[];
  /** What every path begins with, such as `/ai`; empty for nothing. */
  readonly basePath?: string;
  /** Paths, with all below them, whose problems are answered as another dialect than OpenAI's has it. */
  readonly dialects?: readonly PathDialect[];
}

interface PathDialect {
  readonly path: string;
  readonly wire: Pick<SurfaceWire, "envelope" | "requestIdHeader">;
}

declare module "fastify" {
  interface FastifyRequest {
    /** Where the request came from, seen through the trusted proxies. `ip` is the connection's own peer. */
    remoteAddress: string;
  }
}

/** Between two requests on one connection, ms: above common load balancers' 60 s, so that they close first. */
const KEEP_ALIVE_MS = 72_000;
const HEADERS_ARRIVAL_MS = 30_000;
/** A request that is slower is cut: the body reader has answered by then, and what comes is only thrown away. */
const REQUEST_ARRIVAL_MS = HEADERS_ARRIVAL_MS + BOUNDS.bodyArrivalMs;
const MAX_HEADER_BYTES = 32 * 1024;
const MAX_PARAM_LENGTH = 512;
const HANDSHAKE_MS = 15_000;
/** A client that takes nothing of its answer for this long, and without a call of its own, is treated as gone. */
const STALL_MS = 120_000;
const HTTP1 = { headersTimeout: HEADERS_ARRIVAL_MS, maxHeaderSize: MAX_HEADER_BYTES } as const;
/** The same bounds where the server is not made by Fastify. */
const SECURE = {
  http1: { ...HTTP1, keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: REQUEST_ARRIVAL_MS },
  handshakeMs: HANDSHAKE_MS,
  maxHeaderBytes: MAX_HEADER_BYTES,
  keepAliveMs: KEEP_ALIVE_MS,
  requestArrivalMs: REQUEST_ARRIVAL_MS,
  stallMs: STALL_MS,
} as const;

/**
 * The HTTP server without its routes: request ids, and one answer for each thing that can go wrong before a route has it.
 * Surfaces mount themselves on it.
 */
export function createHttpServer({
  newId,
  log,
  certificate = null,
  trustedProxies = [],
  basePath = "",
  dialects = [],
}: HttpNeeds): FastifyInstance {
  const methods = new Map<string, Set<string>>();
  const remoteAddressOf = createRemoteAddress(trustedProxies);
  let secure: SecureServer | null = null;
  const app = fastify<Server>({
    rewriteUrl: ({ url = "" }) => withoutBasePath(basePath, url),
    ...(certificate === null
      ? {}
      : { serverFactory: (handler) => (secure = createSecureServer({ ...SECURE, certificate, log, handler })).server }),
    logger: false,
    genReqId: () => newId<CallId>(),
    requestIdHeader: false,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    forceCloseConnections: "idle",
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: REQUEST_ARRIVAL_MS,
    http: HTTP1,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    frameworkErrors: (_error, request, reply) => {
      reply.header("x-request-id", request.id);
      void answerProblem(request, reply, dialects, new Problem("invalid_request", { message: "The request's path is not valid." }));
    },
    clientErrorHandler(error, socket) {
      log.debug({ error }, "a connection did not speak HTTP");
      refuseConnection(socket, connectionProblem(error.code), newId<CallId>());
    },
  });
  app.addHook("onRoute", ({ url, method }) => {
    const known = methods.get(url) ?? new Set();
    for (const each of [method].flat()) known.add(each);
    methods.set(url, known);
  });
  app.decorateRequest("remoteAddress", "");
  // With a callback: an async hook costs every call a promise.
  app.addHook("onRequest", (request, reply, done) => {
    request.remoteAddress = remoteAddressOf(request.raw);
    reply.header("x-request-id", request.id);
    done();
  });
  app.addHook("preClose", async () => secure?.close());
  app.setNotFoundHandler((request, reply) => {
    const allow = allowedMethods(methods, request.url.split("?", 1)[0] as string);
    return answerProblem(
      request,
      reply,
      dialects,
      allow.length === 0
        ? new Problem("unknown_route", { message: `Unknown route: ${request.method} ${request.originalUrl.split("?", 1)[0]}.` })
        : new Problem("method_not_allowed", { headers: { allow: allow.join(", ") } }),
    );
  });
  app.setErrorHandler((thrown, request, reply) => {
    const problem = fastifyProblem(thrown);
    if (problem.status >= 500) log.error({ cause: problem.cause, call: request.id, route: request.routeOptions.url }, "a request failed");
    return answerProblem(request, reply, dialects, problem);
  });
  return app;
}

/** Answers with a problem in the envelope of the path's dialect; OpenAI's, where it has no other. */
function answerProblem(request: FastifyRequest, reply: FastifyReply, dialects: readonly PathDialect[], problem: Problem): FastifyReply {
  const asked = request.url.split("?", 1)[0] as string;
  const wire = dialects.find(({ path }) => asked === path || asked.startsWith(`${path}/`))?.wire;
  if (wire?.requestIdHeader !== undefined) reply.header(wire.requestIdHeader, request.id);
  return reply
    .code(problem.status)
    .headers(problemHeaders(problem))
    .type("application/json")
    .send(JSON.stringify(wire?.envelope(problem, request.id) ?? openaiEnvelope(problem)));
}

/** Fastify's own errors carry the status they mean; everything else that is no Problem is ours. */
function fastifyProblem(thrown: unknown): Problem {
  const status = thrown instanceof Problem ? undefined : (thrown as { statusCode?: number }).statusCode;
  if (status === 413) return new Problem("request_too_large", { cause: thrown });
  if (status === 415) return new Problem("unsupported_media_type", { cause: thrown });
  return status !== undefined && status < 500 ? new Problem("invalid_request", { cause: thrown }) : asProblem(thrown);
}

function allowedMethods(methods: ReadonlyMap<string, ReadonlySet<string>>, path: string): string[] {
  const allowed = new Set<string>();
  for (const [pattern, known] of methods) if (matches(pattern, path)) for (const method of known) allowed.add(method);
  return [...allowed].sort();
}

function matches(pattern: string, path: string): boolean {
  const wanted = pattern.split("/");
  const given = path.split("/");
  if (pattern.endsWith("*")) return given.length >= wanted.length && wanted.slice(0, -1).every((part, index) => part === given[index]);
  return (
    wanted.length === given.length && wanted.every((part, index) => (part.startsWith(":") ? given[index] !== "" : part === given[index]))
  );
}

function connectionProblem(code: string): Problem {
  if (code === "ERR_HTTP_REQUEST_TIMEOUT")
    return new Problem("request_timeout", { message: "The request did not arrive in time. Send it again." });
  if (code === "HPE_HEADER_OVERFLOW") return new Problem("headers_too_large");
  return new Problem("invalid_request", { message: "The request is not valid HTTP." });
}

/** Answers bytes that are no request. Where an answer to an earlier one is under way, words of ours would become part of it. */
function refuseConnection(socket: Socket & { readonly _httpMessage?: ServerResponse | null }, problem: Problem, id: CallId): void {
  // Node keeps the response that a socket is busy with there, and looks there for the same purpose.
  const current = socket._httpMessage ?? null;
  if (!socket.writable || (current !== null && (current.headersSent || current.req.complete))) {
    socket.destroy();
    return;
  }
  const body = JSON.stringify(openaiEnvelope(problem));
  const head = [
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`,
    "connection: close",
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${id}`,
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
}
