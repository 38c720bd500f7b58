import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import type { CallEvent } from "./call-event.ts";

/** Numbers read when /metrics is scraped. */
export interface Gauges {
  readonly callsInFlight: () => number;
  /** Settled attempts that PostgreSQL does not have yet. */
  readonly unshippedRecords: () => number;
  /** Since the configuration was last known to be current. */
  readonly configurationAgeSeconds: () => number;
}

const LATENCY_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/** Prometheus metrics. No label names a tenant, a key or a model a caller made up: cardinality is the catalog's. */
export function createMetrics() {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const calls = new Counter({ name: "atrium_calls_total", help: "Calls by endpoint and how they ended.", labelNames: ["endpoint", "outcome", "status"], registers });
  const duration = new Histogram({ name: "atrium_call_duration_seconds", help: "From the request's arrival to its last byte.", labelNames: ["endpoint"], buckets: LATENCY_SECONDS, registers });
  const firstToken = new Histogram({ name: "atrium_first_token_seconds", help: "From dispatch to the first frame.", labelNames: ["provider"], buckets: LATENCY_SECONDS, registers });
  const tokens = new Counter({ name: "atrium_tokens_total", help: "Tokens charged.", labelNames: ["provider", "direction"], registers });
  const charge = new Counter({ name: "atrium_charge_usd_total", help: "Charged to tenants, USD (rounded; the ledger is exact).", labelNames: ["provider"], registers });
  // `labels()` builds and hashes a label set each time; children are bound once per combination instead.
  const bound = new Map<string, { inc(value?: number): void }>();
  const child = (counter: Counter, name: string, labels: readonly string[]) => {
    const key = `${name}|${labels.join("|")}`;
    let found = bound.get(key);
    if (found === undefined) bound.set(key, (found = counter.labels(...labels)));
    return found;
  };
  return {
    call(event: CallEvent): void {
      child(calls, "calls", [event.endpoint, event.outcome, String(event.status)]).inc();
      duration.observe({ endpoint: event.endpoint }, event.durationMs / 1000);
      if (event.provider === null) return;
      if (event.firstTokenMs !== null) firstToken.observe({ provider: event.provider }, event.firstTokenMs / 1000);
      if (event.inputTokens !== null) child(tokens, "tokens", [event.provider, "input"]).inc(event.inputTokens);
      if (event.outputTokens !== null) child(tokens, "tokens", [event.provider, "output"]).inc(event.outputTokens);
      if (event.chargeUsd !== null) child(charge, "charge", [event.provider]).inc(Number(event.chargeUsd));
    },
    watch(gauges: Gauges): void {
      gauge("atrium_calls_in_flight", "Calls that have begun and not ended.", gauges.callsInFlight);
      gauge("atrium_journal_unshipped_records", "Journal records that PostgreSQL does not have yet.", gauges.unshippedRecords);
      gauge("atrium_configuration_age_seconds", "Since the configuration was last confirmed.", gauges.configurationAgeSeconds);
    },
    /** Prometheus text format. */
    render: (): Promise<string> => registry.metrics(),
    contentType: registry.contentType,
  };

  function gauge(name: string, help: string, read: () => number): void {
    new Gauge({ name, help, registers, collect() { this.set(read()); } });
  }
}

export type Metrics = ReturnType<typeof createMetrics>;
