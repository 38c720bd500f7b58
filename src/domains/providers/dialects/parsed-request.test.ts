import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { Problem } from "../../../kernel/problem.ts";
import { parseMessages } from "./anthropic/request.ts";
import { parseChatCompletion } from "./openai/request.ts";
import { listOf, tagsOf } from "./parsed-request.ts";

const MANY = 100_000;

test("a list's first fault is told with its place, and nothing after it is looked at", () => {
  let seen = 0;
  const element = z.looseObject({ a: z.string() }).refine(() => ++seen > 0);
  const checked = z
    .looseObject({ list: listOf(element) })
    .safeParse({ list: [{ a: "x" }, { a: 5 }, ...Array.from({ length: MANY }, () => ({ a: "y" }))] });
  assert.deepEqual(
    checked.error?.issues.map(({ path }) => path),
    [["list", 1, "a"]],
  );
  assert.equal(seen, 1);
  assert.deepEqual(listOf(z.string(), { atLeast: 1, atMost: 2 }).parse(["a", "b"]), ["a", "b"]);
  for (const wrong of [[], ["a", "b", "c"], "a", null])
    assert.equal(listOf(z.string(), { atLeast: 1, atMost: 2 }).safeParse(wrong).success, false);
});

test("tags are counted before their values are looked at", () => {
  const many = Object.fromEntries(Array.from({ length: MANY }, (_, index) => [`k${index}`, 5]));
  const issues = tagsOf(z.record(z.string(), z.string())).safeParse(many).error?.issues;
  assert.deepEqual(
    issues?.map(({ code }) => code),
    ["custom"],
  );
});

test("a body of as many mistakes as it has room for is refused by the first, in both dialects", () => {
  const filled = (unit: string): string => Array<string>(MANY).fill(unit).join(",");
  const bodies: readonly (readonly [string, string])[] = [
    [`"messages":[${filled("{}")}]`, "messages[0].role"],
    [`"messages":[{"role":"user","content":[${filled("1")}]}]`, "messages[0].content[0]"],
    [`"messages":[{"role":"user","content":"a"}],"tools":[${filled("1")}]`, "tools[0]"],
  ];
  for (const parse of [parseChatCompletion, parseMessages])
    for (const [members, param] of bodies)
      assert.throws(
        () => parse(Buffer.from(`{"model":"m","max_tokens":1,${members}}`)),
        (thrown) => thrown instanceof Problem && thrown.code === "invalid_request" && thrown.param === param,
      );
});
