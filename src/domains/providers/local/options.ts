import { availableParallelism } from "node:os";
import { z } from "zod";

/**
 * What a deployment of provider `local` may set. A change starts a process of its own.
 * Threads default to half of the cores: asking for more than are free made a first token take 15 s instead of 32 ms.
 */
export const localOptions = z.strictObject({
  /** Tokens of one request and its answer together; at most the model's context window and what it was trained for. */
  context_size: z.int().min(256).max(1_048_576).default(8192),
  /** Threads that compute. */
  threads: z
    .int()
    .min(1)
    .max(256)
    .default(() => Math.max(1, Math.floor(availableParallelism() / 2))),
  /** Requests computed at the same time; each holds memory for a whole context. */
  sequences: z.int().min(1).max(32).default(2),
  /** Resident memory at which the process is ended, MiB. Unset: twice the file and 2 GiB. */
  memory_limit_mb: z.int().min(64).max(16_777_216).optional(),
  /** Only the CPU build is installed. */
  gpu: z.literal(false).default(false),
});
