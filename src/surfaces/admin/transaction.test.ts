import assert from "node:assert/strict";
import { test } from "node:test";
import { Problem } from "../../kernel/problem.ts";
import { DatabaseUnavailable } from "../../storage/database/index.ts";
import { whileAvailable, withRetries } from "./transaction.ts";

/** Fails so many times, each time with this, then succeeds. */
function failing(times: number, error: Error) {
  let tries = 0;
  const work = async () => {
    tries += 1;
    if (tries <= times) throw error;
    return "done";
  };
  return { work, tries: () => tries };
}

const refused = (code: string) => (thrown: unknown) => thrown instanceof Problem && thrown.code === code;

for (const code of ["23505", "40001", "40P01"]) {
  test(`a transaction that lost to another one (${code}) runs again, and is a conflict only when it keeps losing`, async () => {
    const collision = Object.assign(new Error("collision"), { code });
    const unlucky = failing(2, collision);
    assert.equal(await withRetries(unlucky.work), "done");
    assert.equal(unlucky.tries(), 3);
    await assert.rejects(withRetries(failing(100, collision).work), refused("conflict"));
  });
}

test("PostgreSQL away is overloaded with a time to retry, and is not tried again", async () => {
  const away = failing(100, new DatabaseUnavailable("gone"));
  await assert.rejects(
    whileAvailable(withRetries(away.work)),
    (thrown) => refused("overloaded")(thrown) && (thrown as Problem).retryAfterSeconds !== null,
  );
  assert.equal(away.tries(), 1);
});

test("any other failure is thrown as it is, after one try", async () => {
  for (const error of [new Problem("not_found"), new TypeError("bug"), Object.assign(new Error("check"), { code: "23514" })]) {
    const wrong = failing(100, error);
    await assert.rejects(whileAvailable(withRetries(wrong.work)), error);
    assert.equal(wrong.tries(), 1);
  }
});
