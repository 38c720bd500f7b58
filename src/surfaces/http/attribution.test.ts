import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Problem } from "../../kernel/problem.ts";
import { attributionOf } from "./attribution.ts";

function refused(headers: Record<string, string>, param: string): void {
  assert.throws(
    () => attributionOf(headers),
    (thrown) => thrown instanceof Problem && thrown.code === "invalid_request" && thrown.param === param,
    JSON.stringify(headers),
  );
}

test("no header says nothing", () => {
  assert.deepEqual(attributionOf({}), { feature: null, user: null, session: null, tags: {} });
});

test("our own headers beat another gateway's, whose users keep their code", () => {
  assert.deepEqual(attributionOf({ "x-portkey-metadata": '{"_user":"p","team":"search","run":42,"dry":true}', "x-atrium-user": "ours" }), {
    feature: null,
    user: "ours",
    session: null,
    tags: { team: "search", run: "42", dry: "true" },
  });
  assert.deepEqual(attributionOf({ "cf-aig-metadata": '{"feature":"chat","user":"c"}' }), {
    feature: "chat",
    user: "c",
    session: null,
    tags: {},
  });
  assert.deepEqual(attributionOf({ "helicone-property-session": "s", "helicone-property-team": "t" }), {
    feature: null,
    user: null,
    session: "s",
    tags: { team: "t" },
  });
  assert.deepEqual(attributionOf({ "x-portkey-metadata": '{"team":"theirs"}', "x-atrium-tags": "team=ours, note=a=b , empty=" }), {
    feature: null,
    user: null,
    session: null,
    tags: { team: "ours", note: "a=b", empty: "" },
  });
});

test("a header that is empty says nothing, and what another gateway said stands", () => {
  assert.equal(attributionOf({ "x-atrium-user": "", "x-portkey-metadata": '{"_user":"p"}' }).user, "p");
});

test("what is too long, too many or no list of tags is refused with the header named", () => {
  for (const header of ["x-atrium-feature", "x-atrium-user", "x-atrium-session"]) refused({ [header]: "v".repeat(257) }, header);
  refused({ "x-atrium-tags": "a" }, "x-atrium-tags");
  refused({ "x-atrium-tags": "=v" }, "x-atrium-tags");
  refused({ "x-atrium-tags": `a=${"v".repeat(257)}` }, "x-atrium-tags");
  refused({ "x-atrium-tags": `${"n".repeat(65)}=v` }, "x-atrium-tags");
  refused({ "x-atrium-tags": Array.from({ length: 17 }, (_, index) => `t${index}=v`).join() }, "x-atrium-tags");
  refused({ "x-portkey-metadata": '{"a":{}}' }, "x-portkey-metadata");
  refused({ "cf-aig-metadata": '["a"]' }, "cf-aig-metadata");
  refused({ "helicone-property-a": "v".repeat(257) }, "helicone-property-a");
});

test("a tag named after a property of objects is a tag like any other", () => {
  const { tags } = attributionOf({ "x-atrium-tags": "__proto__=a,constructor=b,toString=c" });
  assert.deepEqual(Object.entries(tags), [
    ["__proto__", "a"],
    ["constructor", "b"],
    ["toString", "c"],
  ]);
  assert.equal(Object.getPrototypeOf(tags), Object.prototype);
});

test("whatever the headers hold: a bounded attribution, or a problem that names one of them", () => {
  const names = [
    "x-atrium-feature",
    "x-atrium-user",
    "x-atrium-session",
    "x-atrium-tags",
    "x-portkey-metadata",
    "cf-aig-metadata",
    "helicone-property-x",
  ];
  const value = fc.oneof(
    fc.string({ maxLength: 400 }),
    fc.json(),
    fc
      .array(
        fc.string().map((each) => `${each}=1`),
        { maxLength: 30 },
      )
      .map((pairs) => pairs.join()),
  );
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...names), value), (headers) => {
      try {
        const { feature, user, session, tags } = attributionOf(headers);
        for (const each of [feature, user, session, ...Object.values(tags)]) assert.ok(each === null || each.length <= 256);
        assert.ok(Object.keys(tags).length <= 16);
      } catch (thrown) {
        assert.ok(thrown instanceof Problem && names.includes(thrown.param ?? ""), String(thrown));
      }
    }),
    { numRuns: 500 },
  );
});
