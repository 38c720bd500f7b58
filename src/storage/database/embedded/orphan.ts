import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DatabaseRefusal } from "../refusal.ts";
import type { DatabaseLog } from "../index.ts";

/**
 * Stops the server that a killed Atrium left running on this cluster, and removes a pid file that names some other
 * process (pids are reused, most of all in a restarted container). The caller holds the data directory's lock, so no
 * living Atrium uses that server. A process is signalled only when it is a postgres working in this very directory.
 */
export async function stopOrphan(directory: string, log: DatabaseLog): Promise<void> {
  const file = join(directory, "postmaster.pid");
  const pid = existsSync(file) ? Number.parseInt(readFileSync(file, "utf8"), 10) : Number.NaN;
  if (!(pid > 0)) return;
  if (!servesDirectory(pid, directory)) {
    rmSync(file, { force: true });
    return;
  }
  log.warn({ pid }, "a PostgreSQL that an earlier Atrium left running is stopped first");
  for (const [signal, patienceMs] of [
    ["SIGINT", 30_000],
    ["SIGQUIT", 10_000],
  ] as const) {
    process.kill(pid, signal);
    for (let waited = 0; waited < patienceMs; waited += POLL_MS) {
      if (!servesDirectory(pid, directory)) return;
      await sleep(POLL_MS);
    }
  }
  throw new DatabaseRefusal("data_directory_in_use", `PostgreSQL process ${pid} on ${directory} does not stop: stop it, then start again.`);
}

function servesDirectory(pid: number, directory: string): boolean {
  if (!isAlive(pid)) return false;
  if (!existsSync("/proc/self/cwd")) {
    const { stdout } = spawnSync("ps", ["-o", "command=", "-p", String(pid)], { encoding: "utf8" });
    return stdout.includes("postgres") && stdout.includes(directory);
  }
  try {
    // A server works inside its data directory, which the kernel still knows when it has been renamed or is bind-mounted.
    const [theirs, ours] = [statSync(`/proc/${pid}/cwd`), statSync(directory)];
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "postgres" && theirs.dev === ours.dev && theirs.ino === ours.ino;
  } catch {
    return false;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

const POLL_MS = 20;
