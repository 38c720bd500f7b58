import type { FastifyInstance } from "fastify";
import type { Allow, Authenticate } from "../../domains/identity/index.ts";
import { PLATFORM_TENANT } from "../../kernel/ids.ts";
import type { Metrics } from "../../telemetry/index.ts";
import { credentialOf } from "./credential.ts";

/** What readiness depends on, read when asked. */
export interface Readiness {
  readonly draining: boolean;
  readonly journal: "open" | "failed";
  readonly configurationAgeMs: number;
}

export interface MetricsNeeds {
  readonly authenticate: Authenticate;
  readonly allow: Allow;
  readonly metrics: Metrics;
}

export interface ProbeNeeds {
  readonly readiness: () => Readiness;
  /** Older configuration than this is not served. */
  readonly stalenessBoundMs: number;
}

/** The configuration is confirmed twice a second; a few missed confirmations mean that the database is away. */
const DEGRADED_AFTER_MS = 3_000;
const RETRY_AFTER_SECONDS = "1";

/** Load balancers ask with HEAD as well. */
const PROBED = { exposeHeadRoute: true } as const;

/** `/livez`: the process answers. `/readyz`: it should get traffic. */
export function mountProbes(app: FastifyInstance, needs: ProbeNeeds): void {
  app.get("/livez", PROBED, async () => ({ status: "ok" }));
  app.get("/readyz", PROBED, async (_request, reply) => {
    const { status, ...facts } = judge(needs.readiness(), needs.stalenessBoundMs);
    if (status === "unready") reply.code(503).header("retry-after", RETRY_AFTER_SECONDS);
    return { status, ...facts };
  });
}

/** `/metrics`: Prometheus, with a platform key. */
export function mountMetrics(app: FastifyInstance, { authenticate, allow, metrics }: MetricsNeeds): void {
  app.get("/metrics", async (request, reply) => {
    const principal = await authenticate(credentialOf(request.headers), { family: "metrics", address: request.remoteAddress });
    allow(principal, "platform:metrics:read", PLATFORM_TENANT);
    return reply.type(metrics.contentType).send(await metrics.render());
  });
}

function judge({ draining, journal, configurationAgeMs }: Readiness, boundMs: number) {
  const reasons: string[] = [];
  if (draining) reasons.push("the server is stopping");
  if (journal === "failed") reasons.push("the usage journal cannot be written: billable calls are refused");
  if (configurationAgeMs > boundMs) reasons.push("the database is away for longer than known keys may be served");
  const unready = reasons.length > 0;
  const degraded = configurationAgeMs > DEGRADED_AFTER_MS;
  if (degraded && !unready) reasons.push("the database is away: known keys are served, nothing can be changed");
  return { status: unready ? "unready" : degraded ? "degraded" : "ok", reasons };
}
