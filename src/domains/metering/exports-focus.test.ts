import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { NO_TOKENS } from "../../kernel/tokens.ts";
import { writeRows } from "./exports.ts";
import type { HopView } from "./hop-view.ts";
import { ATTEMPT_STATUSES } from "./model.ts";
import { newId } from "./testing/facts.ts";
import { readCsv } from "./testing/csv.ts";

type Type = "string" | "decimal" | "instant" | "json" | readonly string[];
interface Column {
  readonly level: "mandatory" | "recommended" | "conditional";
  readonly nullable: boolean;
  /** A list: its allowed values, or those of them that concern a service of this kind. */
  readonly type: Type;
}

const rule = (level: Column["level"], type: Type, nullable = false): Column => ({ level, type, nullable });

/**
 * The columns of FOCUS 1.2: feature level, data type, whether nulls are allowed, allowed values. From `specification/columns/*.md` of
 * github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec at the tag v1.2 (commit 7296e314), 57 columns.
 */
const SPECIFICATION: Readonly<Record<string, Column>> = {
  AvailabilityZone: rule("recommended", "string", true),
  BilledCost: rule("mandatory", "decimal"),
  BillingAccountId: rule("mandatory", "string"),
  BillingAccountName: rule("mandatory", "string", true),
  BillingAccountType: rule("conditional", "string"),
  BillingCurrency: rule("mandatory", ["USD"]),
  BillingPeriodEnd: rule("mandatory", "instant"),
  BillingPeriodStart: rule("mandatory", "instant"),
  CapacityReservationId: rule("conditional", "string", true),
  CapacityReservationStatus: rule("conditional", ["Used", "Unused"], true),
  ChargeCategory: rule("mandatory", ["Usage", "Purchase", "Tax", "Credit", "Adjustment"]),
  ChargeClass: rule("mandatory", ["Correction"], true),
  ChargeDescription: rule("mandatory", "string", true),
  ChargeFrequency: rule("recommended", ["One-Time", "Recurring", "Usage-Based"]),
  ChargePeriodEnd: rule("mandatory", "instant"),
  ChargePeriodStart: rule("mandatory", "instant"),
  CommitmentDiscountCategory: rule("conditional", ["Spend", "Usage"], true),
  CommitmentDiscountId: rule("conditional", "string", true),
  CommitmentDiscountName: rule("conditional", "string", true),
  CommitmentDiscountQuantity: rule("conditional", "decimal", true),
  CommitmentDiscountStatus: rule("conditional", ["Used", "Unused"], true),
  CommitmentDiscountType: rule("conditional", "string", true),
  CommitmentDiscountUnit: rule("conditional", "string", true),
  ConsumedQuantity: rule("conditional", "decimal", true),
  ConsumedUnit: rule("conditional", "string", true),
  ContractedCost: rule("mandatory", "decimal"),
  ContractedUnitPrice: rule("conditional", "decimal", true),
  EffectiveCost: rule("mandatory", "decimal"),
  InvoiceId: rule("recommended", "string", true),
  InvoiceIssuerName: rule("mandatory", "string"),
  ListCost: rule("mandatory", "decimal"),
  ListUnitPrice: rule("conditional", "decimal", true),
  PricingCategory: rule("conditional", ["Standard", "Dynamic", "Committed", "Other"], true),
  PricingCurrency: rule("conditional", "string", true),
  PricingCurrencyContractedUnitPrice: rule("conditional", "decimal", true),
  PricingCurrencyEffectiveCost: rule("conditional", "decimal", true),
  PricingCurrencyListUnitPrice: rule("conditional", "decimal", true),
  PricingQuantity: rule("mandatory", "decimal", true),
  PricingUnit: rule("mandatory", "string", true),
  ProviderName: rule("mandatory", "string"),
  PublisherName: rule("mandatory", "string"),
  RegionId: rule("conditional", "string", true),
  RegionName: rule("conditional", "string", true),
  ResourceId: rule("conditional", "string", true),
  ResourceName: rule("conditional", "string", true),
  ResourceType: rule("conditional", "string", true),
  ServiceCategory: rule("mandatory", ["AI and Machine Learning"]),
  ServiceName: rule("mandatory", "string"),
  ServiceSubcategory: rule("recommended", [
    "AI Platforms",
    "Bots",
    "Generative AI",
    "Machine Learning",
    "Natural Language Processing",
    "Other (AI and Machine Learning)",
  ]),
  SkuId: rule("conditional", "string", true),
  SkuMeter: rule("conditional", "string", true),
  SkuPriceDetails: rule("conditional", "json", true),
  SkuPriceId: rule("conditional", "string", true),
  SubAccountId: rule("conditional", "string", true),
  SubAccountName: rule("conditional", "string", true),
  SubAccountType: rule("conditional", "string", true),
  Tags: rule("conditional", "json", true),
};

const words = fc.string({ unit: "binary", minLength: 1, maxLength: 30 });
const maybe = fc.option(words);
const count = fc.nat(2_000_000);
const amount = fc.tuple(fc.nat(99), fc.nat(999_999)).map(([whole, millionths]) => `${whole}.${String(millionths).padStart(6, "0")}1`);
const anyRow = fc
  .record({
    tenant: maybe,
    project: maybe,
    hasProject: fc.boolean(),
    feature: words,
    user: maybe,
    model: words,
    region: maybe,
    deployment: maybe,
    status: fc.constantFrom(...ATTEMPT_STATUSES),
    charge: amount,
    cost: amount,
    input: count,
    output: count,
    latency: fc.oneof(fc.constant(0), fc.nat(100_000)),
    at: fc.date({ min: new Date("2025-01-01"), max: new Date("2030-01-01"), noInvalidDate: true }),
  })
  .map(({ hasProject, at, latency, input, output, ...row }): HopView => ({
    ...row,
    id: newId(),
    hop: newId(),
    call: newId(),
    tenant_id: newId(),
    project_id: hasProject ? newId() : null,
    project: hasProject ? row.project : null,
    key_id: null,
    trace: null,
    kind: "generate",
    provider: "openai",
    model_served: row.model,
    deployment_id: newId(),
    price_version: newId(),
    tokens: { ...NO_TOKENS, input_uncached: input, output },
    worst_case: "9",
    bound: "proof",
    source: "reported",
    estimated: false,
    dispatch_unknown: false,
    latency_ms: latency,
    first_token_ms: null,
    started_at: at.toISOString(),
  }));

test("a FOCUS export has every mandatory and recommended column of FOCUS 1.2 that can be filled, its others by their names, and of each the values allowed", async () => {
  let rows = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(anyRow, { minLength: 1, maxLength: 20 }), async (views) => {
      let text = "";
      await writeRows(
        "focus",
        (take) => take(views),
        async (piece) => void (text += piece),
      );
      for (const row of readCsv(text)) {
        checkRow(row);
        rows += 1;
      }
      assert.equal(readCsv(text).length, views.length);
    }),
    { numRuns: 60 },
  );
  assert.ok(rows > 300);
});

function checkRow(row: Record<string, string>): void {
  const names = Object.keys(row);
  for (const [name, { level }] of Object.entries(SPECIFICATION))
    if (level !== "conditional" && name !== "AvailabilityZone") assert.ok(names.includes(name), `${name} is missing`);
  const own = names.filter((name) => name.startsWith("x_"));
  assert.deepEqual(names.slice(-own.length), own, "columns of our own come last");
  for (const name of names.filter((each) => !own.includes(each))) {
    const column = SPECIFICATION[name];
    assert.ok(column !== undefined, `${name} is no column of FOCUS`);
    const value = row[name] as string;
    if (value === "") assert.ok(column.nullable, `${name} must not be null`);
    else checkValue(name, value, column.type);
  }
  assert.ok((row["ChargePeriodStart"] as string) < (row["ChargePeriodEnd"] as string), "the end of a charge is exclusive");
  assert.ok((row["BillingPeriodStart"] as string) <= (row["ChargePeriodStart"] as string));
  assert.ok((row["ChargePeriodStart"] as string) < (row["BillingPeriodEnd"] as string));
  for (const [name, needed] of NULL_TOGETHER) assert.equal(row[name] === "", row[needed] === "", `${name} and ${needed}`);
  // No unit price is given, so these two costs are what is billed.
  for (const cost of ["ContractedCost", "ListCost", "EffectiveCost"]) assert.equal(row[cost], row["BilledCost"]);
}

/** Of each pair the specification says: null exactly when the other is. */
const NULL_TOGETHER = [
  ["ConsumedUnit", "ConsumedQuantity"],
  ["PricingUnit", "PricingQuantity"],
  ["RegionName", "RegionId"],
  ["SubAccountType", "SubAccountId"],
  ["ResourceType", "ResourceId"],
] as const;

function checkValue(name: string, value: string, type: Type): void {
  if (type === "decimal") assert.match(value, /^-?\d+(\.\d+)?$/, name);
  else if (type === "instant") assert.match(value, /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/, name);
  else if (type === "json") {
    const parsed = JSON.parse(value) as object;
    for (const each of Object.values(parsed)) assert.notEqual(typeof each, "object", name);
  } else if (type !== "string") assert.ok(type.includes(value), `${name}: ${value}`);
}

test("a month, a second and a description are written as the specification writes them", async () => {
  const [view] = fc.sample(anyRow, { numRuns: 1, seed: 1 }) as [HopView];
  let text = "";
  const row = {
    ...view,
    model: "gpt-4o",
    started_at: "2026-12-31T23:59:59.500Z",
    latency_ms: 1_200,
    status: "aborted",
    estimated: true,
  } as const;
  const tokens = { ...NO_TOKENS, input_uncached: 12, output: 5 };
  await writeRows(
    "focus",
    (take) => take([{ ...row, tokens }]),
    async (piece) => void (text += piece),
  );
  const [written] = readCsv(text);
  assert.deepEqual(
    ["BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd", "ChargeDescription", "ConsumedQuantity"].map(
      (name) => written?.[name],
    ),
    [
      "2026-12-01T00:00:00Z",
      "2027-01-01T00:00:00Z",
      "2026-12-31T23:59:59Z",
      "2027-01-01T00:00:01Z",
      "gpt-4o: 12 input and 5 output tokens, aborted, estimated",
      "17",
    ],
  );
});
