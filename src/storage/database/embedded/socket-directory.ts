import { existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Launcher } from "./launcher.ts";

export interface SocketDirectory {
  readonly path: string;
  /** Removes what a stopped server leaves. */
  remove(): void;
}

/**
 * A private directory whose socket path fits the kernel's address: beside the cluster where that is short enough, else
 * under the system's temporary directory, remembered in a file for the next start.
 */
export function socketDirectory(root: string, launcher: Launcher): SocketDirectory {
  const beside = join(root, "run");
  if (fits(beside)) {
    mkdirSync(beside, { recursive: true, mode: 0o700 });
    launcher.own(beside);
    return { path: beside, remove: () => rmSync(beside, { recursive: true, force: true }) };
  }
  const record = join(root, "socket-directory");
  const path = remembered(record, launcher) ?? makeTemporary(record, launcher);
  return {
    path,
    remove: () => {
      rmSync(path, { recursive: true, force: true });
      rmSync(record, { force: true });
    },
  };
}

/** The directory of an earlier start, if it is still there and nobody else can have made it. */
function remembered(record: string, launcher: Launcher): string | null {
  if (!existsSync(record)) return null;
  const path = readFileSync(record, "utf8").trim();
  const stat = lstatSync(path, { throwIfNoEntry: false });
  const owner = launcher.account?.uid ?? process.getuid?.();
  return stat?.isDirectory() === true && stat.uid === owner && (stat.mode & 0o077) === 0 && fits(path) ? path : null;
}

function makeTemporary(record: string, launcher: Launcher): string {
  const parent = fits(join(tmpdir(), "atrium-XXXXXX")) ? tmpdir() : "/tmp";
  const path = mkdtempSync(join(parent, "atrium-"));
  launcher.own(path);
  writeFileSync(record, `${path}\n`, { mode: 0o600 });
  return path;
}

function fits(directory: string): boolean {
  return Buffer.byteLength(join(directory, SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES;
}

/** PostgreSQL's name for the socket of its default port. */
export const SOCKET_NAME = ".s.PGSQL.5432";
/** sockaddr_un holds 108 bytes, one of them the terminator. */
const MAX_SOCKET_PATH_BYTES = 107;
