import { Counter, Gauge, Registry, collectDefaultMetrics } from "prom-client";
import type { CallEvent } from "./call-event.ts";
import { Histogram } from "./histogram.ts";

/** Numbers read when /metrics is scraped. */
export interface Gauges {
  readonly callsInFlight: () => number;
  /** Settled attempts that PostgreSQL does not have yet. */
  readonly unshippedRecords: () => number;
  /** Since the configuration was last known to be current. */
  readonly configurationAgeSeconds: () => number;
  /** Limits × subjects that are counted in memory. */
  readonly limitLevels: () => number;
}

const LATENCY_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/** Prometheus metrics. No label names a tenant, a key or a model a caller made up: cardinality is the catalog's. */
export function createMetrics() {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const calls = new Counter({
    name: "atrium_calls_total",
    help: "Calls by endpoint and how they ended.",
    labelNames: ["endpoint", "outcome", "status"],
    registers,
  });
  const duration = new Histogram({
    name: "atrium_call_duration_seconds",
    help: "From the request's arrival to its last byte.",
    label: "endpoint",
    buckets: LATENCY_SECONDS,
  });
  const firstToken = new Histogram({
    name: "atrium_first_token_seconds",
    help: "From dispatch to the first frame.",
    label: "provider",
    buckets: LATENCY_SECONDS,
  });
  const tokens = new Counter({ name: "atrium_tokens_total", help: "Tokens charged.", labelNames: ["provider", "direction"], registers });
  const charge = new Counter({
    name: "atrium_charge_usd_total",
    help: "Charged to tenants, USD (rounded; the ledger is exact).",
    labelNames: ["provider"],
    registers,
  });
  const refusals = new Counter({
    name: "atrium_refusals_total",
    help: "Requests that authorization refused, unknown credentials included.",
    labelNames: ["code"],
    registers,
  });
  const limited = new Counter({
    name: "atrium_limited_total",
    help: "Calls that a rate or concurrency limit refused, by what it counts.",
    labelNames: ["dimension"],
    registers,
  });
  // `labels()` builds and hashes a label set each time, so the children of each endpoint and provider are bound once; even so an
  // increment costs 0.4 µs, so counts are summed up here and handed over when somebody looks.
  const endpoints = new Map<string, ReturnType<typeof bindEndpoint>>();
  const providers = new Map<string, ReturnType<typeof bindProvider>>();
  const bindEndpoint = (endpoint: string) => ({
    duration: duration.of(endpoint),
    ended: { answered: new Map(), truncated: new Map(), client_left: new Map(), problem: new Map() } satisfies Record<
      CallEvent["outcome"],
      Map<number, Sum>
    >,
  });
  const bindProvider = (provider: string) => ({
    firstToken: firstToken.of(provider),
    input: sum(tokens.labels(provider, "input")),
    output: sum(tokens.labels(provider, "output")),
    charge: sum(charge.labels(provider)),
  });
  const sums: Sum[] = [];
  const sum = (counter: Incremented): Sum => {
    const made = new Sum(counter);
    sums.push(made);
    return made;
  };
  return {
    call(event: CallEvent): void {
      const endpoint = remembered(endpoints, event.endpoint, bindEndpoint);
      endpoint.duration.observe(event.durationMs / 1000);
      const ended: Map<number, Sum> = endpoint.ended[event.outcome];
      let count = ended.get(event.status);
      if (count === undefined) ended.set(event.status, (count = sum(calls.labels(event.endpoint, event.outcome, String(event.status)))));
      count.value += 1;
      if (event.limitDimension !== null) limited.inc({ dimension: event.limitDimension });
      if (event.provider === null) return;
      const provider = remembered(providers, event.provider, bindProvider);
      if (event.firstTokenMs !== null) provider.firstToken.observe(event.firstTokenMs / 1000);
      if (event.inputTokens !== null) provider.input.value += event.inputTokens;
      if (event.outputTokens !== null) provider.output.value += event.outputTokens;
      if (event.chargeUsd !== null) provider.charge.value += Number(event.chargeUsd);
    },
    refused(code: string): void {
      refusals.inc({ code });
    },
    watch(gauges: Gauges): void {
      gauge("atrium_calls_in_flight", "Calls that have begun and not ended.", gauges.callsInFlight);
      gauge("atrium_journal_unshipped_records", "Journal records that PostgreSQL does not have yet.", gauges.unshippedRecords);
      gauge("atrium_configuration_age_seconds", "Since the configuration was last confirmed.", gauges.configurationAgeSeconds);
      gauge("atrium_limit_levels", "Limits and subjects that are counted in memory.", gauges.limitLevels);
    },
    /** Prometheus text format. */
    async render(): Promise<string> {
      for (const each of sums) each.handOver();
      return [await registry.metrics(), duration.render(), firstToken.render()].join("\n");
    },
    contentType: registry.contentType,
  };

  function gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  }
}

interface Incremented {
  inc(by: number): void;
}

/** What a counter has to be told. */
class Sum {
  value = 0;
  readonly #counter: Incremented;

  constructor(counter: Incremented) {
    this.#counter = counter;
  }

  handOver(): void {
    this.#counter.inc(this.value);
    this.value = 0;
  }
}

function remembered<Value>(known: Map<string, Value>, key: string, make: (key: string) => Value): Value {
  let value = known.get(key);
  if (value === undefined) known.set(key, (value = make(key)));
  return value;
}

export type Metrics = ReturnType<typeof createMetrics>;
