import type { Dialect, Frame } from "../../kernel/frame.ts";
import type { Counted } from "./decide.ts";
import { Tally, type TextSink } from "./passed.ts";

/** Counts text as a model's tokenizer does, elsewhere than on the event loop. Texts are as they stood in JSON, between the quotes, each ended by the byte 0xff. */
export interface TextCounter<Encoding extends string = string> {
  /** By an upstream's name for a model; null where its tokenizer is not known. */
  encodingOf(upstreamModel: string): Encoding | null;
  /** Their tokens. Rejects where it cannot say. */
  count(encoding: Encoding, texts: Buffer): Promise<number>;
  /** The fewest tokens that can spell them: whatever the model did, it wrote at least so many. */
  fewest(encoding: Encoding, texts: Buffer): Promise<number>;
}

/** Tokens of an attempt's prompt, asked for only where its provider does not say; null where they cannot be counted. */
export type PromptCounter = () => Promise<number> | null;

/** What is counted in time: a call's slot and hold wait for it. `factor`: how many times its text the output is. Never rejects. */
export async function countWithin(
  counting: { readonly input: Promise<number> | null; readonly output: Promise<number> | null },
  factor: number,
): Promise<Counted> {
  const { promise: late, resolve: giveUp } = Promise.withResolvers<null>();
  const timer = setTimeout(giveUp, COUNT_WAIT_MS, null);
  const inTime = (count: Promise<number> | null) => (count === null ? null : Promise.race([count.catch(() => null), late]));
  const [input, output] = await Promise.all([inTime(counting.input), inTime(counting.output)]);
  clearTimeout(timer);
  return { input, output: output === null ? null : Math.ceil(output * factor) };
}

/** Shorter than the second in which a call that has ended must give back what it holds. Loading a tokenizer takes 0.3 s. */
const COUNT_WAIT_MS = 800;

/**
 * What a model wrote in a stream so far, kept in memory while the stream lasts, so that it can be counted should its provider never say. Frames
 * are kept as they are and read for their text once they are many: most streams end before, or report their usage, and cost a reference a frame.
 */
export class KeptText {
  readonly #wire: Dialect | null;
  #frames: Frame[] = [];
  #frameBytes = 0;
  #lanes = new Lanes();

  constructor(wire: Dialect | null) {
    this.#wire = wire;
  }

  add(frame: Frame): void {
    this.#frames.push(frame);
    this.#frameBytes += frame.bytes.length;
    if (this.#frameBytes > MAX_FRAME_BYTES || this.#frames.length > MAX_FRAMES) this.#read();
  }

  /** All so far has been accounted for otherwise. */
  clear(): void {
    this.#frames = [];
    this.#frameBytes = 0;
    if (!this.#lanes.isEmpty) this.#lanes = new Lanes();
  }

  /** One text a choice, and how many times as long as they are all that was written is: more than 1 where it did not fit. */
  texts(): { readonly texts: Buffer; readonly factor: number } {
    this.#read();
    return this.#lanes.texts();
  }

  #read(): void {
    const tally = new Tally(this.#lanes);
    for (const frame of this.#frames) tally.add(frame, this.#wire);
    this.#frames = [];
    this.#frameBytes = 0;
  }
}

/** The texts of the answers that a stream interleaves. */
export class Lanes implements TextSink {
  readonly #lanes: Lane[] = [];
  #written = 0;
  #kept = 0;

  get isEmpty(): boolean {
    return this.#written === 0;
  }

  take(choice: number, bytes: Buffer, from: number, to: number): void {
    this.#written += to - from;
    if (this.#kept + to - from > MAX_TEXT_BYTES) return;
    this.#kept += to - from;
    (this.#lanes[Math.min(choice, MAX_LANES - 1)] ??= new Lane()).append(bytes, from, to);
  }

  texts(): { readonly texts: Buffer; readonly factor: number } {
    // Sparse where a choice has written nothing.
    const texts = Buffer.concat(this.#lanes.filter((lane) => lane !== undefined).flatMap((lane) => [lane.bytes(), END]));
    return { texts, factor: this.#kept === 0 ? 1 : this.#written / this.#kept };
  }
}

class Lane {
  #bytes = Buffer.allocUnsafe(FIRST_LANE_BYTES);
  #length = 0;

  append(bytes: Buffer, from: number, to: number): void {
    const length = this.#length + to - from;
    if (length > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(length, this.#bytes.length * 2));
      this.#bytes.copy(grown, 0, 0, this.#length);
      this.#bytes = grown;
    }
    bytes.copy(this.#bytes, this.#length, from, to);
    this.#length = length;
  }

  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** A byte that no UTF-8 has. */
const END = Buffer.of(0xff);
/** About 160 tokens as providers frame them; of providers without a wire, whose frames have no bytes, as many frames. */
const MAX_FRAME_BYTES = 32 * 1024;
const MAX_FRAMES = 256;
/** Of one stream: more than any model's longest answer, 128,000 tokens of English. Beyond it the rest is taken to be as dense. */
const MAX_TEXT_BYTES = 1024 * 1024;
const FIRST_LANE_BYTES = 1024;
/** OpenAI takes `n` up to 128; what is beyond shares one. */
const MAX_LANES = 128;
