import type { IncomingMessage, ServerResponse } from "node:http";
import type { Clock } from "../../kernel/clock.ts";
import type { FrameStream, WholeBody } from "../../kernel/frame.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { formatUsd } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { CallContext, Caller, Delivery } from "../../pipeline/caller.ts";
import type { CheckedResponse } from "../../pipeline/check.ts";
import type { Dispatched } from "../../pipeline/evidence.ts";
import { attributionOf } from "./attribution.ts";
import { type BodyReader, discardBody } from "./body.ts";
import { credentialOf } from "./credential.ts";
import type { Drain } from "./drain.ts";
import { problemHeaders } from "./problem.ts";
import { StreamWriter } from "./stream-writer.ts";
import type { SurfaceWire } from "./wire.ts";

export interface ExchangeNeeds {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly call: CallContext;
  readonly wire: SurfaceWire;
  readonly clock: Clock;
  readonly takeBody: BodyReader;
  readonly drain: Drain;
  /** Between two comments of a silent stream, ms. */
  readonly silenceMs?: number | undefined;
}

/** A client that takes nothing of its answer for this long, ms, is treated as gone. */
const CLIENT_STALL_MS = 120_000;

/** One HTTP request and its response, as the pipeline's `Caller`. */
export class Exchange implements Caller {
  readonly credential: string | null;
  readonly #needs: ExchangeNeeds;
  readonly #response: ServerResponse;
  readonly #abort = new AbortController();
  readonly #headers: Record<string, string>;
  #asked: ModelRequest | null = null;
  #writer: StreamWriter | null = null;

  constructor(needs: ExchangeNeeds) {
    const { request, response, call, drain } = needs;
    this.#needs = needs;
    this.#response = response;
    this.credential = credentialOf(request.headers);
    this.#headers = { "x-request-id": call.id, traceparent: `00-${call.trace}-${call.id.slice(-12)}0000-01` };
    const stop = (): void => this.#abort.abort();
    drain.signal.addEventListener("abort", stop, { once: true });
    response.once("close", () => {
      drain.signal.removeEventListener("abort", stop);
      if (!response.writableFinished) stop();
    });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  drained(): boolean {
    return this.#needs.drain.signal.aborted;
  }

  async read(tenant: TenantId): Promise<ModelRequest> {
    const { request, wire, takeBody, silenceMs } = this.#needs;
    const body = await takeBody(request, tenant);
    if (this.#response.closed) body.release();
    else this.#response.once("close", body.release);
    this.#asked = wire.parse(body.bytes, attributionOf(request.headers));
    if (this.#asked.stream) this.#writer = new StreamWriter(this.#response, this.#headers, silenceMs);
    return this.#asked;
  }

  send(response: CheckedResponse, evidence: Dispatched): Promise<Delivery> {
    this.#beginAnswer();
    return response.body.kind === "whole" ? this.#sendWhole(response, response.body.whole, evidence) : this.#sendStream(response, response.body.stream, evidence);
  }

  refuse(problem: Problem): void {
    const { request, wire } = this.#needs;
    const response = this.#response;
    if (response.destroyed || response.writableEnded) return;
    this.#beginAnswer();
    if (this.#writer?.begun === true) return this.#writer.fail(wire.renderError(problem));
    this.#writer?.hush();
    const body = Buffer.from(JSON.stringify(wire.envelope(problem)));
    response.writeHead(problem.status, { ...this.#headers, ...problemHeaders(problem), "content-type": "application/json", "content-length": body.length }).end(body);
    discardBody(request);
  }

  #beginAnswer(): void {
    this.#response.setTimeout(CLIENT_STALL_MS);
    if (this.#needs.drain.draining) this.#headers["connection"] = "close";
  }

  async #sendWhole(response: CheckedResponse, whole: WholeBody, evidence: Dispatched): Promise<Delivery> {
    const { wire } = this.#needs;
    const { settlement } = await response.settled;
    const bytes = response.wire === wire.dialect ? whole.bytes : wire.renderWhole(whole.events(), evidence.slot.deployment.provider);
    return new Promise((resolve) => {
      this.#response.once("close", () => resolve({ kind: "client_left" }));
      if (this.#response.destroyed) return resolve({ kind: "client_left" });
      this.#response.writeHead(200, { ...this.#headers, ...evidenceHeaders(evidence), "x-atrium-cost-usd": formatUsd(settlement.charge), "x-atrium-overhead-ms": this.#overhead(settlement.latencyMs), "content-type": "application/json", "content-length": bytes.length });
      this.#response.end(bytes, () => resolve({ kind: "delivered" }));
    });
  }

  #sendStream(response: CheckedResponse, stream: FrameStream, evidence: Dispatched): Promise<Delivery> {
    const request = this.#asked as ModelRequest;
    const { wire } = this.#needs;
    return (this.#writer as StreamWriter).pipe(stream, evidenceHeaders(evidence), {
      forward: response.wire === wire.dialect,
      dropUsageOnly: !request.includeUsage,
      render: wire.streamRenderer(request, evidence.slot.deployment.provider),
      renderError: (problem) => wire.renderError(problem),
    });
  }

  /** What the platform added to the upstream's own time, ms. */
  #overhead(upstreamMs: number): string {
    const { clock, call } = this.#needs;
    return Math.max(0, clock.monotonic() - call.startedMonotonic - upstreamMs).toFixed(2);
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
