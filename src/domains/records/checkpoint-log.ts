import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, truncateSync } from "node:fs";
import { open, rename, stat } from "node:fs/promises";
import path from "node:path";
import type { Clock } from "../../kernel/clock.ts";
import type { Database, DatabaseLog } from "../../storage/database/index.ts";
import { type ChainHead, type CheckpointSigner, checkpointSchema } from "./checkpoint.ts";
import { readHeads, sumOfSequences } from "./store.ts";

export interface CheckpointLogNeeds {
  /** `checkpoints.jsonl` is in it. Made where missing. */
  readonly directory: string;
  readonly database: Pick<Database, "forSystem">;
  readonly signer: CheckpointSigner;
  readonly clock: Clock;
  readonly log: DatabaseLog;
}

export interface CheckpointLog {
  /** Signs the heads that moved since they were last signed here, and resolves when the disk has them. Returns how many. */
  write(): Promise<number>;
}

/**
 * The signed checkpoints of this process, outside the database: one line of JSON each, appended, 0600. Whoever can change the
 * database's rows cannot make them, and copies of the file kept elsewhere cannot be taken back. At 16 MiB the file is renamed
 * to `checkpoints-<time>.jsonl` and a new one begun; nothing is ever deleted.
 */
export function openCheckpointLog(needs: CheckpointLogNeeds): CheckpointLog {
  mkdirSync(needs.directory, { recursive: true, mode: 0o700 });
  const file = path.join(needs.directory, CHECKPOINT_FILE);
  /** The head of each chain as last signed: one entry a chain. */
  const signed = new Map<string, ChainHead>();
  cutTornLine(file);
  for (const head of headsIn(file)) signed.set(head.tenant, head);
  let signedSum: bigint | null = null;
  let running: Promise<number> | null = null;

  const writeOnce = async (): Promise<number> => {
    const { sum, heads } = await needs.database.forSystem("report", async (tx) => {
      const found = await sumOfSequences(tx);
      return { sum: found, heads: found === signedSum ? [] : await readHeads(tx) };
    });
    const moved = heads.filter((head) => signed.get(head.tenant)?.hash !== head.hash);
    for (const head of moved) warnWentBack(needs.log, head, signed.get(head.tenant));
    const checkpoints = batches(moved).map((batch) => needs.signer.sign(batch));
    if (checkpoints.length > 0) await append(file, checkpoints.map((each) => `${JSON.stringify(each)}\n`).join(""), needs.clock);
    for (const head of moved) signed.set(head.tenant, head);
    signedSum = sum;
    return moved.length;
  };
  return {
    write: () => (running ??= writeOnce().finally(() => (running = null))),
  };
}

/** A chain only grows. It is signed as it is now all the same: what was signed before is the evidence. */
function warnWentBack(log: DatabaseLog, head: ChainHead, before: ChainHead | undefined): void {
  if (before === undefined || head.sequence > before.sequence) return;
  log.error(
    { tenant: head.tenant, signed: before.sequence, found: head.sequence },
    "an audit trail is not the one that was signed: rows were taken away or changed, or a backup was restored (npm run audit -- verify)",
  );
}

async function append(file: string, text: string, clock: Clock): Promise<void> {
  const size = (await stat(file).catch(() => null))?.size ?? 0;
  if (size >= MAX_FILE_BYTES) {
    const time = new Date(clock.now()).toISOString().replaceAll(":", "");
    await rename(file, path.join(path.dirname(file), `checkpoints-${time}.jsonl`));
  }
  const handle = await open(file, "a", 0o600);
  try {
    await handle.appendFile(text);
    await handle.sync();
  } catch (fault) {
    // Else the next line would be glued to what a full disk left of this one.
    cutTornLine(file);
    throw fault;
  } finally {
    await handle.close();
  }
  if (size === 0 || size >= MAX_FILE_BYTES) await syncDirectory(path.dirname(file));
}

/** A new name is there after a power loss only once its directory is written. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** What a crash left of a line that nobody was told is written. */
function cutTornLine(file: string): void {
  if (!existsSync(file)) return;
  const bytes = readFileSync(file);
  const whole = bytes.lastIndexOf("\n") + 1;
  if (whole === bytes.length) return;
  truncateSync(file, whole);
  const descriptor = openSync(file, "r+");
  fsyncSync(descriptor);
  closeSync(descriptor);
}

/** Of lines that cannot be read, nothing: the verifier names them, and the heads are signed again. */
function headsIn(file: string): ChainHead[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
  return lines.flatMap((line) => {
    try {
      return checkpointSchema.parse(JSON.parse(line)).heads;
    } catch {
      return [];
    }
  });
}

function batches(heads: readonly ChainHead[]): ChainHead[][] {
  const found: ChainHead[][] = [];
  for (let from = 0; from < heads.length; from += MAX_HEADS) found.push(heads.slice(from, from + MAX_HEADS));
  return found;
}

export const CHECKPOINT_FILE = "checkpoints.jsonl";
/** One line stays below 200 kB. */
const MAX_HEADS = 1_000;
const MAX_FILE_BYTES = 16 * 1024 * 1024;
