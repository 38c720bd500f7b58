import { type ServerResponse, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import fastify, { type FastifyInstance, type FastifyReply } from "fastify";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { CallId, Uuid } from "../../kernel/ids.ts";
import { Problem, asProblem } from "../../kernel/problem.ts";
import type { Log } from "../../telemetry/index.ts";
import { openaiEnvelope } from "../openai/envelope.ts";
import { problemHeaders } from "./problem.ts";

export interface HttpNeeds {
  readonly newId: <Id extends Uuid>() => Id;
  readonly log: Log;
}

/** Between two requests on one connection, ms: above common load balancers' 60 s, so that they close first. */
const KEEP_ALIVE_MS = 72_000;
const HEADERS_ARRIVAL_MS = 30_000;
/** A request that is slower is cut: the body reader has answered by then, and what comes is only thrown away. */
const REQUEST_ARRIVAL_MS = HEADERS_ARRIVAL_MS + BOUNDS.bodyArrivalMs;
const MAX_HEADER_BYTES = 32 * 1024;
const MAX_PARAM_LENGTH = 512;

/**
 * The HTTP server without its routes: request ids, and one answer for each thing that can go wrong before a route has it.
 * Surfaces mount themselves on it.
 */
export function createHttpServer({ newId, log }: HttpNeeds): FastifyInstance {
  const methods = new Map<string, Set<string>>();
  const app = fastify({
    logger: false,
    genReqId: () => newId<CallId>(),
    requestIdHeader: false,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    forceCloseConnections: "idle",
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: REQUEST_ARRIVAL_MS,
    http: { headersTimeout: HEADERS_ARRIVAL_MS, maxHeaderSize: MAX_HEADER_BYTES },
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    frameworkErrors: (_error, request, reply) => {
      reply.header("x-request-id", request.id);
      void answerProblem(reply, new Problem("invalid_request", { message: "The request's path is not valid." }));
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
  // With a callback: an async hook costs every call a promise.
  app.addHook("onRequest", (request, reply, done) => {
    reply.header("x-request-id", request.id);
    done();
  });
  app.setNotFoundHandler((request, reply) => {
    const allow = allowedMethods(methods, request.url.split("?", 1)[0] as string);
    return answerProblem(
      reply,
      allow.length === 0
        ? new Problem("unknown_route", { message: `Unknown route: ${request.method} ${request.url.split("?", 1)[0]}.` })
        : new Problem("method_not_allowed", { headers: { allow: allow.join(", ") } }),
    );
  });
  app.setErrorHandler((thrown, request, reply) => {
    const problem = fastifyProblem(thrown);
    if (problem.status >= 500) log.error({ cause: problem.cause, call: request.id, route: request.routeOptions.url }, "a request failed");
    return answerProblem(reply, problem);
  });
  return app;
}

/** Answers with a problem in OpenAI's envelope, which every path outside another dialect's surface speaks. */
function answerProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  return reply
    .code(problem.status)
    .headers(problemHeaders(problem))
    .type("application/json")
    .send(JSON.stringify(openaiEnvelope(problem)));
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
