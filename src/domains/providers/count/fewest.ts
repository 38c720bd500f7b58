import type { Encoding } from "./count.ts";

/**
 * The fewest tokens of a vocabulary that a text can be of, or the beginning of. However a model cut what it wrote, and wherever the text was cut
 * off, it wrote at least so many: a count that an upstream can be stopped by. The tokenizer's own cutting is seldom longer, but
 * nothing makes a model keep to it.
 */
export class Vocabulary {
  /** A trie of bytes; node 0 is the root. A node's children are linked, the first from `#child`, each to the next from `#sibling`. */
  readonly #child: Int32Array;
  readonly #sibling: Int32Array;
  readonly #byte: Uint8Array;
  readonly #isToken: Uint8Array;
  /** The root's children, by their byte. */
  readonly #roots = new Int32Array(256);

  constructor(tokens: readonly (string | readonly number[])[]) {
    const spelled = tokens.map((token) => (typeof token === "string" ? Buffer.from(token) : Uint8Array.from(token)));
    const most = 1 + spelled.reduce((sum, { length }) => sum + length, 0);
    this.#child = new Int32Array(most);
    this.#sibling = new Int32Array(most);
    this.#byte = new Uint8Array(most);
    this.#isToken = new Uint8Array(most);
    let nodes = 1;
    for (const bytes of spelled) {
      let node = 0;
      for (const byte of bytes) {
        let next = this.#step(node, byte);
        if (next === 0) {
          next = nodes++;
          this.#byte[next] = byte;
          if (node === 0) this.#roots[byte] = next;
          else {
            this.#sibling[next] = this.#child[node] as number;
            this.#child[node] = next;
          }
        }
        node = next;
      }
      this.#isToken[node] = 1;
    }
  }

  /**
   * Where bytes could not be decoded, a token may have had any of what is beside them, and how many characters it shows as is the
   * server's choice: what a token can reach from there counts as none.
   */
  fewest(text: string): number {
    const pieces = text.split("\ufffd");
    return pieces.reduce((sum, piece, index) => sum + this.#fewest(Buffer.from(piece), index > 0, index < pieces.length - 1), 0);
  }

  #fewest(bytes: Buffer, isCutBefore: boolean, isCutAfter: boolean): number {
    const fewest = new Int32Array(bytes.length + 1).fill(bytes.length);
    fewest.fill(0, 0, isCutBefore ? LONGEST_TOKEN : 1);
    for (let from = 0; from < bytes.length; from++) {
      const here = (fewest[from] as number) + 1;
      for (let node = 0, at = from; at < bytes.length;) {
        node = this.#step(node, bytes[at++] as number);
        if (node === 0) break;
        const isToken = this.#isToken[node] === 1 || at === bytes.length;
        if (isToken && here < (fewest[at] as number)) fewest[at] = here;
      }
    }
    return fewest.subarray(isCutAfter ? -LONGEST_TOKEN : -1).reduce((least, tokens) => Math.min(least, tokens));
  }

  #step(node: number, byte: number): number {
    if (node === 0) return this.#roots[byte] as number;
    let next = this.#child[node] as number;
    while (next !== 0 && this.#byte[next] !== byte) next = this.#sibling[next] as number;
    return next;
  }
}

/** Bytes: a token of either vocabulary has at most 128. */
const LONGEST_TOKEN = 128;

export async function loadVocabulary(encoding: Encoding): Promise<Vocabulary> {
  const { default: tokens } =
    encoding === "o200k_base" ? await import("gpt-tokenizer/bpeRanks/o200k_base") : await import("gpt-tokenizer/bpeRanks/cl100k_base");
  return new Vocabulary(tokens);
}
