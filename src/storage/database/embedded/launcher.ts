import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, readFileSync, statSync } from "node:fs";
import { userInfo } from "node:os";
import { DatabaseRefusal } from "../refusal.ts";

/** How PostgreSQL's programs, which refuse to run as root, are started by this process's user. */
export interface Launcher {
  readonly kind: "direct" | "namespace" | "account";
  /** Who owns the server's files; null: this process's user. */
  readonly account: Account | null;
  /** The command line that runs the program, and what spawn needs beside it. */
  command(program: string, args: readonly string[]): { file: string; args: string[]; uid?: number; gid?: number };
  /** Gives a file or directory to the user the server runs as. */
  own(path: string): void;
}

export interface Account {
  readonly uid: number;
  readonly gid: number;
}

export interface Reach {
  readonly executable: string;
  /** Atrium's own, which another account may be let through, though not into. */
  readonly dataDirectory: string;
  /** Within it: the server's, to write in. */
  readonly directory: string;
}

/** `reach` is what the server must get at. Throws `no_embedded_server`. */
export function chooseLauncher(reach: Reach): Launcher {
  if (!needsHelp()) return directLauncher();
  const account = unprivilegedAccount();
  if (account !== null) {
    const namespace = namespaceLauncher(account);
    if (works(namespace, "true", [])) return namespace;
    if (process.getuid?.() === 0) {
      const other = accountLauncher(account);
      other.own(reach.directory);
      chmodSync(reach.dataDirectory, statSync(reach.dataDirectory).mode | TRAVERSABLE);
      if (works(other, "test", ["-x", reach.executable]) && works(other, "test", ["-w", reach.directory])) return other;
    }
  }
  throw new DatabaseRefusal(
    "no_embedded_server",
    "The embedded PostgreSQL cannot run as this user here (it refuses root, user namespaces are not allowed, and no unprivileged account can reach the data directory): start Atrium as an ordinary user, or set DATABASE_URL.",
  );
}

function directLauncher(): Launcher {
  return { kind: "direct", account: null, command: (file, args) => ({ file, args: [...args] }), own: () => {} };
}

/** The user appears to the server as an unprivileged account; on disk everything stays this user's, so 0700 directories work. */
function namespaceLauncher(account: Account): Launcher {
  const prefix = ["--user", `--map-user=${account.uid}`, `--map-group=${account.gid}`, "--"];
  return {
    kind: "namespace",
    account: null,
    command: (file, args) => ({ file: "unshare", args: [...prefix, file, ...args] }),
    own: () => {},
  };
}

export function accountLauncher(account: Account): Launcher {
  return {
    kind: "account",
    account,
    command: (file, args) => ({ file, args: [...args], uid: account.uid, gid: account.gid }),
    own: (path) => chownSync(path, account.uid, account.gid),
  };
}

/** An account that is not root: initdb looks the user up by number, so one that has a name. */
export function unprivilegedAccount(): Account | null {
  const accounts = new Map<string, Account>();
  for (const line of readPasswd().split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name === undefined || uid === undefined || gid === undefined) continue;
    if (Number(uid) > 0) accounts.set(name, { uid: Number(uid), gid: Number(gid) });
  }
  return accounts.get("postgres") ?? accounts.get("nobody") ?? accounts.values().next().value ?? null;
}

function needsHelp(): boolean {
  if (process.getuid?.() === 0) return true;
  try {
    userInfo();
    return false;
  } catch {
    return true;
  }
}

function readPasswd(): string {
  try {
    return readFileSync("/etc/passwd", "utf8");
  } catch {
    return "";
  }
}

function works(launcher: Launcher, program: string, args: readonly string[]): boolean {
  const { file, args: all, ...identity } = launcher.command(program, args);
  return spawnSync(file, all, { ...identity, stdio: "ignore", timeout: PROBE_TIMEOUT_MS }).status === 0;
}

/** Search, without list or read: what lies inside keeps its own permissions. */
const TRAVERSABLE = 0o011;
const PROBE_TIMEOUT_MS = 5_000;
