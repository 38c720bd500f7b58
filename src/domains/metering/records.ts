import { z } from "zod";
import { type AttemptId, type DeploymentId, isUuid, type KeyId, type ModelId, type PriceVersion, type TenantId } from "../../kernel/ids.ts";
import type { CallId, HopId, ProjectId } from "../../kernel/ids.ts";
import type { PicoDollars } from "../../kernel/money.ts";
import { TOKEN_CLASSES, type TokenClass, type TokenCounts } from "../../kernel/tokens.ts";
import { ATTEMPT_STATUSES, type AttemptFacts, type Settlement } from "./model.ts";

/**
 * What the journal's records carry: ADMIT and SETTLE as a JSON array (a third of an object's bytes, and one pass of
 * `JSON.stringify`), PROGRESS as `1:<mark>`. The first element is the version; a reader knows every version ever written.
 */
const VERSION = 1;

/** The ADMIT record: the facts, and what a later process needs to charge the attempt without its price list. */
export interface Admission {
  readonly facts: AttemptFacts;
  readonly worstCase: PicoDollars;
  /** Price of one uncached input and one output token. */
  readonly inputRate: PicoDollars;
  readonly outputRate: PicoDollars;
  /** How fast the deployment writes. */
  readonly tokensPerSecond: number;
}

/** A record that does not decode: written by a newer version, or by a bug. Charging past it would lose money, so it stops the reader. */
export class RecordUnreadable extends Error {
  override readonly name = "RecordUnreadable";
}

export function encodeAdmission({ facts, worstCase, inputRate, outputRate, tokensPerSecond }: Admission): string {
  return JSON.stringify([
    VERSION,
    facts.hop,
    facts.call,
    facts.tenant,
    facts.project,
    facts.key,
    facts.user,
    facts.feature,
    facts.trace,
    facts.kind,
    facts.provider,
    facts.modelRequested,
    facts.model,
    facts.upstreamModel,
    facts.deployment,
    facts.region,
    facts.priceVersion,
    facts.stream,
    facts.bound.input,
    facts.bound.output,
    facts.bound.certainty,
    facts.startedAt,
    worstCase.toString(),
    inputRate.toString(),
    outputRate.toString(),
    tokensPerSecond,
  ]);
}

export function decodeAdmission(attempt: AttemptId, payload: Buffer): Admission {
  const [, hop, call, tenant, project, key, user, feature, trace, kind, provider, modelRequested, model, upstreamModel, deployment, region, priceVersion, stream, input, output, certainty, startedAt, worstCase, inputRate, outputRate, tokensPerSecond] = read(ADMISSION, "ADMIT", attempt, payload);
  const facts: AttemptFacts = { attempt, hop, call, tenant, project, key, user, feature, trace, kind, provider, modelRequested, model, upstreamModel, deployment, region, priceVersion, stream, bound: { input, output, certainty }, startedAt };
  return { facts, worstCase, inputRate, outputRate, tokensPerSecond };
}

/** `mark` 0 means: the request left. */
export function encodeMark(mark: number): string {
  return `${VERSION}:${mark}`;
}

export function decodeMark(attempt: AttemptId, payload: Buffer): number {
  const match = MARK.exec(payload.toString("latin1"));
  if (match === null) throw new RecordUnreadable(`the PROGRESS record of attempt ${attempt} does not decode`);
  return Number(match[1]);
}

export function encodeSettlement(settlement: Settlement): string {
  const { usage } = settlement;
  return JSON.stringify([
    VERSION,
    settlement.status,
    usage.source,
    TOKEN_CLASSES.map((tokenClass) => usage.tokens[tokenClass]),
    settlement.cost.toString(),
    settlement.charge.toString(),
    settlement.estimated,
    settlement.dispatchUnknown,
    settlement.modelServed,
    settlement.latencyMs,
    settlement.firstTokenMs,
  ]);
}

export function decodeSettlement(attempt: AttemptId, payload: Buffer): Settlement {
  const [, status, source, counts, cost, charge, estimated, dispatchUnknown, modelServed, latencyMs, firstTokenMs] = read(SETTLEMENT, "SETTLE", attempt, payload);
  const tokens = Object.fromEntries(TOKEN_CLASSES.map((tokenClass, index) => [tokenClass, counts[index]])) as Record<TokenClass, number> satisfies TokenCounts;
  return { attempt, status, usage: { tokens, source }, cost, charge, estimated, dispatchUnknown, modelServed, latencyMs, firstTokenMs };
}

function read<T>(schema: z.ZodType<T>, kind: string, attempt: AttemptId, payload: Buffer): T {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString());
  } catch (cause) {
    throw new RecordUnreadable(`the ${kind} record of attempt ${attempt} is not JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new RecordUnreadable(`the ${kind} record of attempt ${attempt} does not decode`, { cause: parsed.error });
  return parsed.data;
}

const MARK = /^1:(\d{1,15})$/;
const uuid = <Id extends string>() => z.custom<Id>((value) => typeof value === "string" && isUuid(value));
const count = z.int().nonnegative();
const amount = z.string().regex(/^\d{1,38}$/).transform(BigInt);

const ADMISSION = z.tuple([
  z.literal(VERSION),
  uuid<HopId>(),
  uuid<CallId>(),
  uuid<TenantId>(),
  uuid<ProjectId>().nullable(),
  z.custom<KeyId>((value) => typeof value === "string").nullable(),
  z.string().nullable(),
  z.string(),
  z.string().nullable(),
  z.literal("generate"),
  z.string(),
  z.string(),
  uuid<ModelId>(),
  z.string(),
  uuid<DeploymentId>(),
  z.string().nullable(),
  uuid<PriceVersion>(),
  z.boolean(),
  count,
  count,
  z.enum(["proof", "rule"]),
  z.number(),
  amount,
  amount,
  amount,
  z.number().nonnegative(),
]);

const SETTLEMENT = z.tuple([
  z.literal(VERSION),
  z.enum(ATTEMPT_STATUSES),
  z.enum(["reported", "counted"]),
  z.array(count).length(TOKEN_CLASSES.length),
  amount,
  amount,
  z.boolean(),
  z.boolean(),
  z.string(),
  count,
  count.nullable(),
]);
