import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { Ending, Frame } from "../../kernel/frame.ts";
import { EventFrame, FramePipe } from "./frames.ts";

type Step = "push" | "pipe" | "end" | "abort" | "pause" | "resume";

test("whatever the order of pushes, pauses, aborts and the pipe, also from inside the sink, a stream ends once, never overlaps and loses nothing before an abort", () => {
  const step = fc.constantFrom<Step>("push", "push", "push", "pipe", "end", "abort", "pause", "resume");
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 15 }),
      fc.array(fc.constantFrom<Step>("push", "abort", "pause", "resume", "end"), { maxLength: 4 }),
      (outside, inside) => {
        const world = new World(inside);
        for (const action of outside) world.act(action);
        if (!world.piped) world.act("pipe");
        world.act("end");
        assert.deepEqual(world.faults, []);
        assert.equal(world.endings.length, 1);
        const isAborted = world.endings[0]?.kind === "aborted";
        assert.equal(world.stops, isAborted ? 1 : 0);
        if (!isAborted) assert.deepEqual(world.got, world.pushed);
        else assert.deepEqual(world.got, world.pushed.slice(0, world.got.length));
      },
    ),
    { numRuns: 5000 },
  );
});

test("before the pipe a stream holds a bounded number of bytes, then pauses its source until the pipe", () => {
  const calls: string[] = [];
  const pipe = new FramePipe({ pause: () => calls.push("pause"), resume: () => calls.push("resume"), stop: () => calls.push("stop") });
  const half: Frame = { bytes: Buffer.alloc(BOUNDS.streamBufferBytes / 2 + 1), notable: false, events: () => [] };
  pipe.push([half]);
  assert.deepEqual(calls, []);
  pipe.push([half]);
  assert.deepEqual(calls, ["pause"]);
  pipe.pipe({ frames: () => undefined, end: () => undefined });
  assert.deepEqual(calls, ["pause", "resume"]);
});

class World {
  readonly pipe: FramePipe;
  readonly pushed: Frame[] = [];
  readonly got: Frame[] = [];
  readonly endings: Ending[] = [];
  readonly faults: string[] = [];
  readonly #inside: Step[];
  stops = 0;
  piped = false;
  #busy = false;

  constructor(inside: readonly Step[]) {
    this.#inside = [...inside];
    this.pipe = new FramePipe({ pause: () => undefined, resume: () => undefined, stop: () => void this.stops++ });
  }

  act(step: Step): void {
    if (step === "push") return this.#push();
    if (step === "end") return this.pipe.end({ kind: "complete" });
    if (step === "abort") return this.pipe.abort();
    if (step === "pause") return this.pipe.pause();
    if (step === "resume") return this.pipe.resume();
    if (this.piped) return;
    this.piped = true;
    this.pipe.pipe({ frames: (frames) => this.#receive(frames), end: (ending) => this.#end(ending) });
  }

  #push(): void {
    const frame = new EventFrame([{ type: "text-delta", choice: 0, text: "x" }]);
    if (!this.pipe.ended) this.pushed.push(frame);
    this.pipe.push([frame]);
  }

  #receive(frames: readonly Frame[]): void {
    if (this.#busy || this.endings.length > 0 || frames.length === 0) this.faults.push("frames");
    this.got.push(...frames);
    this.#busy = true;
    const step = this.#inside.shift();
    if (step !== undefined) this.act(step);
    this.#busy = false;
  }

  #end(ending: Ending): void {
    if (this.#busy || this.endings.length > 0) this.faults.push("end");
    this.endings.push(ending);
  }
}
