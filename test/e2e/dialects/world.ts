import { type Exchange, type ScriptedUpstream, scriptedUpstream } from "../../../src/domains/providers/testing/scripted-upstream.ts";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess } from "../../support/atrium.ts";
import { answerFor } from "./answers.ts";
import { answerAsAnthropic, failAsAnthropic } from "./scripted-anthropic.ts";
import { answerAsOpenAI, failAsOpenAI } from "./scripted-openai.ts";

/** USD per million tokens, each class at a price of its own. */
export const PRICE = { input: "1", output: "2", cache_read: "0.1", cache_write_5m: "1.25", cache_write_1h: "2.5", reasoning: "3" } as const;

/** A server with one model per kind of upstream; those with a wire are answered by the scripted upstream. */
export interface World {
  readonly atrium: AtriumProcess;
  readonly upstream: ScriptedUpstream;
  readonly key: string;
  /** The newest usage row. */
  lastRow(): Promise<UsageRow>;
  /** Another script for the requests from now on; null for the usual one. */
  script(script: ((exchange: Exchange) => void | Promise<void>) | null): void;
  close(): Promise<void>;
}

export interface UsageRow {
  readonly id: string;
  readonly kind: string;
  readonly status: string;
  readonly tokens: Readonly<Record<string, number>>;
  readonly cost: string;
  readonly estimated: boolean;
  readonly model_served: string;
}

/** Models by the provider that serves them, with the path below `/v1` that it calls. */
export const UPSTREAMS = { openai: "openai", openrouter: "openai", anthropic: "anthropic" } as const;

export async function openWorld(): Promise<World> {
  let script: ((exchange: Exchange) => void | Promise<void>) | null = null;
  const upstream = await scriptedUpstream((exchange) => (script ?? answer)(exchange));
  const atrium = await startAtriumProcess();
  const { admin } = atrium;
  for (const model of Object.keys(UPSTREAMS))
    await createModel(atrium, { model, provider: model, upstreamModel: `${model}-upstream`, baseUrl: upstream.baseUrl, price: PRICE });
  await createModel(atrium, { model: "simulated", provider: "simulated", upstreamModel: "simulated", price: PRICE });
  const { key } = await createTenancy(atrium, "pairs", "simulated");
  for (const model of Object.keys(UPSTREAMS)) await admin("PUT", `tenants/pairs/grants/${model}`, {});
  return {
    atrium,
    upstream,
    key,
    async lastRow() {
      const { data } = (await admin("GET", "usage/hops?limit=1&order=desc")) as { data: UsageRow[] };
      return data[0] as UsageRow;
    },
    script: (next) => void (script = next),
    async close() {
      await atrium.stop();
      await upstream.close();
      await removeData(atrium.dataDirectory);
    },
  };
}

/** By the scenario that the conversation names; `[fail503]` is that status. */
function answer(exchange: Exchange): void {
  const said = exchange.body.toString();
  const isStream = /"stream":\s*true/.test(said);
  const isMessages = exchange.path.startsWith("/v1/messages");
  const status = Number(/\[fail(\d+)\]/.exec(said)?.[1] ?? 0);
  if (status > 0) (isMessages ? failAsAnthropic : failAsOpenAI)(exchange, status, status === 429 ? { "retry-after": "7" } : {});
  else (isMessages ? answerAsAnthropic : answerAsOpenAI)(exchange, answerFor(said), isStream);
}
