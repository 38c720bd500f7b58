import { inputTokens, outputTokens, TOKEN_CLASSES, type TokenClass } from "../../kernel/tokens.ts";
import type { Cell } from "./exports.ts";
import type { HopView } from "./hop-view.ts";

const ISSUER = "Atrium";
const PASCAL: Readonly<Record<TokenClass, string>> = {
  input_uncached: "InputUncached",
  cache_read: "CacheRead",
  cache_write_5m: "CacheWrite5m",
  cache_write_1h: "CacheWrite1h",
  output: "Output",
  reasoning: "Reasoning",
  audio_input: "AudioInput",
  audio_output: "AudioOutput",
  image: "Image",
};

/**
 * FOCUS 1.2 (github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, tag v1.2): every mandatory column, and those of the others that
 * say something here; docs/guide/usage-export.md says why the rest are left out. One row an attempt, which is what the ledger
 * posts. Amounts are of the charge; what the provider bills is `x_ProviderCost`. What is no FOCUS column begins with `x_` and comes last.
 */
const COLUMNS: Readonly<Record<string, (row: HopView) => Cell>> = {
  BilledCost: (row) => row.charge,
  BillingAccountId: (row) => row.tenant_id,
  BillingAccountName: (row) => words(row.tenant),
  BillingCurrency: () => "USD",
  BillingPeriodEnd: (row) => month(row.started_at, 1),
  BillingPeriodStart: (row) => month(row.started_at, 0),
  ChargeCategory: () => "Usage",
  ChargeClass: () => null,
  ChargeDescription: (row) => words(description(row)),
  ChargeFrequency: () => "Usage-Based",
  ChargePeriodEnd: (row) => second(Math.max(Math.ceil((startOf(row) + row.latency_ms) / 1000), Math.floor(startOf(row) / 1000) + 1)),
  ChargePeriodStart: (row) => second(Math.floor(startOf(row) / 1000)),
  ConsumedQuantity: tokensOf,
  ConsumedUnit: () => "Tokens",
  ContractedCost: (row) => row.charge,
  EffectiveCost: (row) => row.charge,
  InvoiceId: () => null,
  InvoiceIssuerName: () => ISSUER,
  ListCost: (row) => row.charge,
  PricingQuantity: tokensOf,
  PricingUnit: () => "Tokens",
  ProviderName: () => ISSUER,
  PublisherName: (row) => row.provider,
  RegionId: (row) => words(row.region),
  RegionName: (row) => words(row.region),
  ResourceId: (row) => row.deployment_id,
  ResourceName: (row) => words(row.deployment),
  ResourceType: () => "Model Deployment",
  ServiceCategory: () => "AI and Machine Learning",
  ServiceName: (row) => words(row.model),
  ServiceSubcategory: () => "Generative AI",
  SubAccountId: (row) => row.project_id,
  SubAccountName: (row) => words(row.project),
  SubAccountType: (row) => (row.project_id === null ? null : "Project"),
  Tags: (row) => JSON.stringify(row.user === null ? { feature: row.feature } : { feature: row.feature, user: row.user }),
  x_AttemptId: (row) => row.id,
  x_CallId: (row) => row.call,
  x_HopId: (row) => row.hop,
  x_KeyId: (row) => row.key_id,
  x_Kind: (row) => row.kind,
  x_ModelServed: (row) => words(row.model_served),
  x_PriceVersion: (row) => row.price_version,
  x_ProviderCost: (row) => row.cost,
  x_Status: (row) => row.status,
  x_Estimated: (row) => row.estimated,
  ...Object.fromEntries(TOKEN_CLASSES.map((tokenClass) => [`x_${PASCAL[tokenClass]}Tokens`, (row: HopView) => row.tokens[tokenClass]])),
};

export const FOCUS_COLUMNS: readonly string[] = Object.keys(COLUMNS);

export function focusCells(row: HopView): readonly Cell[] {
  return READERS.map((read) => read(row));
}

const READERS = Object.values(COLUMNS);

function words(text: string | null): Cell {
  return text === null || text === "" ? null : { text };
}

function tokensOf({ tokens }: HopView): number {
  return inputTokens(tokens) + outputTokens(tokens);
}

function description(row: HopView): string {
  const used = `${row.model}: ${inputTokens(row.tokens)} input and ${outputTokens(row.tokens)} output tokens`;
  return `${used}, ${row.status}${row.estimated ? ", estimated" : ""}`;
}

function startOf(row: HopView): number {
  return Date.parse(row.started_at);
}

/** As the specification writes an instant: no fractions. */
function second(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
}

/** The first instant, UTC, of the month of an instant, or of the month after. */
function month(instant: string, later: 0 | 1): string {
  const at = new Date(instant);
  return second(Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + later) / 1000);
}
