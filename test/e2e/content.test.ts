import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";

const PROMPT_CANARY = "canary-of-the-prompt-7d1f";
const TAG_CANARY = "canary-of-a-tag-52c8";
const KEY_CANARY = /atr_[0-9A-Za-z]{10}_[0-9A-Za-z]{43}/;

test("content and secrets are not stored: a prompt, its answer, a tag and a key are in no file of the data directory and in no log line", async (t) => {
  const atrium = await startAtriumProcess({ environment: { ATRIUM_LOG_LEVEL: "debug" } });
  t.after(() => removeData(atrium.dataDirectory));
  await createModel(atrium, { model: "echo", provider: "simulated", upstreamModel: "simulated", price: { input: "1", output: "2" } });
  const { key } = await createTenancy(atrium, "content", "echo");
  for (const stream of [false, true]) {
    const response = await fetch(`${atrium.url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json", "x-atrium-feature": TAG_CANARY },
      body: JSON.stringify({ model: "echo", stream, messages: [{ role: "user", content: PROMPT_CANARY }] }),
    });
    const answer = await response.text();
    assert.ok(stream || answer.includes(PROMPT_CANARY), "the simulated answer repeats the prompt, so the answer carries the canary too");
  }
  const refused = await fetch(`${atrium.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: `{"model":"echo","messages":[{"role":"user","content":"${PROMPT_CANARY}"}],"broken":`,
  });
  assert.equal((await refused.text()).includes(PROMPT_CANARY), false, "an error does not quote the body");
  assert.equal(await atrium.stop(), 0);

  const files = (await readdir(atrium.dataDirectory, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const holding = (canary: string | RegExp) =>
    files
      .map((entry) => path.join(entry.parentPath, entry.name))
      .filter((file) => {
        const text = readFileSync(file, "latin1");
        return typeof canary === "string" ? text.includes(canary) : canary.test(text);
      })
      .map((file) => path.relative(atrium.dataDirectory, file));
  assert.ok(holding("config_version").length > 0, "the database's files can be searched for text");
  assert.deepEqual(holding(PROMPT_CANARY), []);
  assert.deepEqual(holding(KEY_CANARY), ["demo.json"], "the demo tenant's key is meant to be read from its file");
  const tagged = holding(TAG_CANARY).filter((file) => !file.startsWith("journal"));
  assert.deepEqual(tagged, [], "tags are sealed everywhere but in the journal, which is shipped and deleted");
  for (const secret of [PROMPT_CANARY, TAG_CANARY, key]) assert.equal(atrium.output().includes(secret), false);
  t.diagnostic(`${files.length} files looked through`);
});
