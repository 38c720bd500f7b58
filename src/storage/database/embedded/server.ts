import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DatabaseLog } from "../index.ts";
import { DatabaseRefusal } from "../refusal.ts";
import type { Binaries } from "./binaries.ts";
import type { Launcher } from "./launcher.ts";
import { SOCKET_NAME } from "./socket-directory.ts";

export interface ServerOptions {
  readonly binaries: Binaries;
  readonly launcher: Launcher;
  /** The cluster, made by initdb. */
  readonly directory: string;
  readonly socketDirectory: string;
  readonly logFile: string;
  readonly settings: Readonly<Record<string, string>>;
  readonly log: DatabaseLog;
}

/** A PostgreSQL that is our child, restarted when it dies under us. */
export interface Server {
  /** Null while it is down. */
  readonly pid: number | null;
  /** Fast shutdown: connections are closed, nothing is left to recover, no process stays. */
  stop(): Promise<void>;
}

/** Returns when the server accepts connections. Throws `server_did_not_start` with the end of its log. */
export async function startServer(options: ServerOptions): Promise<Server> {
  let child: ChildProcess | null = await launchPatiently(options);
  let stopping = false;
  let restart: Promise<void> = Promise.resolve();

  const watch = (running: ChildProcess) => {
    running.unref();
    running.once("exit", (code, signal) => {
      child = null;
      if (stopping) return;
      options.log.error({ code, signal, lastWords: logTail(options.logFile) }, "the embedded PostgreSQL died; it is started again");
      restart = startAgain();
    });
  };
  const startAgain = async () => {
    for (let delayMs = FIRST_RESTART_DELAY_MS; !stopping; delayMs = Math.min(delayMs * 2, MAX_RESTART_DELAY_MS)) {
      await sleep(delayMs);
      if (stopping) return;
      try {
        const started = await launch(options);
        child = started;
        if (stopping) return;
        watch(started);
        options.log.info({ pid: started.pid }, "the embedded PostgreSQL is back");
        return;
      } catch (error) {
        options.log.error({ error: String(error) }, "the embedded PostgreSQL did not start");
      }
    }
  };
  watch(child);

  // A process that exits without closing still asks its server to stop; after a SIGKILL the next start does.
  const onExit = () => child?.kill("SIGINT");
  process.once("exit", onExit);
  return {
    get pid() {
      return child?.pid ?? null;
    },
    async stop() {
      stopping = true;
      await restart;
      if (child !== null) await stopChild(child);
      process.removeListener("exit", onExit);
    },
  };
}

/** For a moment after a server's sudden death its last children still hold the shared memory. */
async function launchPatiently(options: ServerOptions): Promise<ChildProcess> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await launch(options);
    } catch (error) {
      if (attempt === START_ATTEMPTS || !/shared memory block/.test(String(error))) throw error;
      await sleep(MAX_RESTART_DELAY_MS / START_ATTEMPTS);
    }
  }
}

async function launch(options: ServerOptions): Promise<ChildProcess> {
  // Nobody else uses this directory: what lies here belongs to a server that is gone.
  for (const name of [SOCKET_NAME, `${SOCKET_NAME}.lock`]) rmSync(join(options.socketDirectory, name), { force: true });
  const settings = {
    ...options.settings,
    listen_addresses: "",
    unix_socket_directories: `"${options.socketDirectory.replaceAll('"', '""')}"`,
  };
  const args = ["-D", options.directory, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
  const { file, args: all, ...identity } = options.launcher.command(options.binaries.postgres, args);
  const output = openSync(options.logFile, "w", 0o600);
  // Detached: its own process group, so Ctrl-C reaches it only through our orderly stop.
  const child = spawn(file, all, {
    ...identity,
    detached: true,
    stdio: ["ignore", output, output],
    cwd: "/",
    env: serverEnvironment(options.binaries),
  });
  closeSync(output);
  await untilReady(child, options);
  return child;
}

async function untilReady(child: ChildProcess, options: ServerOptions): Promise<void> {
  let failure: string | null = null;
  const onError = (error: Error) => {
    failure = error.message;
  };
  child.once("error", onError);
  for (let waitedMs = 0; waitedMs < READY_DEADLINE_MS; waitedMs += READY_POLL_MS) {
    if (failure !== null || child.exitCode !== null || child.signalCode !== null) break;
    if (isReady(options.directory, child.pid)) {
      child.removeListener("error", onError);
      return;
    }
    await sleep(READY_POLL_MS);
  }
  if (failure === null && child.exitCode === null && child.signalCode === null) await stopChild(child);
  const reason = failure ?? logTail(options.logFile);
  throw new DatabaseRefusal("server_did_not_start", `The embedded PostgreSQL did not start (or set DATABASE_URL): ${reason}`);
}

/** The eighth line of the pid file is the server's own word that it accepts connections. */
function isReady(directory: string, pid: number | undefined): boolean {
  try {
    const lines = readFileSync(join(directory, "postmaster.pid"), "utf8").split("\n");
    return Number(lines[0]) === pid && lines[7]?.trim() === "ready";
  } catch {
    return false;
  }
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.ref();
  const exited = once(child, "exit");
  for (const [signal, patienceMs] of [
    ["SIGINT", 30_000],
    ["SIGQUIT", 5_000],
    ["SIGKILL", 5_000],
  ] as const) {
    child.kill(signal);
    const patience = new AbortController();
    const stopped = await Promise.race([exited.then(() => true), sleep(patienceMs, false, patience).catch(() => false)]);
    patience.abort();
    if (stopped) return;
  }
}

/** PG… variables of the operator's shell mean some other server. */
export function serverEnvironment(binaries: Binaries): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { LC_ALL: "C", TZ: "UTC" };
  for (const name of ["PATH", "TMPDIR", "SystemRoot"]) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  if (binaries.libraryPath !== null) environment["LD_LIBRARY_PATH"] = binaries.libraryPath;
  return environment;
}

function logTail(path: string): string {
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  return text.trim().slice(-LOG_TAIL_CHARACTERS) || "it said nothing";
}

/** Crash recovery after a busy hour takes tens of seconds; one that takes longer than this is not coming back. */
const READY_DEADLINE_MS = 120_000;
const READY_POLL_MS = 10;
const FIRST_RESTART_DELAY_MS = 100;
const MAX_RESTART_DELAY_MS = 5_000;
const START_ATTEMPTS = 10;
const LOG_TAIL_CHARACTERS = 1_500;
