import type { View } from "./compare.ts";
import { addressOf, type Manifest } from "./file.ts";
import { compareKinds, type Kind, type Kinds } from "./kinds.ts";
import type { AdminApi } from "./server.ts";

/** What the server has, in the collections that the files speak of. */
export interface ServerState {
  /** By address, as files write it. */
  readonly views: Map<string, View>;
  readonly kinds: Map<string, { readonly kind: Kind; readonly names: readonly string[] }>;
}

/** Reads each collection once, outer before inner; below what is not there, nothing is asked. */
export async function readState(api: AdminApi, manifest: Manifest, named: ReadonlyMap<string, Collection>): Promise<ServerState> {
  const state: ServerState = { views: new Map(), kinds: new Map() };
  const collections = new Map([...named, ...[...manifest.listed].map(([address, each]) => [address, each] as const)]);
  const ordered = [...collections.values()].toSorted((left, right) => compareKinds(left.kind, right.kind));
  for (const { kind, parents } of ordered) {
    const parent = parentOf(kind, parents);
    if (parent !== null && collections.has(parent.collection) && !state.views.has(parent.address)) continue;
    for (const view of (await api.list(pathOf(kind, parents))) ?? []) {
      // A key that was replaced lives on for its grace under the name of its successor.
      if (typeof view["grace_until"] === "number") continue;
      const names = [...parents, String(view[kind.nameField])];
      state.views.set(addressOf(kind, names), view);
      state.kinds.set(addressOf(kind, names), { kind, names });
    }
  }
  return state;
}

/** The members of one kind below one parent. */
export interface Collection {
  readonly kind: Kind;
  readonly parents: readonly string[];
}

/** The path below `/admin/v1/` of a resource, or with one name less of its collection. */
export function pathOf(kind: Kind, names: readonly string[]): string {
  return kind.steps
    .flatMap((step, index) => (index < names.length ? [step, encodeURIComponent(names[index] as string)] : [step]))
    .join("/");
}

/** The collection that an address is in, with the resource's names; null where there is no such kind. */
export function resourceAt(kinds: Kinds, address: string): { readonly kind: Kind; readonly names: readonly string[] } | null {
  const parts = address.split("/");
  const kind = kinds.get(parts.filter((_, index) => index % 2 === 0).join("/"));
  const names = parts.filter((_, index) => index % 2 === 1).map((part) => part.replaceAll("%2F", "/").replaceAll("%25", "%"));
  return kind === undefined || names.length !== kind.steps.length ? null : { kind, names };
}

function parentOf(kind: Kind, parents: readonly string[]): { readonly address: string; readonly collection: string } | null {
  if (parents.length === 0) return null;
  const above = { ...kind, steps: kind.steps.slice(0, -1) };
  return { address: addressOf(above, parents), collection: addressOf(above, parents.slice(0, -1)) };
}
