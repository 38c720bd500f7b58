import { type View, isComparable, isSame } from "./compare.ts";
import { addressOf, FileProblem, type Manifest, type Place, type Wanted } from "./file.ts";
import { compareKinds, type Kind, type Kinds } from "./kinds.ts";
import { type References, substitute } from "./references.ts";
import { readState, resourceAt, type Collection, type ServerState } from "./state.ts";
import type { AdminApi } from "./server.ts";

/** One thing to do. Actions are in an order in which what one needs comes before it. */
export type Action = Create | Change | Replace | Remove;

interface Target {
  readonly address: string;
  readonly kind: Kind;
  readonly names: readonly string[];
}
export interface Create extends Target {
  readonly act: "create";
  readonly place: Place;
  readonly wanted: Wanted;
}
export interface Change extends Target {
  readonly act: "change";
  readonly place: Place;
  readonly wanted: Wanted;
  readonly fields: readonly Difference[];
  readonly before: View;
}
/** Of what cannot be changed in place: the present one ends, and another begins. */
export interface Replace extends Target {
  readonly act: "replace";
  readonly place: Place;
  readonly wanted: Wanted;
  readonly fields: readonly Difference[];
  readonly before: View;
}
export interface Remove extends Target {
  readonly act: "remove";
  readonly before: View;
}

export interface Difference {
  readonly field: string;
  /** `undefined` where the server does not show it. */
  readonly before: unknown;
}

export interface Plan {
  readonly actions: readonly Action[];
  /** How many resources of the files are on the server as the files say. */
  readonly unchanged: number;
  readonly state: ServerState;
  /** Addresses with a secret that nothing shows to be another than the server's. */
  readonly uncompared: readonly string[];
}

export interface PlanOptions {
  /** Whether members of listed collections that no file names are to be removed. */
  readonly prune: boolean;
  /** Whether write-only fields are sent although nothing else differs. */
  readonly sendSecrets: boolean;
}

/** Compares the files with the server. Reads only. Throws FileProblem, ServerProblem. */
export async function makePlan(
  api: AdminApi,
  kinds: Kinds,
  manifest: Manifest,
  references: References,
  options: PlanOptions,
): Promise<Plan> {
  const state = await readState(api, manifest, collectionsReferred(kinds, manifest, references));
  const known = knowing(references, state);
  const uncompared: string[] = [];
  const actions: Action[] = [];
  for (const [address, wanted] of manifest.wanted) {
    const target = { address, kind: wanted.kind, names: wanted.names, place: wanted.place, wanted };
    const before = state.views.get(address);
    if (before === undefined) {
      requireFields(target);
      actions.push({ act: "create", ...target });
      continue;
    }
    const { fields, hidden } = differences(wanted, before, known);
    const isMissingSecret = hidden.length > 0 && before["has_secret"] === false;
    if (fields.length > 0 || isMissingSecret || (hidden.length > 0 && options.sendSecrets && wanted.kind.write === "put"))
      actions.push({ act: wanted.kind.write === "put" ? "change" : "replace", ...target, before, fields: [...fields, ...hidden] });
    else if (hidden.length > 0) uncompared.push(address);
  }
  const removals = options.prune ? surplus(manifest, state) : [];
  const made = actions.length;
  actions.sort((left, right) => compareKinds(left.kind, right.kind));
  return { actions: [...actions, ...removals], unchanged: manifest.wanted.size - made, state, uncompared };
}

/** References that also find the ids of what the server has. */
export function knowing(references: References, state: ServerState): References {
  return {
    ...references,
    idOf: (address) => {
      const id = state.views.get(address)?.["id"];
      return typeof id === "string" ? id : references.idOf(address);
    },
  };
}

/** The body that carries these fields out; all that the file says of a new resource. */
export function bodyOf(wanted: Wanted, fields: readonly string[], references: References): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const field of fields) {
    const { value, later } = substitute(wanted.fields.get(field)?.raw, references);
    if (later.length > 0) throw new Error(`${field} refers to ${later.join(", ")}, which there is not yet.`);
    body[field] = value;
  }
  return body;
}

function requireFields({ wanted, address, place }: { wanted: Wanted; address: string; place: Place }): void {
  const missing = wanted.kind.required.filter((field) => !wanted.fields.has(field));
  if (missing.length > 0) throw new FileProblem([`${place}: ${address}: a new one needs ${missing.join(", ")}.`]);
}

/** `hidden`: given, and not to be compared. */
function differences(
  wanted: Wanted,
  before: View,
  references: References,
): { readonly fields: readonly Difference[]; readonly hidden: readonly Difference[] } {
  const fields: Difference[] = [];
  const hidden: Difference[] = [];
  for (const [field, { raw }] of wanted.fields) {
    const { value } = substitute(raw, references);
    if (!isComparable(wanted.kind, field, value)) hidden.push({ field, before: undefined });
    else if (!isSame(value, before[field], wanted.kind.fields[field]) && !isScheduled(field, value, before))
      fields.push({ field, before: before[field] });
  }
  return { fields, hidden };
}

/** A price with a day it begins is shown among those to come until then, and afterwards without that day. */
function isScheduled(field: string, value: unknown, before: View): boolean {
  if (field !== "price" || typeof value !== "object" || value === null || !("effective_from" in value)) return false;
  const { effective_from: begins, ...rates } = value as { effective_from: string };
  if (Date.parse(begins) <= Date.now()) return isSame(rates, before["price"]);
  const pending = (before["scheduled_prices"] ?? []) as readonly { effective_from: string; rates: unknown; tiers: readonly unknown[] }[];
  const { tiers = [], ...classes } = rates as { tiers?: readonly Record<string, unknown>[] };
  const stated = tiers.map(({ above_input_tokens, ...each }) => ({ above_input_tokens, rates: each }));
  return pending.some((each) => isSame(begins, each.effective_from) && isSame(classes, each.rates) && isSame(stated, each.tiers));
}

/** What listed collections hold beyond what is named, inner before outer; what is below a surplus resource goes with it. */
function surplus(manifest: Manifest, state: ServerState): Remove[] {
  return [...state.views]
    .filter(([address]) => !manifest.wanted.has(address))
    .flatMap(([address, before]): Remove[] => {
      const found = state.kinds.get(address);
      if (found === undefined || !manifest.listed.has(addressOf(found.kind, found.names.slice(0, -1)))) return [];
      return found.kind.canBeDeleted ? [{ act: "remove", address, kind: found.kind, names: found.names, before }] : [];
    })
    .toSorted((left, right) => compareKinds(right.kind, left.kind));
}

/** Collections that only references speak of: their ids must be read as well. */
function collectionsReferred(kinds: Kinds, manifest: Manifest, references: References): Map<string, Collection> {
  const referred = new Map<string, Collection>();
  const faults: string[] = [];
  for (const [address, wanted] of manifest.wanted) {
    for (const [field, { raw, place }] of wanted.fields) {
      for (const other of substitute(raw, references).later) {
        const found = resourceAt(kinds, other);
        if (found === null)
          faults.push(`${place}: ${address}: ${field}: '${other}' is no address of a resource, such as tenants/acme/projects/app.`);
        else referred.set(addressOf(found.kind, found.names.slice(0, -1)), { kind: found.kind, parents: found.names.slice(0, -1) });
      }
    }
  }
  if (faults.length > 0) throw new FileProblem(faults);
  return referred;
}
