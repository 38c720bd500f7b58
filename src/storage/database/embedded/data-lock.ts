import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { DatabaseRefusal } from "../refusal.ts";

/** Held until `release()` or the death of the process, however it dies. */
export interface DataLock {
  release(): void;
}

/**
 * Takes the data directory for this process. Node has no flock; SQLite's exclusive lock is the kernel's own record
 * lock on every platform: nothing goes stale after a kill -9, no pid can be mistaken, and two containers that
 * share the volume see each other.
 */
export function lockDataDirectory(dataDirectory: string): DataLock {
  mkdirSync(dataDirectory, { recursive: true, mode: 0o700 });
  const file = new DatabaseSync(join(dataDirectory, "atrium.lock"));
  try {
    file.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (error) {
    file.close();
    if (!/locked|busy/.test(String(error))) throw error;
    throw new DatabaseRefusal(
      "data_directory_in_use",
      `Another Atrium is running on ${dataDirectory}: stop it, or give this one a directory of its own with ATRIUM_DATA_DIR.`,
    );
  }
  return { release: () => file.close() };
}
