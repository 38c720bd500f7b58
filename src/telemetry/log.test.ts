import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";

const LOG = path.join(import.meta.dirname, "log.ts");

/** Runs the script with a log in a process of its own, and gives back the lines of its standard error. */
function linesOf(level: string, script: string): Record<string, unknown>[] {
  const { stderr, status } = spawnSync(
    process.execPath,
    [
      "--input-type=module",
      "-e",
      `import { createLog } from ${JSON.stringify(LOG)}; const log = createLog(${JSON.stringify(level)}); ${script}; log.close();`,
    ],
    { encoding: "utf8" },
  );
  assert.equal(status, 0, stderr);
  return stderr
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

test("each message is one line of JSON with its facts, and lower levels are left out", () => {
  const lines = linesOf("info", `log.debug({ a: 1 }, "no"); log.info({ a: 1 }, "yes\\nno"); log.error({ b: 2 }, "bad")`);
  assert.deepEqual(
    lines.map(({ a, b, msg }) => ({ a, b, msg })),
    [
      { a: 1, b: undefined, msg: "yes\nno" },
      { a: undefined, b: 2, msg: "bad" },
    ],
  );
  assert.ok(lines.every((line) => typeof line["time"] === "string"));
});

test("of an error its words, its stack, its code and its causes are kept, and nothing else that hangs on it", () => {
  const script = `
    const inner = Object.assign(new Error("inner"), { code: "23505", detail: "Key (secret)=(canary)", parameters: ["canary"] });
    const outer = Object.assign(new TypeError("outer", { cause: inner }), { fault: { message: "canary" }, response: "canary" });
    for (const name of ["cause", "error", "err"]) log.error({ [name]: outer }, "failed");`;
  const lines = linesOf("error", script);
  assert.equal(lines.length, 3);
  for (const [index, name] of ["cause", "error", "err"].entries()) {
    const { type, message, stack, cause } = (lines[index] as Record<string, unknown>)[name] as {
      type: string;
      message: string;
      stack: string;
      cause: { message: string; code: string };
    };
    assert.deepEqual([type, message, cause.message, cause.code], ["TypeError", "outer", "inner", "23505"]);
    assert.match(stack, /outer\n\s+at /);
  }
  assert.doesNotMatch(JSON.stringify(lines), /canary/);
});

test("an error that is its own cause is written and does not hang", () => {
  assert.equal(linesOf("error", `const error = new Error("loop"); error.cause = error; log.error({ error }, "failed")`).length, 1);
});
