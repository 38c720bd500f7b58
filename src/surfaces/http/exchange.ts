import type { IncomingMessage, ServerResponse } from "node:http";
import type { FrameStream, WholeBody } from "../../kernel/frame.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { formatUsd } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { CallContext, Caller, Delivery } from "../../pipeline/caller.ts";
import type { CheckedResponse } from "../../pipeline/check.ts";
import type { Dispatched } from "../../pipeline/evidence.ts";
import { attributionOf } from "./attribution.ts";
import type { BodyReader } from "./body.ts";
import { credentialOf } from "./credential.ts";
import type { Drain } from "./drain.ts";
import { problemHeaders } from "./problem.ts";
import { StreamWriter } from "./stream-writer.ts";
import type { SurfaceWire } from "./wire.ts";

/** One HTTP request and its response, as the pipeline's `Caller`. */
export class Exchange implements Caller {
  readonly credential: string | null;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #call: CallContext;
  readonly #wire: SurfaceWire;
  readonly #takeBody: BodyReader;
  readonly #drain: Drain;
  readonly #abort = new AbortController();
  readonly #headers: Record<string, string>;
  #asked: ModelRequest | null = null;
  #writer: StreamWriter | null = null;
  #sentAt = 0;

  constructor(needs: { readonly request: IncomingMessage; readonly response: ServerResponse; readonly call: CallContext; readonly wire: SurfaceWire; readonly takeBody: BodyReader; readonly drain: Drain }) {
    this.#request = needs.request;
    this.#response = needs.response;
    this.#call = needs.call;
    this.#wire = needs.wire;
    this.#takeBody = needs.takeBody;
    this.#drain = needs.drain;
    this.credential = credentialOf(needs.request.headers);
    this.#headers = { "x-request-id": needs.call.id, traceparent: `00-${needs.call.trace}-${needs.call.id.slice(-12)}0000-01` };
    const stop = (): void => this.#abort.abort();
    this.#drain.signal.addEventListener("abort", stop, { once: true });
    this.#response.once("close", () => {
      this.#drain.signal.removeEventListener("abort", stop);
      if (!this.#response.writableFinished) stop();
    });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  drained(): boolean {
    return this.#drain.signal.aborted;
  }

  async read(tenant: TenantId): Promise<ModelRequest> {
    const body = await this.#takeBody(this.#request, tenant);
    this.#response.once("close", body.release);
    this.#asked = this.#wire.parse(body.bytes, attributionOf(this.#request.headers));
    if (this.#asked.stream) this.#writer = new StreamWriter(this.#response, this.#headers);
    return this.#asked;
  }

  send(response: CheckedResponse, evidence: Dispatched): Promise<Delivery> {
    this.#sentAt = performance.now();
    return response.body.kind === "whole" ? this.#sendWhole(response, response.body.whole, evidence) : this.#sendStream(response, response.body.stream, evidence);
  }

  refuse(problem: Problem): void {
    const response = this.#response;
    if (response.destroyed || response.writableEnded) return;
    if (this.#writer?.begun === true) return this.#writer.fail(this.#wire.renderError(problem));
    const body = Buffer.from(JSON.stringify(this.#wire.envelope(problem)));
    response.writeHead(problem.status, { ...this.#headers, ...problemHeaders(problem), "content-type": "application/json", "content-length": body.length }).end(body);
  }

  async #sendWhole(response: CheckedResponse, whole: WholeBody, evidence: Dispatched): Promise<Delivery> {
    const { settlement } = await response.settled;
    const bytes = response.wire === this.#wire.dialect ? whole.bytes : this.#wire.renderWhole(whole.events(), evidence.slot.deployment.provider);
    return new Promise((resolve) => {
      this.#response.once("close", () => resolve({ kind: "client_left" }));
      if (this.#response.destroyed) return resolve({ kind: "client_left" });
      this.#response.writeHead(200, { ...this.#headers, ...evidenceHeaders(evidence), "x-atrium-cost-usd": formatUsd(settlement.charge), "x-atrium-overhead-ms": this.#overhead(settlement.latencyMs), "content-type": "application/json", "content-length": bytes.length });
      this.#response.end(bytes, () => resolve({ kind: "delivered" }));
    });
  }

  #sendStream(response: CheckedResponse, stream: FrameStream, evidence: Dispatched): Promise<Delivery> {
    const request = this.#asked as ModelRequest;
    return (this.#writer as StreamWriter).pipe(stream, evidenceHeaders(evidence), {
      forward: response.wire === this.#wire.dialect,
      dropUsageOnly: !request.includeUsage,
      render: this.#wire.streamRenderer(request, evidence.slot.deployment.provider),
      renderError: (problem) => this.#wire.renderError(problem),
    });
  }

  /** What the platform added to the upstream's own time, ms. */
  #overhead(upstreamMs: number): string {
    return Math.max(0, this.#sentAt - this.#call.startedMonotonic - upstreamMs).toFixed(2);
  }
}

function evidenceHeaders({ route, slot: { deployment }, of }: Dispatched): Record<string, string> {
  return {
    "x-atrium-model": headerText(route.model.name),
    "x-atrium-deployment": headerText(deployment.name),
    "x-atrium-provider": deployment.provider,
    ...(deployment.region === null ? {} : { "x-atrium-region": headerText(deployment.region) }),
    "x-atrium-attempts": String(of.call.hops.length),
  };
}

/** Header values are Latin-1; names may be anything. */
function headerText(name: string): string {
  return /^[\x20-\x7e]*$/.test(name) ? name : encodeURIComponent(name);
}
