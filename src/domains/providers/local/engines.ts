import type { Clock } from "../../../kernel/clock.ts";
import { Engine, type EngineSpec, type Log } from "./engine.ts";
import type { ModelFile } from "./model-file.ts";

/** The engines of one server: one for each file and set of options, few at a time. */
export class Engines {
  readonly #clock: Clock;
  readonly #log: Log;
  /** In order of last use. */
  readonly #engines = new Map<string, Engine>();

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  /** The engine for this file and these options; null when as many as may run are all at work. */
  for(file: ModelFile, spec: EngineSpec): Engine | null {
    const key = JSON.stringify([file.identity, spec]);
    const known = this.#engines.get(key);
    if (known === undefined && !this.#makeRoom()) return null;
    const engine = known ?? new Engine(spec, this.#clock, this.#log);
    this.#engines.delete(key);
    this.#engines.set(key, engine);
    return engine;
  }

  /** Process ids of the children that live now. */
  get pids(): readonly number[] {
    return [...this.#engines.values()].flatMap((engine) => (engine.pid === null ? [] : [engine.pid]));
  }

  async close(): Promise<void> {
    await Promise.all([...this.#engines.values()].map((engine) => engine.close()));
  }

  #makeRoom(): boolean {
    if (this.#engines.size < ENGINES_AT_MOST) return true;
    for (const [key, engine] of this.#engines) {
      if (!engine.idle) continue;
      this.#engines.delete(key);
      void engine.close();
      return true;
    }
    return false;
  }
}

/** Each holds a whole model in memory. */
const ENGINES_AT_MOST = 4;
