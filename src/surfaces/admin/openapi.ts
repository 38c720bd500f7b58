import { z } from "zod";
import { PROBLEMS, type ProblemCode } from "../../kernel/problem.ts";
import { parameterNames, type AnyRoute } from "./route-table.ts";

type JsonSchema = Record<string, unknown>;

/** The OpenAPI 3.1 document of a route table: every route, with its permission, its example and the problems it can answer. */
export function openApiDocument(routes: readonly AnyRoute[]): JsonSchema {
  return {
    openapi: "3.1.0",
    info: {
      title: "Atrium administration",
      version: "1",
      description:
        "`{…}` in a path is a resource's name or its id. `PUT` is an idempotent upsert: omitted fields keep their value, `null` clears. Every error has one envelope.",
    },
    security: Object.keys(SECURITY_SCHEMES).map((scheme) => ({ [scheme]: [] })),
    tags: [...new Set(routes.map(tagOf))].toSorted().map((name) => ({ name })),
    paths: pathsOf(routes),
    components: { securitySchemes: SECURITY_SCHEMES, schemas: { Error: ERROR_SCHEMA }, responses: errorResponses() },
  };
}

const SECURITY_SCHEMES: JsonSchema = {
  bearer: { type: "http", scheme: "bearer", description: "An API key, or a platform key." },
  x_api_key: { type: "apiKey", in: "header", name: "x-api-key" },
  api_key: { type: "apiKey", in: "header", name: "api-key" },
};

const ERROR_SCHEMA: JsonSchema = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["message", "type", "param", "code"],
      properties: {
        message: { type: "string", description: "What to do next." },
        type: { type: "string" },
        param: { type: ["string", "null"], description: "The field at fault." },
        code: { type: ["string", "null"] },
      },
    },
  },
};

function pathsOf(routes: readonly AnyRoute[]): JsonSchema {
  const paths: Record<string, JsonSchema> = {};
  for (const route of routes) (paths[route.path] ??= {})[route.method.toLowerCase()] = operationOf(route);
  return Object.fromEntries(Object.entries(paths).toSorted(([left], [right]) => (left < right ? -1 : 1)));
}

function operationOf(route: AnyRoute): JsonSchema {
  return {
    operationId: route.id,
    tags: [tagOf(route)],
    summary: route.summary,
    description: `Needs the permission \`${route.permission}\`.${route.audit === null ? "" : ` Leaves the audit action \`${route.audit.action}\`.`}`,
    "x-permission": route.permission,
    "x-reach": route.reach,
    parameters: [...pathParameters(route), ...queryParameters(route), ...headerParameters(route)],
    ...(route.body === null ? {} : { requestBody: bodyOf(route.body, route.example.body) }),
    responses: {
      "200": { description: "Done.", content: contentOf(route) },
      ...Object.fromEntries(
        problemStatuses(route).map((status) => [String(status), { $ref: `#/components/responses/${responseName(status)}` }]),
      ),
    },
  };
}

function contentOf({ downloads, result }: AnyRoute): JsonSchema {
  const schema = jsonSchema(result, "output");
  return Object.fromEntries((downloads ?? ["application/json"]).map((type) => [type, { schema }]));
}

function bodyOf(schema: z.ZodType, example: unknown): JsonSchema {
  const media = { schema: jsonSchema(schema, "input"), ...(example === undefined ? {} : { example }) };
  return { required: true, content: { "application/json": media } };
}

function pathParameters(route: AnyRoute): JsonSchema[] {
  const fields = propertiesOf(route.params);
  return parameterNames(route.path).map((name) => ({
    name,
    in: "path",
    required: true,
    schema: fields[name] ?? {},
    example: route.example.params[name],
  }));
}

function queryParameters(route: AnyRoute): JsonSchema[] {
  return Object.entries(propertiesOf(route.query)).map(([name, schema]) => {
    const example = route.example.query?.[name];
    return { name, in: "query", required: false, schema, ...(example === undefined ? {} : { example }) };
  });
}

function headerParameters(route: AnyRoute): JsonSchema[] {
  if (route.method === "POST")
    return [
      {
        name: "Idempotency-Key",
        in: "header",
        required: false,
        schema: { type: "string", minLength: 1, maxLength: 255 },
        description: "The same key with the same request gives the same answer for 24 hours, without what is shown once.",
      },
    ];
  if (route.method === "PUT" || route.method === "DELETE")
    return [
      {
        name: "If-Match",
        in: "header",
        required: false,
        schema: { type: "string" },
        description: "The resource's `etag`; when it has changed since, the answer is 412.",
      },
    ];
  return [];
}

/** The statuses a route can refuse with, beside 500 and 503, which every route can. */
function problemStatuses(route: AnyRoute): number[] {
  const statuses = [400, 401, 403, 500, 503];
  if (parameterNames(route.path).length > 0) statuses.push(404);
  if (route.method === "POST" || route.method === "PUT") statuses.push(408, 409, 413, 415);
  if (route.method === "PUT" || route.method === "DELETE") statuses.push(412);
  return statuses.toSorted((left, right) => left - right);
}

/** The problems an administrative request can meet, by status. */
const ADMIN_PROBLEMS: readonly ProblemCode[] = [
  "invalid_request",
  "invalid_json",
  "duplicate_key",
  "invalid_api_key",
  "expired_api_key",
  "permission_denied",
  "tenant_suspended",
  "not_found",
  "request_timeout",
  "conflict",
  "idempotency_mismatch",
  "revision_mismatch",
  "request_too_large",
  "unsupported_media_type",
  "internal_error",
  "overloaded",
];

function errorResponses(): JsonSchema {
  const statuses = [...new Set(ADMIN_PROBLEMS.map((code) => PROBLEMS[code].status))].toSorted((left, right) => left - right);
  return Object.fromEntries(
    statuses.map((status) => [responseName(status), errorResponse(ADMIN_PROBLEMS.filter((code) => PROBLEMS[code].status === status))]),
  );
}

function errorResponse(codes: readonly ProblemCode[]): JsonSchema {
  const examples = codes.map((code) => [
    code,
    { value: { error: { message: PROBLEMS[code].message, type: PROBLEMS[code].type, param: null, code } } },
  ]);
  return {
    description: codes.map((code) => `\`${code}\``).join(", "),
    content: { "application/json": { schema: { $ref: "#/components/schemas/Error" }, examples: Object.fromEntries(examples) } },
  };
}

function responseName(status: number): string {
  return `Problem${status}`;
}

function tagOf(route: AnyRoute): string {
  return route.id.split(".", 1)[0] as string;
}

function propertiesOf(schema: z.ZodType): Record<string, JsonSchema> {
  return (jsonSchema(schema, "input")["properties"] ?? {}) as Record<string, JsonSchema>;
}

/** What JSON Schema cannot say (a transform's result, a custom check) is left open there and still checked here. */
function jsonSchema(schema: z.ZodType, io: "input" | "output"): JsonSchema {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return rest;
}
