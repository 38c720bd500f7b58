import type { Price } from "../catalog/index.ts";
import type { DispatchFailure, ProviderResponse } from "../providers/index.ts";
import { heldOf, hold, sent } from "./hold.ts";
import { meter } from "./meter.ts";
import type { AttemptFacts, Hold, MeteredResponse, Settlement } from "./model.ts";
import { createReports, type ReportNeeds, type Reports } from "./reports.ts";
import { type MoneyAlarms, Settler } from "./settle.ts";
import { Recent } from "./recent.ts";
import type { Admission } from "./records.ts";
import { Shipper, type ShipperNeeds, type ShippingLag } from "./ship.ts";
import { Speeds } from "./speeds.ts";
import { Tags } from "./tags.ts";

export type MeteringNeeds = Omit<ShipperNeeds, "sealing" | "recent"> & Pick<ReportNeeds, "names" | "cursorSecret">;

/** The life of an attempt's money: hold → sent → meter or settleFailed → shipped. */
export interface Metering {
  /**
   * Settles what an earlier process left open; before anything is held. Resolves to how many attempts it charged as lost.
   * Rejects while PostgreSQL or the journal is away.
   */
  recover(): Promise<number>;
  /** Reserves W; resolves once the ADMIT is durable. Rejects with the problem `overloaded` when the journal cannot keep it. */
  hold(facts: AttemptFacts, price: Price): Promise<Hold>;
  /** The first byte was handed to a socket or child. */
  sent(hold: Hold): void;
  /**
   * Puts the response behind its meter. Resolves at once for a stream; for a whole body once its SETTLE is durable. Rejects with `overloaded` when
   * the journal cannot keep that.
   */
  meter(response: ProviderResponse, hold: Hold): Promise<MeteredResponse>;
  /** Settles a hold whose dispatch had no response. Resolves once that is durable, or cannot be made so now; never rejects. */
  settleFailed(hold: Hold, failure: DispatchFailure): Promise<Settlement>;
  /** Ships everything that is settled. Rejects while PostgreSQL is away. */
  flush(): Promise<void>;
  /** For metrics. */
  figures(): ShippingLag & MoneyAlarms;
  /** After the last attempt was settled, and before the journal closes: ships what it can. */
  close(): Promise<void>;
}

export function createService(needs: MeteringNeeds): { readonly metering: Metering; readonly reports: Reports } {
  const { journal, clock, log } = needs;
  const sealing = new Tags(needs.random);
  const speeds = new Speeds();
  const recent = { admissions: new Recent<Admission>(), settlements: new Recent<Settlement>() };
  const shipper = new Shipper({ ...needs, sealing, recent });
  const settler = new Settler({ journal, clock, speeds, log, recent: recent.settlements, settled: () => shipper.wake() });
  const holding = { journal, clock, speeds, recent: recent.admissions, voided: settler.void.bind(settler) };
  const metering: Metering = {
    recover: () => shipper.recover(),
    hold: (facts, price) => hold(facts, price, holding),
    sent: (held) => sent(held, holding),
    meter: (response, held) => meter(response, held, { journal, clock, settler }),
    settleFailed: (held, failure) =>
      new Promise((resolve) => {
        const settlement = settler.settleFailed(heldOf(held), failure, () => queueMicrotask(() => resolve(settlement)));
      }),
    flush: () => shipper.flush(),
    figures: () => ({ ...shipper.lag(), ...settler.alarms() }),
    close: async () => {
      await settler.close();
      await shipper.close();
    },
  };
  return { metering, reports: createReports({ ...needs, sealing, flush: () => within(REPORT_WAIT_MS, shipper.flush()) }) };
}

/** A report waits this long for what is being shipped, and no longer when PostgreSQL is slow to take it. */
const REPORT_WAIT_MS = 1_000;

async function within(milliseconds: number, work: Promise<void>): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  await Promise.race([work.catch(() => {}), late]);
  clearTimeout(timer);
}
