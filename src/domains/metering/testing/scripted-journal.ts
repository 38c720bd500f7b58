import type { AttemptId } from "../../../kernel/ids.ts";
import {
  type Journal,
  type JournalFault,
  type JournalHealth,
  type JournalRecord,
  JournalUnavailable,
  type RecordKind,
} from "../../../storage/journal/index.ts";
import { newId } from "./facts.ts";

/**
 * A journal whose disk a test drives: records become durable when `commit` says so, and `fail` is a disk error. As with the real
 * one, a record that a fault caught is lost, whoever waits for it hears the fault, and nothing is queued until `recover`.
 */
export class ScriptedJournal implements Journal {
  readonly id = newId();
  health: JournalHealth = "open";
  readonly #durable: JournalRecord[] = [];
  #queued: JournalRecord[] = [];
  #waiting: { sequence: number; done: (fault: JournalFault | null) => void }[] = [];
  #last = 0;
  at = 1_800_000_000_000;

  get records(): readonly JournalRecord[] {
    return this.#durable;
  }

  get pending(): number {
    return this.#queued.length;
  }

  onHealth(): void {}

  append(kind: RecordKind, attempt: AttemptId, payload: Buffer | string): number {
    if (this.health === "failed") throw new JournalUnavailable("disk error");
    this.#last += 1;
    this.#queued.push({ sequence: this.#last, kind, attempt, payload: Buffer.from(payload), at: this.at });
    return this.#last;
  }

  whenDurable(sequence: number, done: (fault: JournalFault | null) => void): void {
    if (sequence <= this.durable()) done(null);
    else this.#waiting.push({ sequence, done });
  }

  durable(): number {
    return this.#durable.at(-1)?.sequence ?? 0;
  }

  resumeAfter(): void {}

  /** Makes the oldest `count` queued records durable. */
  commit(count = this.#queued.length): void {
    this.#durable.push(...this.#queued.splice(0, count));
    const heard = this.#waiting.filter((waiter) => waiter.sequence <= this.durable());
    this.#waiting = this.#waiting.filter((waiter) => waiter.sequence > this.durable());
    for (const { done } of heard) done(null);
  }

  fail(): void {
    this.health = "failed";
    this.#queued = [];
    const heard = this.#waiting;
    this.#waiting = [];
    for (const { done } of heard) done(new JournalUnavailable("disk error"));
  }

  recover(): void {
    this.health = "open";
  }

  async read(after: number, maxRecords: number): Promise<JournalRecord[]> {
    return this.#durable.filter((record) => record.sequence > after).slice(0, maxRecords);
  }

  async release(): Promise<void> {}

  async close(): Promise<void> {}
}
