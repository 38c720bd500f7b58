import type { Price } from "../catalog/index.ts";
import type { TokenBound } from "../../kernel/tokens.ts";
import type { DispatchFailure, ProviderResponse } from "../providers/index.ts";
import { BudgetLedger, type BudgetLedgerNeeds } from "./budgets/postings.ts";
import { mostOf, usedBy } from "./budgets/flight.ts";
import { Holds, type HoldsNeeds, NOTHING_IN_FLIGHT, type Owner } from "./budgets/holds.ts";
import { releaseBudgets } from "./budgets/keeper.ts";
import { balanceReader } from "./budgets/reading.ts";
import type { BudgetMeans } from "./budgets/needs.ts";
import { Turn } from "./budgets/waiting.ts";
import { priceOf, worstCase } from "./decide.ts";
import { type Answers, heldOf, hold, sent } from "./hold.ts";
import type { PromptCounter } from "./kept.ts";
import { meter } from "./meter.ts";
import type { AttemptFacts, Hold, MeteredResponse, Settlement } from "./model.ts";
import { createReports, type ReportNeeds, type Reports } from "./reports.ts";
import { type MoneyAlarms, Settler } from "./settle.ts";
import { Recent } from "./recent.ts";
import type { Admission } from "./records.ts";
import { Shipper, type ShipperNeeds, type ShippingLag } from "./ship.ts";
import { Speeds } from "./speeds.ts";
import type { MeterNeeds } from "./stream.ts";
import { Tags } from "./tags.ts";

export type MeteringNeeds = Omit<ShipperNeeds, "sealing" | "recent" | "ledger" | "shipped"> &
  Pick<ReportNeeds, "names" | "cursorSecret"> &
  Pick<MeterNeeds, "counter"> &
  Pick<BudgetLedgerNeeds, "writeEvent"> &
  Pick<HoldsNeeds, "budgetsOf" | "refresh">;

/** The life of an attempt's money: hold → sent → meter or settleFailed → shipped. */
export interface Metering {
  /**
   * Settles what an earlier process left open; before anything is held. Resolves to how many attempts it charged as lost.
   * Rejects while PostgreSQL or the journal is away.
   */
  recover(): Promise<number>;
  /** Whether every hard budget whose balance is in memory could pay for one token of an answer. @throws BudgetExceeded */
  peek(owner: Owner, price: Price, markupMillionths: number): void;
  /** Whether a hard budget applies, so that an answer's length must be bounded. */
  isBounded(owner: Owner): boolean;
  /** As `hold`. */
  hold(facts: AttemptFacts, price: Price, answers?: Answers | null, turn?: Turn | null): Promise<Hold>;
  /** A place in line for a call that a budget bids wait; `leaveLine` gives it up. */
  newTurn(): Turn;
  /** As `Holds.wait`. */
  waitTurn(line: string, turn: Turn, signal: AbortSignal): Promise<boolean>;
  leaveLine(turn: Turn): void;
  /** The first byte was handed to a socket or child. */
  sent(hold: Hold): void;
  /**
   * Puts the response behind its meter. Resolves at once for a stream; for a whole body once its SETTLE is durable. Rejects with `overloaded` when
   * the journal cannot keep that. `prompt` is asked where the provider does not say what it used.
   */
  meter(response: ProviderResponse, hold: Hold, prompt?: PromptCounter): Promise<MeteredResponse>;
  /** Settles a hold whose dispatch had no response. Resolves once that is durable, or cannot be made so now; never rejects. */
  settleFailed(hold: Hold, failure: DispatchFailure): Promise<Settlement>;
  /** Ships everything that is settled. Rejects while PostgreSQL is away. */
  flush(): Promise<void>;
  /** For metrics. */
  figures(): ShippingLag & MoneyAlarms & ReturnType<Holds["figures"]>;
  /** After the last attempt was settled, and before the journal closes: ships what it can. */
  close(): Promise<void>;
}

export function createService(needs: MeteringNeeds): {
  readonly metering: Metering;
  readonly reports: Reports;
  readonly budgets: BudgetMeans;
} {
  const { journal, clock, log } = needs;
  const sealing = new Tags(needs.random);
  const speeds = new Speeds();
  const recent = { admissions: new Recent<Admission>(), settlements: new Recent<Settlement>() };
  const ledger = new BudgetLedger({ ...needs, keyringOf: needs.tags, sealing });
  const shipper: Shipper = new Shipper({ ...needs, sealing, recent, ledger, shipped: (attempts) => holds.shipped(attempts) });
  const holds = createHolds(needs, sealing, ledger, shipper);
  const settler = new Settler({
    journal,
    clock,
    speeds,
    log,
    recent: recent.settlements,
    settled(settlement) {
      holds.settled(settlement);
      shipper.wake();
    },
  });
  const metered: MeterNeeds = {
    ...needs,
    settler,
    begun: ({ facts, price }, usage) =>
      holds.watch(facts.attempt, () => {
        const used = usage();
        return usedBy({ usage: used, charge: priceOf(used.tokens, price, facts.markupMillionths).charge });
      }),
  };
  const holding = { journal, clock, speeds, holds, recent: recent.admissions, voided: settler.void.bind(settler) };
  const metering: Metering = {
    recover: () => shipper.recover(),
    peek: (owner, price, markupMillionths) =>
      holds.peek(owner, () => mostOf({ bound: ONE_TOKEN }, worstCase(ONE_TOKEN, price, markupMillionths))),
    isBounded: (owner) => holds.isBounded(owner),
    hold: (facts, price, answers, turn) => hold(facts, price, holding, answers, turn),
    newTurn: () => new Turn(clock.monotonic()),
    waitTurn: (line, turn, signal) => holds.wait(line, turn, signal),
    leaveLine: (turn) => holds.leave(turn),
    sent: (held) => sent(held, holding),
    meter: (response, held, prompt) => meter(response, held, metered, prompt),
    settleFailed: (held, failure) =>
      new Promise((resolve) => {
        const settlement = settler.settleFailed(heldOf(held), failure, () => queueMicrotask(() => resolve(settlement)));
      }),
    flush: () => shipper.flush(),
    figures: () => ({ ...shipper.lag(), ...settler.alarms(), ...holds.figures() }),
    close: async () => {
      await settler.close();
      await shipper.close();
      await ledger.close();
      if (shipper.isEmpty) await within(LET_GO_WAIT_MS, letGo(needs));
    },
  };
  const flush = () => within(REPORT_WAIT_MS, shipper.flush());
  const budgets: BudgetMeans = {
    sealing,
    flush,
    open: (owners) => ledger.open(owners),
    inFlightOf(owner, id, subject, at) {
      const budget = needs.budgetsOf(owner).find((each) => each.id === id);
      return budget === undefined ? NOTHING_IN_FLIGHT : holds.inFlightUnder(budget, subject, at);
    },
  };
  return { metering, reports: createReports({ ...needs, sealing, flush }), budgets };
}

function createHolds(needs: MeteringNeeds, sealing: Tags, ledger: BudgetLedger, shipper: Shipper): Holds {
  return new Holds({
    ...needs,
    indexOf(tenant, column, value) {
      const keyring = needs.tags(tenant);
      if (keyring === null || keyring instanceof Promise) return null;
      return sealing.seal(keyring, column, value, null).index.slice(BYTEA_PREFIX.length);
    },
    readBetween: balanceReader({
      ...needs,
      journal: needs.journal.id,
      between: (first, work) => shipper.between(first, work),
      open: (owners) => ledger.open(owners, "unmade"),
    }),
  });
}

/** All is shipped: whichever process is asked next may keep the budgets. */
function letGo({ database, journal, clock, log }: MeteringNeeds): Promise<void> {
  return database
    .forSystem("ship", (tx) => releaseBudgets(tx, journal.id, new Date(clock.now())))
    .catch((error: unknown) => log.warn({ err: error }, "the budgets stay with this process: no other may grant calls under them"));
}

const BYTEA_PREFIX = "\\x";
const ONE_TOKEN: TokenBound = { input: 0, output: 1, certainty: "proof" };

/** A report waits this long for what is being shipped, and no longer when PostgreSQL is slow to take it. */
const REPORT_WAIT_MS = 1_000;

/** A PostgreSQL that hangs does not keep the process from ending. */
const LET_GO_WAIT_MS = 1_000;

async function within(milliseconds: number, work: Promise<void>): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  await Promise.race([work.catch(() => {}), late]);
  clearTimeout(timer);
}
