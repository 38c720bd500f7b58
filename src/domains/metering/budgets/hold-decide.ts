import type { Budget, Unit } from "./model.ts";

/** What an attempt may use at most, in each unit; or what it used. */
export type Amounts = Readonly<Record<Unit, bigint>>;

/** What is left under one budget for one subject, now. */
export interface Room {
  readonly budget: Budget;
  /** The cap, less what is spent and held. Below zero after a cap was lowered, an adjustment or an overage. */
  readonly headroom: bigint;
  /** Of which so much is held, and comes back in part or whole. */
  readonly held: bigint;
}

/** How an answer may be made shorter: `each` is the most tokens of one answer. */
export interface Length {
  readonly each: number;
  /** Below this an answer is of no use. */
  readonly least: number;
}

export type Fit<Place extends Room> =
  /** Fits; with answers of this length. */
  { readonly kind: "fits"; readonly each: number } | { readonly kind: "refused"; readonly by: Place; readonly mayWait: boolean };

/**
 * Whether an attempt fits under every budget, and what to do where it does not. Of several that have no room the strictest answers: `reject`
 * before `wait` before `clamp`. Waiting is for what would fit if nothing else were held. Pure.
 * @param mostOf what the attempt may use with answers of that length: it must not shrink as the length grows
 */
export function fit<Place extends Room>(places: readonly Place[], mostOf: (each: number) => Amounts, { each, least }: Length): Fit<Place> {
  const asked = mostOf(each);
  const full = places.filter((place) => !hasRoom(place, asked));
  if (full.length === 0) return { kind: "fits", each };
  const rejecting = full.find(({ budget }) => budget.mode !== "wait" && budget.mode !== "clamp");
  if (rejecting !== undefined) return { kind: "refused", by: rejecting, mayWait: false };
  const waiting = full.filter(({ budget }) => budget.mode === "wait");
  const [first] = waiting;
  if (first !== undefined) {
    const never = waiting.find((place) => asked[place.budget.unit] > place.headroom + place.held);
    return { kind: "refused", by: never ?? first, mayWait: never === undefined };
  }
  const clamped = longest(places, mostOf, { each, least });
  return clamped === null ? { kind: "refused", by: full[0] as Place, mayWait: false } : { kind: "fits", each: clamped };
}

export function hasRoom({ budget, headroom }: Room, asked: Amounts): boolean {
  return asked[budget.unit] <= headroom;
}

/** The longest answer that fits everywhere, by halving: at most 53 looks. Null where none of use does. */
function longest(places: readonly Room[], mostOf: (each: number) => Amounts, { each, least }: Length): number | null {
  const fits = (length: number): boolean => {
    const most = mostOf(length);
    return places.every((place) => hasRoom(place, most));
  };
  if (least >= each || !fits(least)) return null;
  let [low, high] = [least, each];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low;
}
