import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { z } from "zod";
import { Problem } from "../../../kernel/problem.ts";
import type { JsonObject } from "../../../kernel/request.ts";
import { instanceOf } from "./instance.ts";

const { schema } = fc.letrec<{ schema: JsonObject }>((tie) => ({
  schema: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.constantFrom<JsonObject>(
      { type: "string" },
      { type: "boolean" },
      { type: "null" },
      { enum: ["a", 2] },
      { const: "c" },
      { $ref: "#/$defs/leaf" },
      { type: ["integer", "null"] },
      { type: "string", format: "date-time" },
      { type: "string", format: "uuid" },
    ),
    fc
      .record({ least: fc.nat({ max: 12 }), more: fc.nat({ max: 5 }) })
      .map(({ least, more }): JsonObject => ({ type: "string", minLength: least, maxLength: least + more })),
    fc
      .record({ least: fc.integer({ min: -9, max: 9 }), more: fc.nat({ max: 9 }) })
      .map(({ least, more }): JsonObject => ({ type: "integer", minimum: least, maximum: least + more })),
    fc
      .record({ least: fc.integer({ min: -9, max: 9 }), step: fc.integer({ min: 2, max: 7 }) })
      .map(({ least, step }): JsonObject => ({ type: "integer", minimum: least, multipleOf: step })),
    fc
      .record({ above: fc.integer({ min: -9, max: 9 }), more: fc.integer({ min: 2, max: 9 }) })
      .map(({ above, more }): JsonObject => ({ type: "number", exclusiveMinimum: above, exclusiveMaximum: above + more })),
    fc
      .record({ items: tie("schema"), least: fc.nat({ max: 3 }) })
      .map(({ items, least }): JsonObject => ({ type: "array", items, minItems: least })),
    fc.array(tie("schema"), { minLength: 1, maxLength: 3 }).map((anyOf): JsonObject => ({ anyOf })),
    fc.dictionary(fc.constantFrom("a", "b", "c"), tie("schema")).map((properties): JsonObject => ({
      type: "object",
      properties,
      required: Object.keys(properties).slice(0, 2),
      additionalProperties: false,
    })),
  ),
}));

test("what is made for a schema conforms to it, by a checker that is not ours", () => {
  fc.assert(
    fc.property(schema, (part) => {
      const whole = JSON.parse(
        JSON.stringify({ type: "object", properties: { part }, required: ["part"], $defs: { leaf: { type: "integer", minimum: 5 } } }),
      ) as JsonObject;
      const made = instanceOf(whole, "x");
      const verdict = z.fromJSONSchema(whole as Parameters<typeof z.fromJSONSchema>[0]).safeParse(made);
      assert.ok(verdict.success, `${JSON.stringify(whole)} → ${JSON.stringify(made)}`);
    }),
    { numRuns: 500 },
  );
});

test("a recursive schema ends where it may, and one without a finite value is refused by name", () => {
  const tree: JsonObject = {
    type: "object",
    properties: { value: { type: "integer" }, next: { anyOf: [{ $ref: "#" }, { type: "null" }] } },
    required: ["value", "next"],
  };
  assert.equal(z.fromJSONSchema(tree as Parameters<typeof z.fromJSONSchema>[0]).safeParse(instanceOf(tree, "x")).success, true);
  const bushy: JsonObject = {
    type: "object",
    properties: Object.fromEntries(["a", "b", "c"].map((key) => [key, { anyOf: [{ $ref: "#" }, { type: "null" }] }])),
    required: ["a", "b", "c"],
  };
  assert.equal(z.fromJSONSchema(bushy as Parameters<typeof z.fromJSONSchema>[0]).safeParse(instanceOf(bushy, "x")).success, true);
  const refused = (wrong: JsonObject): void =>
    assert.throws(
      () => instanceOf(wrong, "here"),
      (thrown) => thrown instanceof Problem && thrown.code === "unsupported_field" && thrown.param === "here",
      JSON.stringify(wrong),
    );
  refused({ type: "object", properties: { next: { $ref: "#" } }, required: ["next"] });
  refused({ type: "string", pattern: "^a$" });
  refused({ $ref: "https://example.com/schema" });
  refused({ $ref: "#/$defs/absent" });
  refused({ type: "integer", minimum: 5, maximum: 4 });
  refused({ type: "array", minItems: 1e9 });
  refused({ type: "array", items: { $ref: "#" }, minItems: 3 });
});
