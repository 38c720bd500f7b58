/**
 * The journal cannot make a record durable. From `append` it means nothing was queued; from `whenDurable` it means the
 * record's fate is unknown: it may still be read after a restart.
 */
export class JournalUnavailable extends Error {
  override readonly name = "JournalUnavailable";
  readonly reason: UnavailableReason;

  constructor(reason: UnavailableReason, cause?: unknown) {
    super(SENTENCES[reason], cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}

/** What a waiter for durability is told when it cannot be had. */
export type JournalFault = JournalUnavailable;

export type UnavailableReason = keyof typeof SENTENCES;

const SENTENCES = {
  "disk full": "the journal's disk is full",
  "disk error": "the journal's disk reported an error",
  "queue full": "more is waiting for the journal's disk than its queue may hold",
  "backlog full": "the journal holds as many unshipped segments as it may",
  closed: "the journal is closed",
} as const;

/** The fault for an error of the file system. */
export function diskFault(error: unknown): JournalUnavailable {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return new JournalUnavailable(code === "ENOSPC" || code === "EDQUOT" ? "disk full" : "disk error", error);
}

/** Bytes that were reported durable are not what was written. Nothing is dropped to get past it. */
export class JournalCorrupt extends Error {
  override readonly name = "JournalCorrupt";
  readonly file: string;
  readonly offset: number;

  constructor(file: string, offset: number, finding: string) {
    super(
      `journal file ${file} is damaged at byte ${offset}: ${finding}. Restore the file; or move the whole directory aside, ` +
        "which starts a new journal under a new identity and leaves the unshipped records of this one uncharged",
    );
    this.file = file;
    this.offset = offset;
  }
}

/** Another process writes this journal. */
export class JournalLocked extends Error {
  override readonly name = "JournalLocked";
  readonly directory: string;

  constructor(directory: string, holder: string) {
    super(`the journal in ${directory} is in use by ${holder}; give each process a journal directory of its own`);
    this.directory = directory;
  }
}
