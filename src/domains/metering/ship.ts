import type { Clock } from "../../kernel/clock.ts";
import type { AttemptId, TenantId } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import type { Database } from "../../storage/database/index.ts";
import type { Journal } from "../../storage/journal/index.ts";
import { RECORD } from "../../storage/journal/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { BudgetLedger } from "./budgets/postings.ts";
import type { Recent } from "./recent.ts";
import { type Admission, encodeSettlement } from "./records.ts";
import { Attempts, type SettledAttempt, settleLost } from "./replay.ts";
import type { MeteringLog } from "./settle.ts";
import type { Settlement } from "./model.ts";
import { advanceWatermark, insertSettled, readWatermark, UsageRows } from "./store.ts";
import type { Tags } from "./tags.ts";

export interface ShipperNeeds {
  readonly journal: Journal;
  readonly database: Pick<Database, "forSystem">;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly log: MeteringLog;
  /** The tenant's keys; null once they are destroyed. Rejects when that cannot be told now. */
  readonly tags: (tenant: TenantId) => TenantKeyring | null | Promise<TenantKeyring | null>;
  readonly sealing: Tags;
  readonly recent: { readonly admissions: Recent<Admission>; readonly settlements: Recent<Settlement> };
  /** What batches are added to beside their rows. */
  readonly ledger: BudgetLedger;
  /** PostgreSQL has what was settled of these, and said so. */
  readonly shipped: (attempts: readonly AttemptId[]) => void;
}

/** How far PostgreSQL is behind the journal. */
export interface ShippingLag {
  /** Durable records not yet folded into rows. */
  readonly records: number;
  /** Attempts that are dispatched or about to be. */
  readonly openAttempts: number;
  /** Since the oldest settlement not yet shipped was made, at least, ms; 0 when none waits. */
  readonly waitingMs: number;
  /** Failures in a row. */
  readonly failures: number;
}

/**
 * Carries settled attempts from the journal to PostgreSQL, exactly once. One transaction a batch inserts usage rows and ledger entries and
 * advances the watermark: the last record before the oldest attempt that is still open. What follows it is read again after a crash, and
 * its rows meet their first copies.
 */
export class Shipper {
  readonly #needs: ShipperNeeds;
  readonly #attempts: Attempts;
  /** The last record folded. */
  #folded = 0;
  #watermark = 0;
  /** Folded, and not yet in PostgreSQL: at most a batch. */
  #batch: SettledAttempt[] = [];
  /** Of every SETTLE folded since the last batch was stored, also of those that repeat one or settle what never was admitted. */
  #settles: AttemptId[] = [];
  /** The last record that an earlier process left, what was settled for it included. */
  #recovered = 0;
  #running: Promise<number> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #waitingSince: number | null = null;
  #failures = 0;
  #closed = false;
  /** The journal may be another process's by now. */
  #gone = false;

  constructor(needs: ShipperNeeds) {
    this.#needs = needs;
    this.#attempts = new Attempts(needs.recent);
  }

  /**
   * Settles what an earlier process left open, before this one admits anything, and makes ready to ship. Returns how many
   * attempts it settled as lost. Repeated after a crash of its own it settles only what is still open.
   */
  async recover(): Promise<number> {
    const { journal, clock, log } = this.#needs;
    this.#watermark = this.#folded = await this.#needs.database.forSystem("ship", (tx) => readWatermark(tx, journal.id));
    journal.resumeAfter(this.#watermark);
    const found = new Attempts();
    for (let after = this.#watermark; ;) {
      const records = await journal.read(after, BATCH_RECORDS, BATCH_BYTES);
      for (const record of records) found.apply(record);
      const last = records.at(-1);
      if (last === undefined) break;
      after = last.sequence;
    }
    const lost = [...found.open.values()].map((open) => settleLost(open, found.lastAt, clock.now()));
    let sequence = 0;
    for (const settlement of lost) sequence = journal.append(RECORD.settle, settlement.attempt, encodeSettlement(settlement));
    if (lost.length > 0) {
      await new Promise<void>((resolve, reject) => journal.whenDurable(sequence, (fault) => (fault === null ? resolve() : reject(fault))));
      log.warn(
        { attempts: lost.length, dispatchUnknown: lost.filter((settlement) => settlement.dispatchUnknown).length },
        "an earlier process left attempts open: charged by their bounds",
      );
    }
    this.#recovered = Math.max(journal.durable(), sequence);
    this.wake();
    return lost.length;
  }

  /** Something was settled: ships soon, with whatever else is settled by then. */
  wake(): void {
    this.#waitingSince ??= this.#needs.clock.monotonic();
    this.#timer ??= this.#closed
      ? null
      : setTimeout(this.#onTimer, this.#failures === 0 ? SHIP_DELAY_MS : backoffMs(this.#failures)).unref();
  }

  /** Ships everything that is durable now. Rejects when PostgreSQL cannot take it; nothing is lost by that. */
  async flush(): Promise<void> {
    const target = this.#needs.journal.durable();
    while (this.#folded < target || this.#batch.length > 0) {
      // A run that began before this call may have read less than the target.
      if (this.#running !== null) await this.#running;
      else if ((await this.#ship()) === 0) break;
    }
  }

  /**
   * Runs `work` while nothing is being shipped and nothing is half shipped; before it, ships what an earlier process left, or everything that is
   * durable now. Rejects as `work` does, and when PostgreSQL cannot take what comes first.
   */
  async between<T>(first: "recovered" | "everything", work: () => Promise<T>): Promise<T> {
    const through = first === "everything" ? this.#needs.journal.durable() : this.#recovered;
    for (;;) {
      if (this.#running !== null) await this.#running.catch(ignore);
      else if (this.#folded >= through && this.#batch.length === 0) break;
      else if ((await this.#ship()) === 0) break;
    }
    const working = work();
    const running = working.then(nothingMoved, nothingMoved).finally(() => {
      this.#running = null;
    });
    this.#running = running;
    return working;
  }

  /** Whether everything that was settled is in PostgreSQL, and nothing is open. */
  get isEmpty(): boolean {
    return this.#attempts.open.size === 0 && this.#batch.length === 0 && this.#folded >= this.#needs.journal.durable();
  }

  /** Ships what it can in CLOSE_WAIT_MS and stops: a PostgreSQL that hangs does not keep the process from ending. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new Error(`PostgreSQL did not take them within ${CLOSE_WAIT_MS} ms`)), CLOSE_WAIT_MS);
    await Promise.race([this.flush(), late]).catch((error: unknown) =>
      this.#needs.log.warn({ err: error }, "settlements wait in the journal for the next start"),
    );
    clearTimeout(timer);
    this.#gone = true;
  }

  lag(): ShippingLag {
    return {
      records: Math.max(0, this.#needs.journal.durable() - this.#folded),
      openAttempts: this.#attempts.open.size,
      waitingMs: this.#waitingSince === null ? 0 : this.#needs.clock.monotonic() - this.#waitingSince,
      failures: this.#failures,
    };
  }

  readonly #onTimer = (): void => {
    this.#timer = null;
    this.flush().then(
      () => {
        if (this.#folded < this.#needs.journal.durable()) this.wake();
      },
      (error: unknown) => {
        if (this.#failures === 1)
          this.#needs.log.warn({ err: error }, "settlements cannot be shipped: they stay in the journal and are tried again");
        this.wake();
      },
    );
  };

  /** One batch at a time, whoever asks. */
  #ship(): Promise<number> {
    return (this.#running ??= this.#shipBatch().finally(() => {
      this.#running = null;
    }));
  }

  /** Returns how many records and rows it moved. */
  async #shipBatch(): Promise<number> {
    const before = this.#folded - this.#batch.length;
    const waitingSince = this.#needs.clock.monotonic();
    try {
      if (this.#batch.length === 0) await this.#fold();
      await this.#store();
    } catch (error) {
      this.#failures += 1;
      throw error;
    }
    if (this.#failures > 0) this.#needs.log.info({ failures: this.#failures }, "settlements are shipped again");
    this.#failures = 0;
    this.#waitingSince = this.#folded < this.#needs.journal.durable() ? waitingSince : null;
    return this.#folded - before;
  }

  async #fold(): Promise<void> {
    const records = await this.#needs.journal.read(this.#folded, BATCH_RECORDS, BATCH_BYTES);
    for (const record of records) {
      const settled = this.#attempts.apply(record);
      if (settled !== null) this.#batch.push(settled);
      if (record.kind === RECORD.settle) this.#settles.push(record.attempt);
      this.#folded = record.sequence;
    }
  }

  async #store(): Promise<void> {
    const { journal, database, clock } = this.#needs;
    const oldest = this.#attempts.oldestOpen();
    const watermark = oldest === null ? this.#folded : oldest - 1;
    if (this.#batch.length === 0 && watermark <= this.#watermark) return;
    const rows = await this.#rows();
    const at = new Date(clock.now());
    await database.forSystem("ship", async (tx) => {
      if (this.#batch.length > 0) await insertSettled(tx, rows, at, this.#needs.ledger);
      await advanceWatermark(tx, journal.id, watermark, at);
    });
    this.#needs.shipped(this.#settles);
    this.#settles = [];
    this.#batch = [];
    this.#watermark = watermark;
    if (!this.#gone) await journal.release(watermark);
  }

  async #rows() {
    const keyrings = new Map<TenantId, TenantKeyring | null>();
    for (const { admission } of this.#batch) {
      const { tenant } = admission.facts;
      if (!keyrings.has(tenant)) keyrings.set(tenant, await this.#needs.tags(tenant));
    }
    const rows = new UsageRows(this.#needs.journal.id, this.#needs.sealing);
    for (const settled of this.#batch) rows.add(settled, keyrings.get(settled.admission.facts.tenant) ?? null);
    return rows;
  }
}

const ignore = (): void => {};
const nothingMoved = (): number => 0;

function backoffMs(failures: number): number {
  return Math.min(FIRST_BACKOFF_MS * 2 ** (failures - 1), LONGEST_BACKOFF_MS);
}

/** Long enough that a busy process ships hundreds of attempts a transaction, short enough to be in a report within 0.2 s. */
const SHIP_DELAY_MS = 100;
const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 5_000;
const CLOSE_WAIT_MS = 5_000;
const BATCH_RECORDS = 2_000;
const BATCH_BYTES = 4 * 1024 * 1024;
