import assert from "node:assert/strict";
import { test } from "node:test";
import { Histogram as Reference, Registry } from "prom-client";
import { Histogram } from "./histogram.ts";

test("what is observed reads as Prometheus's own library writes it: bounds inclusive, buckets cumulative", async () => {
  const about = { name: "took_seconds", help: "How long it took.", buckets: [0.005, 0.1, 1, 2.5] };
  const registry = new Registry();
  const reference = new Reference({ ...about, labelNames: ["endpoint"], registers: [registry] });
  const histogram = new Histogram({ ...about, label: "endpoint" });
  for (const endpoint of ["openai.chat.completions", "anthropic.messages"]) {
    for (const seconds of [0, 0.005, 0.0050001, 0.09, 1, 2.5, 3, 1e9]) {
      reference.labels(endpoint).observe(seconds);
      histogram.of(endpoint).observe(seconds);
    }
  }
  assert.equal(histogram.render(), await registry.metrics());
});
