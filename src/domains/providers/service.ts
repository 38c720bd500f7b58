import type { Clock } from "../../kernel/clock.ts";
import type { Dispatch, Provider, ProviderResponse } from "./contract.ts";
import { TABLE } from "./table.ts";
import { createUpstreamClient } from "./upstream.ts";

export interface Providers {
  /** Undefined for an id that no provider has. */
  get(id: string): Provider | undefined;
  /** In order of id. */
  list(): readonly Provider[];
  /** Resolves at the first frame or whole body. Rejects with DispatchError. */
  dispatch(provider: Provider, dispatch: Dispatch): Promise<ProviderResponse>;
  /** Cuts what is in flight, closes connections and ends what providers keep running. */
  close(): Promise<void>;
}

/** `more` are providers that need something of their own (`local`: a folder of models). */
export function createProviders(needs: { readonly clock: Clock; readonly more?: readonly Provider[] }): Providers {
  const upstream = createUpstreamClient(needs);
  const all = [...TABLE.map((make) => make({ upstream, clock: needs.clock })), ...(needs.more ?? [])];
  const byId = new Map(all.toSorted((a, b) => (a.id < b.id ? -1 : 1)).map((provider) => [provider.id, provider]));
  return {
    get: (id) => byId.get(id),
    dispatch: (provider, dispatch) => provider.dispatch(dispatch),
    list: () => [...byId.values()],
    close: async () => {
      await Promise.all([upstream.close(), ...all.map((provider) => provider.close?.())]);
    },
  };
}
