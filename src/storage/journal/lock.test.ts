import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { JournalLocked } from "./fault.ts";
import { lockDirectory } from "./lock.ts";

const LOCK = new URL("lock.ts", import.meta.url).href;

test("a directory has one writer in a process: the second is told who holds it, and may have it afterwards", async (t) => {
  const directory = await temporaryDirectory(t);
  const unlock = lockDirectory(directory);
  assert.throws(
    () => lockDirectory(directory),
    (error) => error instanceof JournalLocked && error.message.includes(`in use by process ${process.pid} on `),
  );
  unlock();
  lockDirectory(directory)();
});

test("a living process keeps the lock; one killed with SIGKILL loses it at once", async (t) => {
  const directory = await temporaryDirectory(t);
  const program = `const { lockDirectory } = await import(process.argv[1]); lockDirectory(process.argv[2]); console.log("held"); setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ["--input-type=module", "-e", program, LOCK, directory], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => holder.kill("SIGKILL"));
  const exited = once(holder, "exit");
  await once(holder.stdout, "data");
  assert.throws(
    () => lockDirectory(directory),
    (error) => error instanceof JournalLocked && error.message.includes(`in use by process ${holder.pid} on `),
  );
  holder.kill("SIGKILL");
  await exited;
  lockDirectory(directory)();
});

async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "journal-lock-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}
