import { readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { JournalLocked } from "./fault.ts";

/**
 * Takes the directory's writer lock until the returned function is called or the process ends, however it ends.
 * Throws `JournalLocked` when another writer, in this process or any other on the machine, holds it.
 *
 * It is SQLite's lock on an empty file: the one kernel file lock Node reaches without an add-on or a helper program. The
 * kernel drops it with the process, so there is no stale lock to judge, no pid that could be reused, and it holds between
 * containers that share the directory and see different pids.
 */
export function lockDirectory(directory: string): () => void {
  const database = new DatabaseSync(join(directory, "lock"));
  const holderFile = join(directory, "lock.holder");
  try {
    // in memory: a rollback journal would need disk space, and the lock must be had on a full disk
    database.exec("PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (error instanceof Error && "errcode" in error && error.errcode === SQLITE_BUSY) {
      throw new JournalLocked(directory, describeHolder(holderFile));
    }
    throw error;
  }
  nameHolder(holderFile);
  return () => database.close();
}

const SQLITE_BUSY = 5;

/** Only for the sentence of `JournalLocked`: who holds the lock is the kernel's to say. */
function nameHolder(file: string): void {
  try {
    writeFileSync(file, `process ${process.pid} on ${hostname()}`);
  } catch {
    // a full disk costs the sentence its name, not the journal its lock
  }
}

function describeHolder(file: string): string {
  try {
    return readFileSync(file, "utf8") || "another process";
  } catch {
    return "another process";
  }
}
