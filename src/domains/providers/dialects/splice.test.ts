import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { JsonObject } from "../../../kernel/request.ts";
import { jsonObject, oddChoices, oddJson } from "../testing/odd-json.ts";
import { splice, topLevelMembers } from "./splice.ts";

test("an edit of the bytes means the same as an edit of the object, whatever the white space, escapes and keys", () => {
  const edit = fc.oneof(fc.constant(null), fc.jsonValue({ maxDepth: 2 }));
  const edits = fc.dictionary(fc.constantFrom("model", "max_tokens", "user", "stream_options", "__proto__", 'é"\\', ""), edit, {
    maxKeys: 5,
  });
  fc.assert(
    fc.property(jsonObject, oddChoices, edits, (object, choices, wanted) => {
      const bytes = Buffer.from(oddJson(object, choices));
      const spliced = splice(
        bytes,
        topLevelMembers(bytes),
        new Map(Object.entries(wanted).map(([key, value]) => [key, value === null ? null : JSON.stringify(value)])),
      );
      assert.deepEqual(entries(JSON.parse(spliced.toString()) as JsonObject), entries(edited(object, wanted)));
    }),
    { numRuns: 2000 },
  );
});

test("members that no edit names keep their bytes, and nothing to edit gives the same buffer", () => {
  const bytes = Buffer.from('{ "\\u006dodel" : "a",\n "messages":[ {"content" : "1.0e5 \\u00e9"} ] , "n": 1.50 }');
  const members = topLevelMembers(bytes);
  assert.deepEqual(
    members.map((member) => member.key),
    ["model", "messages", "n"],
  );
  assert.equal(splice(bytes, members, new Map()), bytes);
  assert.equal(splice(bytes, members, new Map([["absent", null]])), bytes);
  assert.equal(
    splice(bytes, members, new Map([["model", '"b"']])).toString(),
    '{"\\u006dodel" : "b","messages":[ {"content" : "1.0e5 \\u00e9"} ] , "n": 1.50}',
  );
});

function edited(object: JsonObject, edits: Readonly<Record<string, unknown>>): JsonObject {
  const result = new Map<string, unknown>(Object.entries(object));
  for (const [key, value] of Object.entries(edits))
    if (value === null) result.delete(key);
    else result.set(key, JSON.parse(JSON.stringify(value)));
  return Object.fromEntries(result) as JsonObject;
}

/** In order of key, because an added member may stand anywhere. */
function entries(object: JsonObject): [string, unknown][] {
  return Object.entries(object).toSorted(([a], [b]) => (a < b ? -1 : 1));
}
