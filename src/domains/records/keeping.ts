import type { DatabaseLog } from "../../storage/database/index.ts";
import { type CheckpointLogNeeds, openCheckpointLog } from "./checkpoint-log.ts";
import { createRefusals, type Refusals, type RefusalsNeeds } from "./refusals.ts";

export interface RecordKeeping {
  readonly note: Refusals["note"];
  /** Writes what is noted, then signs what it made. Once nothing notes any more. */
  close(): Promise<void>;
}

/** What a server does for the audit trail beside its requests: each minute it writes refusals, and signs the trails that moved. */
export function startRecordKeeping(needs: RefusalsNeeds & CheckpointLogNeeds): RecordKeeping {
  const refusals = createRefusals(needs);
  const checkpoints = openCheckpointLog(needs);
  const keep = async (all: boolean): Promise<void> => {
    await attempt(needs.log, "refusals could not be written to the audit trails", () => refusals.flush(all));
    await attempt(needs.log, "the audit trails' checkpoints could not be written", () => checkpoints.write());
  };
  let running = keep(false);
  const timer = setInterval(() => (running = running.then(() => keep(false))), KEEPING_MS);
  timer.unref();
  return {
    note: refusals.note,
    async close() {
      clearInterval(timer);
      await running;
      await keep(true);
    },
  };
}

async function attempt(log: DatabaseLog, failure: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    log.warn({ err: error }, failure);
  }
}

/** Also what a forger of the database's rows has before a signature is in the way. */
const KEEPING_MS = 60_000;
