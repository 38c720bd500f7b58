import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { scaled } from "../../../../test/support/scale.ts";
import type { KeyId, ProjectId } from "../../../kernel/ids.ts";
import { newId } from "../testing/facts.ts";
import { type Budget, MODES, SCOPES, UNITS } from "./model.ts";
import { budgetOf } from "./testing/budgets.ts";
import { type Ask, Simulation } from "./testing/simulation.ts";

const PROJECTS: readonly ProjectId[] = [newId(), newId()];
const KEYS: readonly KeyId[] = ["key-a" as KeyId, "key-b" as KeyId];
const HOUR = 3_600_000;

const windows = fc.constantFrom<Pick<Budget, "window" | "rollingSeconds">>(
  { window: "day", rollingSeconds: null },
  { window: "month", rollingSeconds: null },
  { window: "total", rollingSeconds: null },
  { window: "rolling", rollingSeconds: 3_600 },
);
/** A call costs up to 1,500 tokens, and $0.0006 at most. */
const CAPS = { usd: 3_000_000_000n, tokens: 5_000n, requests: 8n } as const;
const budget = fc.record({
  scope: fc.constantFrom(...SCOPES.filter((scope) => scope !== "platform")),
  unit: fc.constantFrom(...UNITS),
  window: windows,
  mode: fc.constantFrom(...MODES.filter((mode) => mode !== "soft")),
  timeZone: fc.constantFrom("UTC", "Asia/Kolkata", "America/New_York"),
  percent: fc.integer({ min: 0, max: 150 }),
  one: fc.boolean(),
});

type Step =
  | { readonly do: "ask"; readonly ask: Ask }
  | { readonly do: "settle"; readonly index: number; readonly percent: number }
  | { readonly do: "commit" | "ship"; readonly count: number }
  | { readonly do: "read" | "fault" | "crash" }
  | { readonly do: "wait"; readonly hours: number }
  | { readonly do: "cap"; readonly index: number; readonly percent: number }
  | { readonly do: "window"; readonly index: number; readonly window: Pick<Budget, "window" | "rollingSeconds"> }
  | { readonly do: "adjust"; readonly index: number; readonly percent: number };

const index = fc.nat(10);
const step: fc.Arbitrary<Step> = fc.oneof<fc.WeightedArbitrary<Step>[]>(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("ask" as const),
      ask: fc.record({
        project: fc.constantFrom(...PROJECTS, null),
        key: fc.constantFrom(...KEYS),
        user: fc.constantFrom("ada", "bob", null),
        input: fc.integer({ min: 1, max: 500 }),
        output: fc.integer({ min: 1, max: 1_000 }),
      }),
    }),
  },
  { weight: 8, arbitrary: fc.record({ do: fc.constant("read" as const) }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constantFrom("commit" as const, "ship" as const), count: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("settle" as const), index, percent: fc.constantFrom(0, 10, 60, 100, 100, 130) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("fault" as const, "crash" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("wait" as const), hours: fc.constantFrom(-30, -1, 0.02, 0.5, 1, 26) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("cap" as const), index, percent: fc.integer({ min: 0, max: 150 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("window" as const), index, window: windows }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("adjust" as const), index, percent: fc.integer({ min: -30, max: 30 }) }) },
);

test("no hold is ever granted above the cap then in force, none is refused that fits, and every hold resolves once: through crashes, lost writes, replays, clocks that jump, and changes of caps and windows", async (t) => {
  const totals = { granted: 0, refused: 0, crashes: 0 };
  await fc.assert(
    fc.asyncProperty(
      fc.array(budget, { minLength: 1, maxLength: 4 }),
      fc.array(step, { minLength: 20, maxLength: 80, size: "max" }),
      async (budgets, steps) => {
        const world = new Simulation();
        world.budgets = budgets.map(({ percent, one, window, ...rest }) =>
          budgetOf({ owner: world.tenant, ...rest, ...window, ...(one ? only(rest.scope) : {}), cap: part(CAPS[rest.unit], percent) }),
        );
        for (const each of steps) await play(world, each);
        await world.end();
        totals.granted += world.granted;
        totals.refused += world.refused;
        totals.crashes += world.crashes;
      },
    ),
    { numRuns: scaled(150) },
  );
  assert.ok(totals.granted > 0 && totals.refused > 0 && totals.crashes > 0, JSON.stringify(totals));
  t.diagnostic(`${totals.granted} holds granted, ${totals.refused} refused, ${totals.crashes} crashes: overshoot 0`);
});

function only(scope: Budget["scope"]): Partial<Budget> {
  if (scope === "project") return { project: PROJECTS[0] as ProjectId };
  if (scope === "key") return { key: KEYS[0] as KeyId };
  return scope === "user" ? { subjectIndex: "user-ada" } : scope === "feature" ? { subjectIndex: "feature-search" } : {};
}

function part(amount: bigint, percent: number): bigint {
  return (amount * BigInt(percent)) / 100n;
}

async function play(world: Simulation, step: Step): Promise<void> {
  const chosen = "index" in step ? (world.budgets[step.index % world.budgets.length] as Budget) : null;
  switch (step.do) {
    case "ask":
      return world.ask(step.ask);
    case "settle":
      return world.settle(step.index, step.percent);
    case "commit":
      return world.commit(step.count);
    case "ship":
      return world.ship(step.count);
    case "read":
      return world.read();
    case "fault":
      return world.faulty();
    case "crash":
      return world.crash();
    case "wait":
      return world.clock.advance(step.hours * HOUR);
    case "cap":
      return world.change(chosen as Budget, { cap: part(CAPS[(chosen as Budget).unit], step.percent) });
    case "window":
      return world.change(chosen as Budget, step.window);
    case "adjust": {
      const subject = {
        tenant: "",
        platform: "",
        project: PROJECTS[0] as string,
        key: KEYS[0] as string,
        user: "user-ada",
        feature: "feature-search",
      };
      return world.adjust(chosen as Budget, subject[(chosen as Budget).scope], part(CAPS[(chosen as Budget).unit], step.percent));
    }
    default:
      return step satisfies never;
  }
}
