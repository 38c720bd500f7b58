import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { Problem } from "../../../kernel/problem.ts";
import type { JsonObject } from "../../../kernel/request.ts";
import { toGrammarSchema } from "./schema.ts";

test("the schemas that zod writes are taken: nullable, unions, enums, integers, tuples, recursion", () => {
  const node = z.object({
    name: z.string().max(20),
    count: z.int(),
    kind: z.enum(["a", "b"]),
    note: z.string().nullable(),
    either: z.union([z.number(), z.object({ fixed: z.literal("x") })]),
    get children() {
      return z.array(node).max(3);
    },
  });
  const reduced = toGrammarSchema(z.toJSONSchema(z.object({ root: node })) as JsonObject, "schema");
  assert.deepEqual(Object.keys(reduced["$defs"] as JsonObject).length, 1);
  assert.equal(reduced["type"], "object");
});

test("types, lists and references become what the grammar's compiler takes", () => {
  const cases: readonly (readonly [JsonObject, JsonObject])[] = [
    [
      { type: ["string", "null"], description: "d" },
      { oneOf: [{ type: "string" }, { type: "null" }], description: "d" },
    ],
    [{ const: 3 }, { enum: [3] }],
    [{ type: "string", enum: ["a", null, 1] }, { enum: ["a"] }],
    [
      { properties: { a: { type: "integer" } }, required: ["a"] },
      { type: "object", properties: { a: { type: "integer" } }, additionalProperties: false },
    ],
    [
      { type: "string", minLength: 1, maxLength: 2 },
      { type: "string", minLength: 1, maxLength: 2 },
    ],
    [
      { definitions: { t: { type: "null" } }, type: "array", items: { $ref: "#/definitions/t" } },
      { type: "array", items: { $ref: "#/$defs/t" }, $defs: { t: { type: "null" } } },
    ],
  ];
  for (const [schema, reduced] of cases) assert.deepEqual(toGrammarSchema(schema, "s"), reduced);
});

test("an assertion that a grammar cannot enforce is refused by its place, never dropped", () => {
  const cases: readonly (readonly [JsonObject, string])[] = [
    [{ type: "string", pattern: "^a" }, "s.pattern"],
    [{ type: "object", properties: { a: { type: "number", minimum: 3 } } }, "s.properties.a.minimum"],
    [{ type: "array", items: { type: "string" }, uniqueItems: true }, "s.uniqueItems"],
    [{ not: { type: "string" } }, "s.not"],
    [{ allOf: [{ type: "string" }] }, "s.allOf"],
    [{ type: "object", properties: {}, patternProperties: {} }, "s.patternProperties"],
    [{ type: "object", properties: {}, required: ["b"] }, "s.required"],
    [{ type: "string", format: "email" }, "s.format"],
    [{ type: "string", maxLength: 1_000_000 }, "s.maxLength"],
    [{ $ref: "#/$defs/none" }, "s.$ref"],
    [{ $ref: "https://example.com/schema" }, "s.$ref"],
    [{ enum: [{ a: 1 }] }, "s.enum"],
    [{ type: "object", anyOf: [{ type: "object" }] }, "s.type"],
  ];
  for (const [schema, param] of cases)
    assert.throws(
      () => toGrammarSchema(schema, "s"),
      (error) => error instanceof Problem && error.code === "unsupported_field" && error.param === param,
      `${JSON.stringify(schema)} at ${param}`,
    );
});

test("what is no schema is an invalid request", () => {
  for (const schema of [
    { type: "text" },
    { type: [] },
    { enum: [] },
    { type: "object", properties: [] },
    { type: "object", required: "a" },
    { type: "array", items: false },
    { type: "array", minItems: 2, maxItems: 1 },
    { type: "string", enum: [1] },
  ] as JsonObject[])
    assert.throws(
      () => toGrammarSchema(schema, "s"),
      (error) => error instanceof Problem && error.code === "invalid_request",
      JSON.stringify(schema),
    );
});

test("a schema of a million parts is refused, not compiled", () => {
  let schema: JsonObject = { type: "string" };
  for (let depth = 0; depth < 20; depth += 1) schema = { type: "object", properties: { a: schema, b: schema } };
  assert.throws(() => toGrammarSchema(schema, "s"), /more than 1000 parts/);
});
