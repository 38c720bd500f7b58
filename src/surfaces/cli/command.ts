import { existsSync } from "node:fs";
import path from "node:path";
import { type Config, databaseSettings, readConfig } from "../../config.ts";
import { systemClock as clock } from "../../kernel/clock.ts";
import { systemRandom as random } from "../../kernel/random.ts";
import { type Database, openBeside, readSchemaStatus } from "../../storage/database/index.ts";
import { loadMasterKey, type MasterKey, MasterKeyProblem } from "../../storage/secrets/index.ts";
import { createLog } from "../../telemetry/index.ts";

export type CommandContext = ReturnType<typeof contextOf>;

/** What was typed cannot be carried out; the message says how to write it. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/**
 * Runs one command to its exit code. What stops it is one sentence on standard error: exit code 1, and 2 for what was typed
 * wrong. An interrupted command still ends the PostgreSQL that it started.
 */
export async function runCommand(work: (context: CommandContext) => Promise<number>): Promise<void> {
  for (const [signal, code] of EXIT_CODES) process.once(signal, () => process.exit(code));
  const log = createLog("warn");
  try {
    process.exitCode = await work(contextOf(readConfig(process.env), log));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = isUsageError(error) ? 2 : 1;
  } finally {
    log.close();
  }
}

/** As a shell says it: 128 and the signal's number. */
const EXIT_CODES = [
  ["SIGHUP", 129],
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const;

function contextOf(config: Config, log: ReturnType<typeof createLog>) {
  return { config, log, random, database: { ...databaseSettings(config), random, log } };
}

function isUsageError(error: unknown): boolean {
  return error instanceof UsageError || String((error as { code?: unknown } | null)?.code).startsWith("ERR_PARSE_ARGS");
}

/** Throws a sentence where there is no installation to work on, which opening the embedded database would make. */
export function requireInstallation({ ATRIUM_DATA_DIR: dataDirectory, DATABASE_URL: url }: Config): void {
  if (url === null && !existsSync(path.join(dataDirectory, "postgres")))
    throw new Error(`There is no Atrium in ${dataDirectory}: set ATRIUM_DATA_DIR to the data directory of the server.`);
}

/** The installation's database, which the caller closes. Refuses one that this release would first migrate: reading changes nothing. */
export async function openInstalled({ config, database: settings }: CommandContext): Promise<{ database: Database; masterKey: MasterKey }> {
  requireInstallation(config);
  const masterKey = existingMasterKey(config);
  const { pending } = await readSchemaStatus({ ...settings, masterKey });
  if (pending.length > 0) throw new Error("The database has the schema of another release: npm run migrate brings it to this one.");
  return { database: await openBeside({ ...settings, masterKey, clock }), masterKey };
}

/** The key given or kept, never a new one. Throws MasterKeyProblem. */
export function existingMasterKey({ ATRIUM_DATA_DIR: dataDirectory, ATRIUM_MASTER_KEY: value }: Config): MasterKey {
  if (value === null && !existsSync(path.join(dataDirectory, "master.key")))
    throw new MasterKeyProblem(
      `No master key is given: set ATRIUM_MASTER_KEY to that of the installation, or put its master.key (0600) into ${dataDirectory}.`,
    );
  return loadMasterKey({ value: value ?? undefined, dataDirectory, mayGenerate: false, random });
}
