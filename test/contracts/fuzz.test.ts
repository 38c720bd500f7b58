import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import { routeTable } from "../../scripts/route-table.ts";
import type { AnyRoute } from "../../src/surfaces/admin/index.ts";
import { ADMIN_KEY, startInstallation } from "./installation.ts";

const RUNS = Number(process.env["ATRIUM_TEST_FUZZ_RUNS"] ?? 400);

test("requests made up from the route table crash nothing: no answer is a 5xx, and every refusal has the envelope", async (t) => {
  const { url } = await startInstallation(t);
  const send = ({ method, path, headers, body }: MadeUp) =>
    fetch(url + path, { method, headers: { authorization: `Bearer ${ADMIN_KEY}`, ...headers }, body });
  const statuses = new Map<number, number>();
  await putExamples(send);
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...routeTable()).chain(requestFor), async (request) => {
      const { method, path, body } = request;
      const answer = await send(request);
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
      const text = await answer.text();
      if (method === "DELETE" && answer.status === 200) await putExamples(send);
      assert.ok(answer.status < 500, `${method} ${path} ${body ?? ""} answered ${answer.status} ${text}`);
      if (answer.status >= 400) assert.equal(typeof (JSON.parse(text) as { error: { code: string } }).error.code, "string");
    }),
    { numRuns: RUNS, interruptAfterTimeLimit: Math.max(15_000, RUNS * 40), markInterruptAsFailure: false },
  );
  t.diagnostic(
    `answers by status: ${[...statuses]
      .toSorted(([left], [right]) => left - right)
      .map(([status, count]) => `${status} × ${count}`)
      .join(", ")}`,
  );
  assert.ok(
    (statuses.get(200) ?? 0) + (statuses.get(201) ?? 0) > 0,
    "nothing made up was ever accepted, so nothing behind the door was reached",
  );
  assert.equal((await fetch(`${url}/livez`)).status, 200);
});

interface MadeUp {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string | null;
}

/** Without anything there, nearly every answer would be a 404. */
async function putExamples(send: (request: MadeUp) => Promise<Response>): Promise<void> {
  const puts = routeTable()
    .filter((route) => route.method === "PUT")
    .toSorted((left, right) => left.path.split("/").length - right.path.split("/").length);
  for (const route of puts) {
    const path = route.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => route.example.params[name] ?? "");
    const answer = await send({
      method: "PUT",
      path,
      headers: { "content-type": "application/json" },
      body: JSON.stringify(route.example.body ?? {}),
    });
    assert.ok(answer.status < 300, `the example of ${route.id} answered ${answer.status} ${await answer.text()}`);
  }
}

function requestFor(route: AnyRoute): fc.Arbitrary<MadeUp> {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] as string);
  const params = fc.tuple(...names.map((name) => segment(route.example.params[name] ?? "")));
  const query = fieldsOf(route.query, route.example.query ?? {});
  const body = route.method === "GET" ? fc.constant(null) : bodyFor(route);
  return fc.tuple(params, query, body, headersFor(route)).map(([values, asked, text, headers]) => {
    const filled = names.reduce((path, name, index) => path.replace(`{${name}}`, encodeURIComponent(values[index] ?? "")), route.path);
    const search = Object.entries(asked).map(
      ([name, value]) =>
        `${encodeURIComponent(name)}=${encodeURIComponent(typeof value === "string" ? value : (JSON.stringify(value) ?? ""))}`,
    );
    return { method: route.method, path: search.length === 0 ? filled : `${filled}?${search.join("&")}`, headers, body: text };
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
