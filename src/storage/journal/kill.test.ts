import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { scaled } from "../../../test/support/scale.ts";
import { systemClock } from "../../kernel/clock.ts";
import { createIdMaker, type Uuid } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import { type Durability, type JournalRecord, openJournal } from "./index.ts";

const KILLS = scaled(20);
const CHILD = fileURLToPath(new URL("kill-child.ts", import.meta.url));
const makeId = createIdMaker(systemClock, systemRandom);
const log = { info: () => undefined, error: () => undefined };

for (const durability of ["process", "power"] as const) {
  test(`${durability}: of ${KILLS} kill -9 none loses, repeats or damages a record that was acknowledged`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "journal-kill-"));
    t.after(() => rm(directory, { recursive: true, force: true }));
    const attempts = new Set<string>();
    const figures = { kills: 0, acknowledged: 0, read: 0, readUnacknowledged: 0, lost: 0, duplicated: 0, damaged: 0 };
    let before = 0;
    for (; figures.kills < KILLS; figures.kills++) {
      const acknowledged = await killAmidWriting(directory, durability);
      const records = await readAndRelease(directory, durability, before);
      const present = new Set(records.map(({ sequence }) => sequence));
      figures.acknowledged += acknowledged.length;
      figures.read += records.length;
      figures.readUnacknowledged += records.length - acknowledged.length;
      figures.lost += acknowledged.filter((sequence) => !present.has(sequence)).length;
      figures.damaged += records.filter((record) => !isWhole(record)).length;
      for (const { sequence, attempt } of records) {
        if (attempts.has(attempt) || sequence !== before + 1) figures.duplicated++;
        attempts.add(attempt);
        before = sequence;
      }
    }
    t.diagnostic(JSON.stringify(figures));
    assert.ok(figures.acknowledged > KILLS, "the children wrote");
    assert.deepEqual([figures.lost, figures.duplicated, figures.damaged], [0, 0, 0]);
  });
}

/** Runs a writer for a while after its first acknowledgement, kills it, and returns what it had acknowledged. */
async function killAmidWriting(directory: string, durability: Durability): Promise<number[]> {
  const child = spawn(process.execPath, [CHILD, directory, durability], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const ended = once(child.stdout, "end");
  await Promise.race([once(child.stdout, "data"), exited]);
  await sleep(5 + Math.random() * 30);
  child.kill("SIGKILL");
  const [, [, signal]] = await Promise.all([ended, exited]);
  assert.equal(signal, "SIGKILL", "the writer ran until it was killed");
  // what follows the last newline was cut off by the kill
  return said.split("\n").slice(0, -1).map(Number);
}

async function readAndRelease(directory: string, durability: Durability, after: number): Promise<JournalRecord[]> {
  const { journal } = await openJournal({
    directory,
    durability,
    clock: systemClock,
    makeId: () => makeId<Uuid>(),
    log,
  });
  const records: JournalRecord[] = [];
  for (let from = after; ; from = records.at(-1)?.sequence ?? after) {
    const batch = await journal.read(from, 1_000, 1024 * 1024);
    if (batch.length === 0) break;
    records.push(...batch);
  }
  await journal.release(journal.durable());
  await journal.close();
  return records;
}

function isWhole({ attempt, payload }: JournalRecord): boolean {
  const text = payload.toString();
  return text === attempt.repeat(text.length / attempt.length);
}
