import { setTimeout } from "node:timers/promises";
import { Problem } from "../../kernel/problem.ts";
import { DatabaseUnavailable } from "../../storage/database/index.ts";

/**
 * Runs a transaction again when PostgreSQL undid it for meeting another one: two writers of one new name, or a deadlock.
 * The second try sees what the first writer left, so two equal upserts both succeed. Throws `conflict` when it keeps losing.
 */
export async function withRetries<T>(transaction: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await transaction();
    } catch (error) {
      if (!COLLISIONS.has(sqlStateOf(error))) throw error;
      if (attempt === TRANSACTION_ATTEMPTS)
        throw new Problem("conflict", { message: "Another request is changing the same thing. Send it again.", cause: error });
      await setTimeout(attempt * RETRY_PAUSE_MS);
    }
  }
}

/** Throws `overloaded` where PostgreSQL is away. */
export async function whileAvailable<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof DatabaseUnavailable) throw new Problem("overloaded", { retryAfterSeconds: AWAY_RETRY_SECONDS, cause: error });
    throw error;
  }
}

const TRANSACTION_ATTEMPTS = 4;
const RETRY_PAUSE_MS = 5;
const AWAY_RETRY_SECONDS = 2;

/** unique_violation, serialization_failure, deadlock_detected. */
const COLLISIONS: ReadonlySet<unknown> = new Set(["23505", "40001", "40P01"]);

function sqlStateOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : null;
}
