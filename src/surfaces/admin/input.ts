import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { parseJson } from "../../kernel/json.ts";
import { Problem } from "../../kernel/problem.ts";
import { createBodyReader, joined } from "../http/body.ts";
import type { AnyRoute } from "./route-table.ts";

/** A request that passed its route's schemas. `bytes` is the body as it came (inflated): what "the same body" means. */
export interface Input {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
  readonly bytes: Buffer;
  readonly ifMatch: number | null;
  readonly idempotencyKey: string | null;
}

/** Reads and validates everything a route takes. Throws the 4xx problems of the catalogue, with `param` at the field at fault. */
export async function readInput(route: AnyRoute, request: FastifyRequest, tenant: TenantId): Promise<Input> {
  const params = checked(route.params, request.params, "The path");
  const query = checked(route.query, withoutBrackets(request.query), "The query");
  const ifMatch = parseIfMatch(request.headers["if-match"]);
  const idempotencyKey = route.method === "POST" ? parseIdempotencyKey(request.headers["idempotency-key"]) : null;
  const bytes = await readBody(request, tenant);
  const given = bytes.length === 0 ? {} : parseJson(bytes, BOUNDS.jsonDepth);
  return { params, query, body: checked(route.body ?? NO_FIELDS, given, "The body"), bytes, ifMatch, idempotencyKey };
}

const NO_FIELDS = z.strictObject({});

function checked(schema: z.ZodType, value: unknown, place: string): unknown {
  refuseUnstorable(value, []);
  const outcome = schema.safeParse(value);
  if (outcome.success) return outcome.data;
  const issue = outcome.error.issues[0] as z.core.$ZodIssue;
  const path = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0] ?? ""] : issue.path;
  if (path.length === 0) throw new Problem("invalid_request", { message: `${place}: ${issue.message}.` });
  const param = renderPath(path);
  throw new Problem("invalid_request", {
    param,
    message:
      issue.code === "unrecognized_keys" ? `${place} names '${param}', which this route does not take.` : `'${param}': ${issue.message}.`,
  });
}

/** PostgreSQL's text holds neither NUL nor half a surrogate pair, so no name or option with one could ever be stored. */
function refuseUnstorable(value: unknown, path: readonly PropertyKey[]): void {
  if (typeof value === "string" && (value.includes("\0") || !value.isWellFormed())) {
    throw new Problem("invalid_request", { param: renderPath(path), message: "Text may hold neither NUL nor unpaired surrogates." });
  }
  if (typeof value !== "object" || value === null) return;
  for (const [key, child] of Object.entries(value)) {
    refuseUnstorable(key, path);
    // Schemas drop this one in silence, and assigned to an object it would be no field but its prototype.
    if (key === "__proto__")
      throw new Problem("invalid_request", { param: renderPath([...path, key]), message: "No field can have this name." });
    refuseUnstorable(child, [...path, Array.isArray(value) ? Number(key) : key]);
  }
}

/** As OpenAI writes it: `messages[0].content`. */
function renderPath(path: readonly PropertyKey[]): string {
  return path.map((step, index) => (typeof step === "number" ? `[${step}]` : `${index === 0 ? "" : "."}${String(step)}`)).join("");
}

/** The official SDKs write a list as `group_by[]=a&group_by[]=b`: it is the list `group_by`, also with one member. */
function withoutBrackets(query: unknown): Record<string, unknown> {
  const plain: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(query as Record<string, unknown>)) {
    const name = key.endsWith("[]") ? key.slice(0, -2) : key;
    if (Object.hasOwn(plain, name))
      throw new Problem("invalid_request", { param: name, message: `The query names '${name}' in two ways; use one.` });
    Object.defineProperty(plain, name, { value: key === name || Array.isArray(value) ? value : [value], enumerable: true });
  }
  return plain;
}

/** `If-Match: "<revision>"`, as `etag` was sent. */
function parseIfMatch(header: string | undefined): number | null {
  if (header === undefined) return null;
  const revision = /^"(\d{1,9})"$/.exec(header)?.[1];
  if (revision === undefined)
    throw new Problem("invalid_request", { param: "if-match", message: "Send the 'etag' of the resource as 'If-Match', quotes included." });
  return Number(revision);
}

function parseIdempotencyKey(header: string | string[] | undefined): string | null {
  if (header === undefined) return null;
  if (typeof header !== "string" || !/^[\x21-\x7e]{1,255}$/.test(header)) {
    throw new Problem("invalid_request", {
      param: "idempotency-key",
      message: "An 'Idempotency-Key' is 1 to 255 visible ASCII characters.",
    });
  }
  return header;
}

/** Bounds of an administrative request: the platform's, with a smaller body. */
const readBounded = createBodyReader({ ...BOUNDS, bodyBytes: BOUNDS.adminBodyBytes });

async function readBody({ headers, raw }: FastifyRequest, tenant: TenantId): Promise<Buffer> {
  const length = headers["content-length"];
  const empty = headers["transfer-encoding"] === undefined && (length === undefined || Number(length) === 0);
  if (empty) return Buffer.alloc(0);
  if (headers["content-type"] === undefined) throw new Problem("unsupported_media_type");
  const body = await readBounded(raw, tenant);
  body.release();
  return joined(body);
}
