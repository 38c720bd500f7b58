/**
 * A Prometheus histogram with one label. An observation is a few comparisons and three additions, where prom-client's hashes its labels
 * and makes objects of them each time: 2.5 µs a call.
 */
export class Histogram {
  readonly #name: string;
  readonly #help: string;
  readonly #label: string;
  /** Upper bounds, rising. */
  readonly #buckets: readonly number[];
  readonly #observed = new Map<string, Observed>();

  constructor(about: { readonly name: string; readonly help: string; readonly label: string; readonly buckets: readonly number[] }) {
    this.#name = about.name;
    this.#help = about.help;
    this.#label = about.label;
    this.#buckets = about.buckets;
  }

  /** Where observations of that label value are counted. Label values come from a catalog, so they are few, and need no escape. */
  of(value: string): Observed {
    let observed = this.#observed.get(value);
    if (observed === undefined) this.#observed.set(value, (observed = new Observed(this.#buckets)));
    return observed;
  }

  /** Prometheus text format. */
  render(): string {
    const lines = [`# HELP ${this.#name} ${this.#help}`, `# TYPE ${this.#name} histogram`];
    for (const [value, { counts, sum }] of this.#observed) {
      const label = `${this.#label}="${value}"`;
      let count = 0;
      counts.forEach((each, index) => {
        count += each;
        lines.push(`${this.#name}_bucket{le="${this.#buckets[index] ?? "+Inf"}",${label}} ${count}`);
      });
      lines.push(`${this.#name}_sum{${label}} ${sum}`, `${this.#name}_count{${label}} ${count}`);
    }
    return `${lines.join("\n")}\n`;
  }
}

class Observed {
  /** Observations of each bucket that no smaller one holds; the last are beyond all bounds. */
  readonly counts: Float64Array;
  sum = 0;
  readonly #buckets: readonly number[];

  constructor(buckets: readonly number[]) {
    this.#buckets = buckets;
    this.counts = new Float64Array(buckets.length + 1);
  }

  observe(value: number): void {
    let bucket = 0;
    while (bucket < this.#buckets.length && value > (this.#buckets[bucket] as number)) bucket++;
    this.counts[bucket] = (this.counts[bucket] as number) + 1;
    this.sum += value;
  }
}
