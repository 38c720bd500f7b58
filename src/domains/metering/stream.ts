import { BOUNDS } from "../../kernel/bounds.ts";
import type { Dialect, Ending, Frame, FrameSink, FrameStream } from "../../kernel/frame.ts";
import { Problem } from "../../kernel/problem.ts";
import { outputTokens, type Usage } from "../../kernel/tokens.ts";
import { type Journal, type JournalFault, RECORD } from "../../storage/journal/index.ts";
import type { Clock } from "../../kernel/clock.ts";
import { countAtBound, type Counted, countSince, countUsage, FIRST_MARK_STEP, LARGEST_MARK_STEP, nextMark, UNCOUNTED } from "./decide.ts";
import { type Held, overloaded } from "./hold.ts";
import { countWithin, KeptText, type PromptCounter, type TextCounter } from "./kept.ts";
import type { AttemptStatus, Settlement } from "./model.ts";
import { Tally } from "./passed.ts";
import { encodeMark } from "./records.ts";
import type { Settler } from "./settle.ts";

export interface MeterNeeds {
  readonly journal: Journal;
  readonly clock: Clock;
  readonly settler: Settler;
  /** A stream has begun; `usage` says what it has used by then. */
  readonly begun?: (held: Held, usage: () => Usage) => void;
  /** Absent where nothing is counted but by its bytes. */
  readonly counter?: TextCounter;
}

/** Called once, when the caller's side of the stream has ended. */
export type OnSettled = (settlement: Settlement, ending: Ending) => void;

/**
 * The meter of one stream: a sink for the upstream, a stream for the caller. Frames go on once the journal holds a mark for
 * them; from the frame with the end on, once it holds the SETTLE. While frames wait the upstream is paused.
 */
export class MeteredStream implements FrameStream, FrameSink {
  readonly #upstream: FrameStream;
  readonly #wire: Dialect | null;
  readonly #held: Held;
  readonly #needs: MeterNeeds;
  readonly #prompt: PromptCounter;
  readonly #onSettled: OnSettled;

  #sink: FrameSink | null = null;
  #piped = false;
  readonly #tally = new Tally();
  /** The last usage that the upstream reported, and the tally when it did. */
  #usage: Usage | null = null;
  #usageFrames = 0;
  #usageBytes = 0;
  /** Whether it came with or after an answer's end, and so is of all of it. */
  #usageIsFinal = false;
  #choiceEnded = false;
  #modelServed: string | null = null;
  #firstTokenMs: number | null = null;
  /** Since the last report; null where no tokenizer could count it. */
  readonly #kept: KeptText | null;
  readonly #encoding: string | null;
  /** A look at whether the answer has passed its bound: under way, and not again before so many bytes. */
  #isLooking = false;
  #nextLookBytes = 0;
  #isOverBound = false;

  /** The highest durable mark, and the one on its way to the disk, or null. */
  #mark = 0;
  #pendingMark: number | null = null;
  #step = FIRST_MARK_STEP;

  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #pausedByCaller = false;
  #pausedByUs = false;

  #settling = false;
  #settlement: Settlement | null = null;
  /** The SETTLE is durable, or the journal could not keep it. */
  #settleAnswered = false;
  /** How the upstream ended; null while it has not. */
  #ending: Ending | null = null;
  /** Why nothing more goes to the caller, who has not been told yet. */
  #cut: Ending | null = null;
  #ended = false;

  constructor(
    { stream, wire }: { readonly stream: FrameStream; readonly wire: Dialect | null },
    held: Held,
    needs: MeterNeeds,
    prompt: PromptCounter,
    onSettled: OnSettled,
  ) {
    this.#upstream = stream;
    this.#wire = wire;
    this.#held = held;
    this.#needs = needs;
    this.#prompt = prompt;
    this.#onSettled = onSettled;
    this.#encoding = needs.counter?.encodingOf(held.facts.upstreamModel) ?? null;
    this.#kept = this.#encoding === null ? null : new KeptText(wire);
  }

  pipe(sink: FrameSink): void {
    this.#sink = sink;
    if (this.#ended) sink.end(ABORTED);
    else if (!this.#piped) this.#start();
  }

  pause(): void {
    this.#pausedByCaller = true;
    this.#upstream.pause();
  }

  resume(): void {
    this.#pausedByCaller = false;
    if (!this.#pausedByUs) this.#upstream.resume();
  }

  abort(): void {
    if (this.#ended || this.#cut !== null) return;
    this.#stop(ABORTED);
    if (!this.#piped) this.#start();
    this.#upstream.abort();
    this.#endIfDone();
  }

  frames(frames: readonly Frame[]): void {
    this.#firstTokenMs ??= Math.round(this.#needs.clock.monotonic() - this.#held.heldAt);
    const last = this.#observe(frames);
    if (last === -1 && this.#tally.atMost > this.#held.facts.bound.output) this.#watchBound();
    if (this.#cut !== null) return;
    if (last === -1) this.#take(frames);
    else {
      if (last > 0) this.#take(frames.slice(0, last));
      this.#hold(last > 0 ? frames.slice(last) : frames, UNTIL_SETTLED);
      this.#settle("completed");
    }
  }

  end(ending: Ending): void {
    // An upstream that broke off after it had said that the response is whole has still answered wholly.
    this.#ending = this.#settling ? COMPLETE : ending;
    this.#settle(
      ending.kind === "complete" ? "completed" : ending.kind === "truncated" || this.#cut?.kind === "truncated" ? "truncated" : "aborted",
    );
    this.#endIfDone();
  }

  #start(): void {
    this.#piped = true;
    this.#needs.begun?.(this.#held, this.#usedSoFar);
    this.#upstream.pipe(this);
  }

  /** Tallies the frames; returns the index of the one that ends the response, or -1. */
  #observe(frames: readonly Frame[]): number {
    for (let index = 0; index < frames.length; index++) {
      const frame = frames[index] as Frame;
      this.#tally.add(frame, this.#wire);
      this.#kept?.add(frame);
      if ((frame.notable || this.#modelServed === null) && this.#read(frame)) return index;
    }
    return -1;
  }

  /** Takes what a frame says besides output; true when it says that the response is whole. */
  #read(frame: Frame): boolean {
    let whole = false;
    this.#modelServed ??= this.#held.facts.upstreamModel;
    for (const event of frame.events()) {
      if (event.type === "choice-end") this.#choiceEnded = true;
      else if (event.type === "usage") this.#report(event.usage);
      else if (event.type === "response-start") this.#modelServed = event.model;
      else if (event.type === "response-end") whole = true;
    }
    return whole;
  }

  #report(usage: Usage): void {
    this.#usage = usage;
    this.#usageIsFinal = this.#choiceEnded;
    this.#usageFrames = this.#tally.outputFrames;
    this.#usageBytes = this.#tally.outputBytes;
    this.#kept?.clear();
  }

  /** What was reported: of a whole answer at its end, else with what came since. */
  #used(status: AttemptStatus, by: Counted): Usage {
    const { outputFrames, outputBytes } = this.#tally;
    const { bound } = this.#held.facts;
    if (this.#isOverBound) return countAtBound(this.#usage, bound, by);
    if (this.#usage === null) return countUsage(this.#tally, bound, by);
    if (status === "completed" && this.#usageIsFinal) return this.#usage;
    const since = { outputFrames: outputFrames - this.#usageFrames, outputBytes: outputBytes - this.#usageBytes };
    return countSince(this.#usage, since, bound, by);
  }

  readonly #usedSoFar = (): Usage => this.#used("aborted", UNCOUNTED);

  /** Null where no tokenizer is known. */
  #count(): Promise<Counted> | null {
    if (this.#encoding === null || this.#kept === null) return null;
    const { texts, factor } = this.#kept.texts();
    const output = this.#isOverBound || texts.length === 0 ? null : (this.#needs.counter?.count(this.#encoding, texts) ?? null);
    return countWithin({ input: this.#usage === null ? this.#prompt() : null, output }, factor);
  }

  /**
   * Stops an answer that has surely passed its bound: by its provider's word, or because no fewer tokens than its text has can spell it. One within
   * its bound is never stopped, and seldom looked at: it has more frames than tokens, or six bytes and more a token.
   */
  #watchBound(): void {
    const { output } = this.#held.facts.bound;
    if (this.#choiceEnded || this.#settling || this.#cut !== null) return;
    if (this.#usage !== null && outputTokens(this.#usage.tokens) > output) return this.#stopAtBound(output);
    if (this.#usage !== null || this.#encoding === null || this.#kept === null || this.#isLooking) return;
    const { outputFrames, outputBytes } = this.#tally;
    if (outputBytes < this.#nextLookBytes || (outputFrames <= output + SPARE_FRAMES && outputBytes <= output * LOOK_BYTES_PER_TOKEN))
      return;
    this.#isLooking = true;
    this.#nextLookBytes = outputBytes * NEXT_LOOK;
    const seen = () => (this.#isLooking = false);
    this.#needs.counter?.fewest(this.#encoding, this.#kept.texts().texts).then((tokens) => {
      seen();
      if (tokens > output && !this.#choiceEnded) this.#stopAtBound(output);
    }, seen);
  }

  /** The caller is told: an end that looks like the model's own would claim that the answer is as long as was asked. */
  #stopAtBound(tokens: number): void {
    if (this.#settling || this.#cut !== null) return;
    this.#isOverBound = true;
    const message = `The model wrote on past the limit of ${tokens} output tokens, and was stopped.`;
    this.#fail(new Problem("upstream_error", { message }));
  }

  #take(frames: readonly Frame[]): void {
    const needed = Math.min(this.#tally.atMost, this.#held.facts.bound.output);
    this.#markAhead(needed);
    if (this.#cut !== null) return;
    if (this.#waiting.length > 0 || needed > this.#mark) this.#hold(frames, needed);
    else this.#sink?.frames(frames);
  }

  /** Writes the next mark when less than half a step is left, so that frames seldom wait for one. */
  #markAhead(needed: number): void {
    const { bound, attempt } = this.#held.facts;
    if (this.#pendingMark !== null || this.#settling || this.#cut !== null) return;
    if (this.#mark >= bound.output || needed + this.#step / 2 < this.#mark) return;
    const mark = nextMark(needed, this.#step, bound);
    this.#step = Math.min(this.#step * 2, LARGEST_MARK_STEP);
    this.#pendingMark = mark;
    let sequence: number;
    try {
      sequence = this.#needs.journal.append(RECORD.progress, attempt, encodeMark(mark));
    } catch (fault) {
      this.#fail(overloaded(fault));
      return;
    }
    this.#needs.journal.whenDurable(sequence, this.#onMarked);
  }

  readonly #onMarked = (fault: JournalFault | null): void => {
    if (fault !== null) return this.#fail(overloaded(fault));
    this.#mark = this.#pendingMark as number;
    this.#pendingMark = null;
    this.#release();
    const next = this.#waiting[0];
    if (next !== undefined && next.needed !== UNTIL_SETTLED) this.#markAhead(next.needed);
  };

  #hold(frames: readonly Frame[], needed: number): void {
    if (this.#cut !== null) return;
    this.#waiting.push({ frames, needed });
    for (const frame of frames) this.#waitingBytes += frame.bytes.length;
    if (this.#waitingBytes > MAX_WAITING_BYTES) return this.#fail(overloaded("more frames wait for the journal than may"));
    if (this.#pausedByUs) return;
    this.#pausedByUs = true;
    this.#upstream.pause();
  }

  /** Sends on the frames that the journal now covers. */
  #release(): void {
    for (let next = this.#waiting[0]; next !== undefined && (next.needed <= this.#mark || this.#settleAnswered); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#sink?.frames(next.frames);
    }
    if (this.#waiting.length > 0 || !this.#pausedByUs || this.#cut !== null) return;
    this.#waitingBytes = 0;
    this.#pausedByUs = false;
    if (!this.#pausedByCaller) this.#upstream.resume();
  }

  #settle(status: AttemptStatus): void {
    if (this.#settling) return;
    this.#settling = true;
    const usage = this.#used(status, UNCOUNTED);
    const counting = usage.source === "counted" ? this.#count() : null;
    if (counting === null) this.#write(status, usage);
    else void counting.then((by) => this.#write(status, this.#used(status, by)));
  }

  #write(status: AttemptStatus, usage: Usage): void {
    const outcome = { status, usage, modelServed: this.#modelServed, firstTokenMs: this.#firstTokenMs };
    this.#settlement = this.#needs.settler.settle(this.#held, outcome, (fault) => this.#onSettleAnswered(fault));
    this.#endIfDone();
  }

  #onSettleAnswered(fault: JournalFault | null): void {
    this.#settleAnswered = true;
    if (fault === null) this.#release();
    else this.#fail(overloaded(fault));
    this.#endIfDone();
  }

  /** The journal failed under the stream: the caller gets no more, and no clean end. */
  #fail(problem: Problem): void {
    if (this.#ended || this.#cut !== null) return;
    this.#stop({ kind: "truncated", problem });
    this.#upstream.abort();
    this.#endIfDone();
  }

  #stop(cut: Ending): void {
    this.#cut = cut;
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  /** Ends the caller's side once the upstream has ended and the SETTLE is durable (or cannot be). */
  #endIfDone(): void {
    if (this.#ended || !this.#settleAnswered || this.#settlement === null || this.#ending === null) return;
    this.#ended = true;
    const ending = this.#cut ?? this.#ending;
    this.#sink?.end(ending);
    this.#onSettled(this.#settlement, ending);
  }
}

interface Waiting {
  readonly frames: readonly Frame[];
  /** The mark they wait for. */
  readonly needed: number;
}

const UNTIL_SETTLED = Number.POSITIVE_INFINITY;
const ABORTED: Ending = { kind: "aborted" };
const COMPLETE: Ending = { kind: "complete" };
/** A provider that sends a token a frame sends a few more that are none. */
const SPARE_FRAMES = 16;
/** English has about 4.5, and no language much more. */
const LOOK_BYTES_PER_TOKEN = 6;
/** A look takes about 1 µs a byte of the counting thread. */
const NEXT_LOOK = 1.125;
/** An upstream is paused as soon as a frame waits; what it had read may still come: at most one frame and a buffer. */
const MAX_WAITING_BYTES = BOUNDS.frameBytes + BOUNDS.streamBufferBytes;
