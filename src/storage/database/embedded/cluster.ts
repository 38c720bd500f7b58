import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { RandomBytes } from "../../../kernel/random.ts";
import { DatabaseRefusal } from "../refusal.ts";
import type { Binaries } from "./binaries.ts";
import type { Launcher } from "./launcher.ts";
import { serverEnvironment } from "./server.ts";

export interface Cluster {
  readonly directory: string;
  readonly superuserPassword: string;
}

/** Finds or makes `<root>/<major>`. Throws `data_of_other_major` for data of another PostgreSQL. */
export async function openCluster(root: string, binaries: Binaries, launcher: Launcher, random: RandomBytes): Promise<Cluster> {
  const directory = join(root, String(binaries.major));
  refuseOtherMajors(root, directory, binaries.major);
  const passwordFile = join(root, "superuser.password");
  if (clusterVersion(directory) === null) {
    const password = Buffer.from(random(new Uint8Array(24))).toString("base64url");
    writeFileSync(passwordFile, password, { mode: 0o600, flush: true });
    launcher.own(passwordFile);
    await initialise(directory, passwordFile, binaries, launcher);
  }
  if (!existsSync(passwordFile)) {
    throw new DatabaseRefusal("server_did_not_start", `${passwordFile} is gone: put it back, it belongs to the data in ${directory}.`);
  }
  return { directory, superuserPassword: readFileSync(passwordFile, "utf8") };
}

function refuseOtherMajors(root: string, directory: string, major: number): void {
  const version = clusterVersion(directory);
  const other = version !== null && version !== String(major) ? directory : version === null ? otherCluster(root, major) : null;
  if (other === null) return;
  throw new DatabaseRefusal(
    "data_of_other_major",
    `${other} holds data of PostgreSQL ${clusterVersion(other)}, and this Atrium runs PostgreSQL ${major}: back it up with the Atrium that wrote it and restore that backup here, or run pg_upgrade into ${directory}.`,
  );
}

function otherCluster(root: string, major: number): string | null {
  for (const name of readdirSync(root)) {
    if (/^\d+$/.test(name) && name !== String(major) && clusterVersion(join(root, name)) !== null) return join(root, name);
  }
  return null;
}

function clusterVersion(directory: string): string | null {
  const file = join(directory, "PG_VERSION");
  return existsSync(file) ? readFileSync(file, "utf8").trim() : null;
}

/**
 * What starts that were killed left behind. The initdb of one may still be writing there, so a directory that cannot be
 * removed now is left to the next start, and this one has a name of its own.
 */
function removeUnfinished(directory: string): void {
  for (const name of readdirSync(dirname(directory))) {
    if (!name.startsWith(`${basename(directory)}.new`)) continue;
    try {
      rmSync(join(dirname(directory), name), { recursive: true, force: true });
    } catch {
      continue;
    }
  }
}

/** Made beside and renamed: an interrupted start leaves nothing that looks like a cluster. */
async function initialise(directory: string, passwordFile: string, binaries: Binaries, launcher: Launcher): Promise<void> {
  const unfinished = `${directory}.new-${process.pid}`;
  removeUnfinished(directory);
  mkdirSync(unfinished, { mode: 0o700 });
  launcher.own(unfinished);
  const args = [
    "-D",
    unfinished,
    "-U",
    "postgres",
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--no-locale",
    "--no-instructions",
  ];
  const { file, args: all, ...identity } = launcher.command(binaries.initdb, args);
  try {
    const output = await run(file, all, { ...identity, env: serverEnvironment(binaries), cwd: "/" });
    if (output.code !== 0) throw new Error(output.text.slice(-MAX_REASON_CHARACTERS));
    renameSync(unfinished, directory);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DatabaseRefusal(
      "server_did_not_start",
      `The embedded PostgreSQL could not make ${directory} (or set DATABASE_URL): ${reason}`,
      { cause },
    );
  }
}

const MAX_REASON_CHARACTERS = 1_500;

function run(file: string, args: string[], options: object): Promise<{ code: number | null; text: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { ...options, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, text }));
  });
}
