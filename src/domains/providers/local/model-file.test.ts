import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { Problem } from "../../../kernel/problem.ts";
import { checkModelName, findModelFile } from "./model-file.ts";

let root: string;
let models: string;

before(async () => {
  root = await mkdtemp(join(tmpdir(), "atrium-models-"));
  models = join(root, "models");
  await mkdir(join(models, "folder.gguf"), { recursive: true });
  await writeFile(join(models, "good.gguf"), "GGUF and more");
  await writeFile(join(models, "text.gguf"), "hello");
  await writeFile(join(models, "empty.gguf"), "");
  await writeFile(join(root, "secret.gguf"), "GGUF outside");
  await symlink(join(root, "secret.gguf"), join(models, "escape.gguf"));
  await symlink(join(models, "good.gguf"), join(models, "alias.gguf"));
  await symlink(models, join(root, "linked"));
});
after(() => rm(root, { recursive: true }));

async function refusal(directory: string | null, name: string): Promise<string> {
  const problem = await findModelFile(directory, name).then(
    () => assert.fail(`${name} was accepted`),
    (error: unknown) => error,
  );
  assert.ok(problem instanceof Problem);
  assert.deepEqual([problem.code, problem.param], ["invalid_request", "upstream_model"]);
  assert.ok(!problem.message.includes(root), "the message names no path of the machine");
  return problem.message;
}

test("a GGUF file in the models directory is found, through links that stay inside and a linked directory", async () => {
  const good = await findModelFile(models, "good.gguf");
  assert.equal(good.bytes, 13);
  assert.equal((await findModelFile(models, "alias.gguf")).path, good.path);
  assert.equal((await findModelFile(join(root, "linked"), "good.gguf")).path, good.path);
});

test("a replaced file has another identity", async () => {
  const path = join(models, "replaced.gguf");
  await writeFile(path, "GGUF one");
  const one = await findModelFile(models, "replaced.gguf");
  await writeFile(path, "GGUF other");
  assert.notEqual((await findModelFile(models, "replaced.gguf")).identity, one.identity);
});

test("no name reaches a file outside the models directory", async () => {
  for (const name of [
    "../secret.gguf",
    "/etc/passwd",
    "folder/../good.gguf",
    "..\\secret.gguf",
    "C:good.gguf",
    ".gguf",
    "..gguf",
    "good.gguf\0",
    "good.gguf\n",
    "",
    "good.bin",
    `${"x".repeat(255)}.gguf`,
  ])
    await refusal(models, name);
  assert.match(await refusal(models, "escape.gguf"), /link that leaves/);
  fc.assert(
    fc.property(fc.tuple(fc.string(), fc.constantFrom("/", "\\", "\0", ":"), fc.string()), (parts) => {
      assert.throws(() => checkModelName(`${parts.join("")}.gguf`), Problem);
    }),
  );
});

test("what cannot be a model is refused with what to do about it", async () => {
  assert.match(await refusal(models, "absent.gguf"), /no file 'absent.gguf'/);
  assert.match(await refusal(models, "text.gguf"), /not a GGUF file/);
  assert.match(await refusal(models, "empty.gguf"), /not a GGUF file/);
  assert.match(await refusal(models, "folder.gguf"), /not a file/);
  assert.match(await refusal(null, "good.gguf"), /Set ATRIUM_MODELS_DIR/);
  assert.match(await refusal(join(root, "nowhere"), "good.gguf"), /cannot be read/);
});
