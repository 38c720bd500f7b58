import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import { routeTable } from "../../scripts/route-table.ts";
import type { AnyRoute } from "../../src/surfaces/admin/index.ts";
import { PREFIXES } from "../../src/surfaces/admin/route-table.ts";
import { askInProcess } from "./in-process.ts";
import { ADMIN_KEY, startInstallation } from "./installation.ts";
import type { Received, Sent } from "./stage.ts";

const REQUESTS = Number(process.env["ATRIUM_TEST_FUZZ_RUNS"] ?? 100_000);
/** Sent at once, so that the database and the server work at the same time; a failing batch is shrunk to what fails. */
const BATCH = 50;

test("requests made up from the route table crash nothing: no answer is a 5xx, and every refusal has the envelope", async (t) => {
  const { server, url } = await startInstallation(t);
  const send = ({ method, path, headers, body }: MadeUp, key: string): Promise<Received> =>
    ["/admin", ...PREFIXES].some((prefix) => path.startsWith(prefix))
      ? askInProcess(server, { method, path, key, headers, ...(body === null ? {} : { raw: body }) })
      : overSocket(url, { method, path, key, headers, raw: body ?? "" });
  await putExamples((request) => send(request, ADMIN_KEY));
  const ownKey = await tenantOfItsOwn((request) => send(request, ADMIN_KEY));
  const statuses = new Map<number, number>();
  const ask = async (request: MadeUp): Promise<void> => {
    const { status, text } = await send(request, request.isOwn ? ownKey : ADMIN_KEY);
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
    assert.ok(status < 500, `${request.method} ${request.path} ${request.body ?? ""} answered ${status} ${text}`);
    if (status >= 400) assert.equal(typeof (JSON.parse(text) as { error: { message: string } }).error.message, "string");
  };
  const requests = fc.oneof(...[...routeTable().map(requestFor), ...modelRequests()].map((arbitrary) => ({ weight: 1, arbitrary })));
  const batches = fc.array(requests, { minLength: BATCH, maxLength: BATCH });
  await fc.assert(
    fc.asyncProperty(batches, async (batch) => {
      await Promise.all(batch.filter(({ isLarge }) => !isLarge).map(ask));
      for (const request of batch.filter(({ isLarge }) => isLarge)) await ask(request);
    }),
    { numRuns: Math.ceil(REQUESTS / BATCH) },
  );
  const count = (from: number, to: number) =>
    [...statuses].reduce((sum, [status, times]) => (status >= from && status < to ? sum + times : sum), 0);
  const byStatus = [...statuses].toSorted(([left], [right]) => left - right).map(([status, times]) => `${status} × ${times}`);
  t.diagnostic(`${count(0, 1000)} requests, answers by status: ${byStatus.join(", ")}`);
  assert.ok(count(0, 1000) >= REQUESTS);
  assert.ok(count(200, 300) > REQUESTS / 20, "hardly anything made up was accepted, so hardly anything behind the door was reached");
  assert.equal((await fetch(`${url}/livez`)).status, 200);
});

interface MadeUp {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string | null;
  /** Asked by a tenant, not by the platform. */
  readonly isOwn: boolean;
  /** An export: few may run at once. */
  readonly isLarge: boolean;
}

type Send = (request: MadeUp) => Promise<Received>;

/** Without anything there, nearly every answer would be a 404. */
async function putExamples(send: Send): Promise<void> {
  const puts = routeTable()
    .filter((route) => route.method === "PUT")
    .toSorted((left, right) => left.path.split("/").length - right.path.split("/").length);
  for (const route of puts) {
    const path = route.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => route.example.params[name] ?? "");
    const { status, text } = await send(plain("PUT", path, route.example.body ?? {}));
    assert.ok(status < 300, `the example of ${route.id} answered ${status} ${text}`);
  }
}

/** Calls write to their sockets themselves. */
async function overSocket(url: string, { method, path, key, headers, raw }: Sent): Promise<Received> {
  const answer = await fetch(url + path, { method, headers: { authorization: `Bearer ${key}`, ...headers }, body: raw ?? null });
  return { status: answer.status, headers: {}, text: await answer.text() };
}

/** A key of a tenant that no made-up request names, so that none ends it. Returns the key. */
async function tenantOfItsOwn(send: Send): Promise<string> {
  await send(plain("PUT", "/admin/v1/tenants/fuzz-own", {}));
  await send(plain("PUT", "/admin/v1/models/fuzz", { visibility: "all" }));
  await send(plain("PUT", "/admin/v1/models/fuzz/deployments/only", { provider: "simulated", upstream_model: "simulated", price: "free" }));
  const { status, text } = await send(plain("POST", "/admin/v1/tenants/fuzz-own/keys", { name: "fuzz", permissions: ["tenant_admin"] }));
  assert.equal(status, 201, text);
  return (JSON.parse(text) as { key: string }).key;
}

function plain(method: string, path: string, body: unknown): MadeUp {
  return { method, path, headers: { "content-type": "application/json" }, body: JSON.stringify(body), isOwn: false, isLarge: false };
}

/** Calls to models: a small body that is fine, with something changed or added. */
function modelRequests(): fc.Arbitrary<MadeUp>[] {
  const messages = [{ role: "user", content: "Hello" }];
  const fields = fc.constantFrom(
    "model",
    "messages",
    "max_tokens",
    "stream",
    "temperature",
    "stop",
    "tools",
    "metadata",
    "n",
    "system",
    "user",
  );
  const change = fc.tuple(
    fields,
    fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.constantFrom<unknown>(-1, 0, 1e300, "", "\0", [messages], messages)),
  );
  const body = fc
    .array(change, { maxLength: 2 })
    .map((changes) => JSON.stringify({ model: "fuzz", max_tokens: 5, messages, ...Object.fromEntries(changes) }));
  return ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"].map((path) =>
    body.map((text) => ({
      method: "POST",
      path,
      headers: { "content-type": "application/json" },
      body: text,
      isOwn: true,
      isLarge: false,
    })),
  );
}

function requestFor(route: AnyRoute): fc.Arbitrary<MadeUp> {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] as string);
  const isOwn = route.reach === "organization" || route.path.startsWith("/v1/");
  // What is deleted is of those that others make up; the examples stay, for the rest to build on.
  const params = fc.tuple(
    ...names.map((name, index) => {
      const isDeleted = route.method === "DELETE" && index === names.length - 1;
      return segment(isDeleted ? "b" : (route.example.params[name] ?? ""));
    }),
  );
  const query = fieldsOf(route.query, route.example.query ?? {});
  const body = route.method === "GET" ? fc.constant(null) : bodyFor(route);
  return fc.tuple(params, query, body, headersFor(route)).map(([values, asked, text, headers]) => {
    const filled = names.reduce((path, name, index) => path.replace(`{${name}}`, encodeURIComponent(values[index] ?? "")), route.path);
    const search = Object.entries(asked).map(
      ([name, value]) =>
        `${encodeURIComponent(name)}=${encodeURIComponent(typeof value === "string" ? value : (JSON.stringify(value) ?? ""))}`,
    );
    const path = search.length === 0 ? filled : `${filled}?${search.join("&")}`;
    return { method: route.method, path, headers, body: text, isOwn, isLarge: route.downloads !== undefined };
  });
}

/** Mostly a few plain names, so that later requests meet what earlier ones made; sometimes anything. */
function segment(example: string): fc.Arbitrary<string> {
  return fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(example, example, example, "a", "b") },
    {
      weight: 1,
      arbitrary: fc
        .string({ minLength: 1, maxLength: 60, unit: "binary" })
        .filter((text) => text.isWellFormed() && text !== "." && text !== ".."),
    },
    { weight: 1, arbitrary: fc.uuid({ version: 7 }) },
  );
}

function headersFor(route: AnyRoute): fc.Arbitrary<Record<string, string>> {
  const type = route.method === "GET" ? {} : { "content-type": "application/json" };
  const extra = fc.oneof(
    { weight: 4, arbitrary: fc.constant({}) },
    {
      weight: 1,
      arbitrary: fc.constantFrom<Record<string, string>>({ "if-match": '"1"' }, { "if-match": "x" }, { "idempotency-key": "one" }),
    },
  );
  return extra.map((more) => ({ ...type, ...more }));
}

function bodyFor(route: AnyRoute): fc.Arbitrary<string | null> {
  const schema = route.body ?? z.strictObject({});
  const fields = fieldsOf(schema, (route.example.body ?? {}) as Record<string, unknown>).map((value) => JSON.stringify(value));
  return fc.oneof(
    { weight: 6, arbitrary: fields },
    { weight: 1, arbitrary: fc.json() },
    { weight: 1, arbitrary: fc.string() },
    { weight: 1, arbitrary: fc.constant(null) },
  );
}

/** An object of the schema's fields, each absent, as in the example, of the field's own type, or of any. */
function fieldsOf(schema: z.ZodType, example: Readonly<Record<string, unknown>>): fc.Arbitrary<Record<string, unknown>> {
  const { properties = {} } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  const kept = fc.constant({ ...example });
  const names = Object.keys(properties);
  if (names.length === 0) return kept;
  const change = fc
    .constantFrom(...names)
    .chain((name) => fc.tuple(fc.constant(name), fc.oneof(valueOf(properties[name] as JsonSchema), fc.jsonValue({ maxDepth: 3 }))));
  return fc.tuple(kept, fc.array(change, { maxLength: 3 })).map(([base, changes]) => ({ ...base, ...Object.fromEntries(changes) }));
}

type JsonSchema = z.core.JSONSchema._JSONSchema;

/** A value of the schema's type, at the awkward ends of it: the schema's own finer rules may refuse it. */
function valueOf(schema: JsonSchema): fc.Arbitrary<unknown> {
  if (typeof schema === "boolean") return fc.jsonValue();
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map(valueOf));
  const [type] = [schema.type].flat();
  switch (type) {
    case "string":
      return fc.oneof(
        fc.string({ unit: "binary" }),
        fc.string(),
        fc.constantFrom(
          "",
          "\0",
          "a".repeat(300),
          "'; --",
          "1e400",
          "-1",
          "Europe/Paris",
          "9999-12-31T23:59:59Z",
          "+275760-09-13T00:00:00Z",
        ),
      );
    case "integer":
    case "number":
      return fc.oneof(fc.integer(), fc.double(), fc.constantFrom(0, -1, 2 ** 31, 2 ** 53, 8_640_000_000_000_001));
    case "boolean":
      return fc.boolean();
    case "array":
      return fc.array(Array.isArray(schema.items) || schema.items === undefined ? fc.jsonValue() : valueOf(schema.items), { maxLength: 4 });
    case "object":
      return fc.dictionary(fc.constantFrom(...Object.keys(schema.properties ?? { a: 0 })), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 4 });
    case "null":
    case undefined:
      return fc.jsonValue({ maxDepth: 2 });
    default:
      return type satisfies never;
  }
}
