import { type AttemptId, isUuid, type KeyId, type ProjectId, type Uuid } from "../../kernel/ids.ts";
import type { PicoDollars } from "../../kernel/money.ts";
import { NO_TOKENS, TOKEN_CLASSES, type TokenClass } from "../../kernel/tokens.ts";
import { NO_MARKUP } from "./decide.ts";
import { ATTEMPT_STATUSES, type AttemptFacts, type Settlement } from "./model.ts";

/**
 * What the journal's records carry: ADMIT and SETTLE as a JSON array (a third of an object's bytes, and one pass of
 * `JSON.stringify`), PROGRESS as `1:<mark>`. The first element is the version; a reader knows every version ever written.
 */
const VERSION = 1;
/** 2 says the markup; 1 is of a time when every charge was the cost. */
const ADMIT_VERSION = 2;

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
    ADMIT_VERSION,
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
    facts.markupMillionths,
    worstCase.toString(),
    inputRate.toString(),
    outputRate.toString(),
    tokensPerSecond,
  ]);
}

export function decodeAdmission(attempt: AttemptId, payload: Buffer): Admission {
  const fields = new Fields("ADMIT", attempt, payload, ADMIT_VERSION);
  const facts: AttemptFacts = {
    attempt,
    hop: fields.id(),
    call: fields.id(),
    tenant: fields.id(),
    project: fields.nullable(() => fields.id<ProjectId>()),
    key: fields.nullable(() => fields.text() as KeyId),
    user: fields.nullable(() => fields.text()),
    feature: fields.text(),
    trace: fields.nullable(() => fields.text()),
    kind: fields.oneOf(["generate", "count"]),
    provider: fields.text(),
    modelRequested: fields.text(),
    model: fields.id(),
    upstreamModel: fields.text(),
    deployment: fields.id(),
    region: fields.nullable(() => fields.text()),
    priceVersion: fields.id(),
    stream: fields.flag(),
    bound: { input: fields.count(), output: fields.count(), certainty: fields.oneOf(["proof", "rule"]) },
    startedAt: fields.number(),
    markupMillionths: fields.version === 1 ? NO_MARKUP : fields.count(),
  };
  return fields.last({
    facts,
    worstCase: fields.amount(),
    inputRate: fields.amount(),
    outputRate: fields.amount(),
    tokensPerSecond: fields.number(),
  });
}

/** `mark` 0 means: the request left. */
export function encodeMark(mark: number): string {
  return `${VERSION}:${mark}`;
}

/** Every attempt has this mark, and most no other: 0.3 µs and 800 bytes less a call. */
const SENT = Buffer.from(encodeMark(0));

export function decodeMark(attempt: AttemptId, payload: Buffer): number {
  if (payload.equals(SENT)) return 0;
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
    ...TOKEN_CLASSES.map((tokenClass) => usage.tokens[tokenClass]),
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
  const fields = new Fields("SETTLE", attempt, payload, VERSION);
  const status = fields.oneOf(ATTEMPT_STATUSES);
  const source = fields.oneOf(["reported", "counted"]);
  const tokens = { ...NO_TOKENS } as Record<TokenClass, number>;
  for (const tokenClass of TOKEN_CLASSES) tokens[tokenClass] = fields.count();
  return fields.last({
    attempt,
    status,
    usage: { tokens, source },
    cost: fields.amount(),
    charge: fields.amount(),
    estimated: fields.flag(),
    dispatchUnknown: fields.flag(),
    modelServed: fields.text(),
    latencyMs: fields.count(),
    firstTokenMs: fields.nullable(() => fields.count()),
  });
}

const MARK = /^1:(\d{1,15})$/;
const AMOUNT = /^\d{1,38}$/;

/** Reads a record's fields in order, each checked: 5 µs an ADMIT; a schema of the same took 10. */
class Fields {
  readonly #what: string;
  readonly #values: readonly unknown[];
  #at = 0;

  readonly version: number;

  constructor(kind: string, attempt: AttemptId, payload: Buffer, newest: number) {
    this.#what = `the ${kind} record of attempt ${attempt}`;
    let values: unknown;
    try {
      values = JSON.parse(payload.toString());
    } catch (cause) {
      throw new RecordUnreadable(`${this.#what} is not JSON`, { cause });
    }
    this.#values = Array.isArray(values) ? values : [];
    this.version = this.count();
    if (this.version < 1 || this.version > newest)
      throw new RecordUnreadable(`${this.#what} is of a version that this process does not know`);
  }

  text(): string {
    const value = this.#next();
    return typeof value === "string" ? value : this.#refuse();
  }

  id<Id extends Uuid>(): Id {
    const value = this.#next();
    return typeof value === "string" && isUuid(value) ? (value as Id) : this.#refuse();
  }

  number(): number {
    const value = this.#next();
    return typeof value === "number" && value >= 0 ? value : this.#refuse();
  }

  count(): number {
    const value = this.number();
    return Number.isSafeInteger(value) ? value : this.#refuse();
  }

  amount(): PicoDollars {
    const value = this.#next();
    return typeof value === "string" && AMOUNT.test(value) ? BigInt(value) : this.#refuse();
  }

  flag(): boolean {
    const value = this.#next();
    return typeof value === "boolean" ? value : this.#refuse();
  }

  oneOf<Value extends string>(values: readonly Value[]): Value {
    const value = this.#next();
    return values.find((candidate) => candidate === value) ?? this.#refuse();
  }

  nullable<Value>(read: () => Value): Value | null {
    if (this.#values[this.#at] !== null) return read();
    this.#at += 1;
    return null;
  }

  /** The whole record, which must end here. */
  last<Whole>(whole: Whole): Whole {
    return this.#at === this.#values.length ? whole : this.#refuse();
  }

  #next(): unknown {
    return this.#values[this.#at++];
  }

  #refuse(): never {
    throw new RecordUnreadable(`${this.#what} does not decode at its field ${this.#at - 1}`);
  }
}
