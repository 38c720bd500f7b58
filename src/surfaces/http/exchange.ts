import type { IncomingMessage, ServerResponse } from "node:http";
import type { LimitFigures } from "../../domains/capacity/index.ts";
import type { Deployment } from "../../domains/catalog/index.ts";
import type { Principal } from "../../domains/identity/index.ts";
import { PARSERS, isLarge, type Providers } from "../../domains/providers/index.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { FrameStream, TokenCount, WholeBody } from "../../kernel/frame.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { formatUsd } from "../../kernel/money.ts";
import { asProblem, Problem } from "../../kernel/problem.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { CallContext, Caller, Delivery } from "../../pipeline/caller.ts";
import type { CheckedResponse } from "../../pipeline/check.ts";
import type { Dispatched } from "../../pipeline/evidence.ts";
import { attributionOf } from "./attribution.ts";
import { type BodyReader, discardBody, joined, type TakenBody } from "./body.ts";
import { credentialOf } from "./credential.ts";
import type { Drain, InFlight } from "./drain.ts";
import { CLIENT_LEFT, finish } from "./finish.ts";
import { problemHeaders } from "./problem.ts";
import { retell } from "./retell.ts";
import { StreamWriter } from "./stream-writer.ts";
import type { SurfaceWire } from "./wire.ts";

export interface ExchangeNeeds {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly call: CallContext;
  readonly wire: SurfaceWire;
  readonly clock: Clock;
  readonly takeBody: BodyReader;
  readonly parseLarge: Providers["parseLarge"];
  readonly drain: Drain;
  readonly pace: Pace;
}

/** What is done when nothing happens, ms. */
export interface Pace {
  /** A stream tells its reader that it is alive at least this often: below common proxies' idle timeouts. */
  readonly silenceMs: number;
  /** A client that takes nothing of its answer for this long is treated as gone. */
  readonly stallMs: number;
}

export const PACE: Pace = { silenceMs: 15_000, stallMs: 120_000 };

/** One HTTP request and its response, as the pipeline's `Caller`. */
export class Exchange implements Caller, InFlight {
  readonly credential: string | null;
  readonly #needs: ExchangeNeeds;
  readonly #response: ServerResponse;
  readonly #abort = new AbortController();
  #principal: Principal | null = null;
  #stopped: Problem | null = null;
  #asked: ModelRequest | null = null;
  #limits: (() => LimitFigures) | null = null;
  #writer: StreamWriter | null = null;
  #body: TakenBody | null = null;
  /** Told when the connection is gone, or the response over. */
  #closed: ((delivery: Delivery) => void) | null = null;

  constructor(needs: ExchangeNeeds) {
    const { request, response, drain } = needs;
    this.#needs = needs;
    this.#response = response;
    this.credential = credentialOf(request.headers);
    const leave = drain.enter(this);
    response.on("close", () => {
      leave();
      this.#body?.release();
      if (!response.writableFinished) this.#abort.abort();
      this.#closed?.(CLIENT_LEFT);
    });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get principal(): Principal | null {
    return this.#principal;
  }

  belongsTo(principal: Principal): void {
    this.#principal = principal;
  }

  stop(problem: Problem): void {
    this.#stopped ??= problem;
    this.#abort.abort();
  }

  stopped(): Problem | null {
    return this.#stopped;
  }

  async read(tenant: TenantId): Promise<ModelRequest> {
    const { request, wire, takeBody, parseLarge, pace } = this.#needs;
    const body = await takeBody(request, tenant);
    if (this.#response.closed) body.release();
    else this.#body = body;
    const attribution = attributionOf(request.headers);
    this.#asked = isLarge(body.chunks, body.size)
      ? await parseLarge(wire.parser, body.chunks, attribution, this.signal)
      : PARSERS[wire.parser](joined(body), attribution);
    if (this.#asked.stream) this.#writer = new StreamWriter(this.#response, () => this.#head(), pace.silenceMs);
    return this.#asked;
  }

  tellLimits(figures: () => LimitFigures): void {
    this.#limits = figures;
  }

  send(response: CheckedResponse, evidence: Dispatched): Promise<Delivery> {
    const { body } = response;
    switch (body.kind) {
      case "whole":
        return this.#sendBytes(response, evidence, () => this.#wholeBytes(response, body.whole, evidence));
      case "stream":
        return this.#sendStream(response, body.stream, evidence);
      case "count":
        return this.#sendBytes(response, evidence, () => this.#countBytes(body.count), {
          "x-atrium-token-count": body.count.exact ? "exact" : "estimated",
        });
      default:
        return body satisfies never;
    }
  }

  refuse(problem: Problem): void {
    const { request, wire, call } = this.#needs;
    const response = this.#response;
    if (response.destroyed || response.writableEnded) return;
    response.setTimeout(this.#needs.pace.stallMs);
    if (this.#writer?.begun === true) return this.#writer.fail(wire.renderError(problem, call.id));
    this.#writer?.hush();
    const body = Buffer.from(JSON.stringify(wire.envelope(problem, call.id)));
    response
      .writeHead(problem.status, {
        ...this.#head(),
        ...problemHeaders(problem),
        "content-type": "application/json",
        "content-length": body.length,
      })
      .end(body);
    discardBody(request);
  }

  /** The headers of every answer. A connection that outlived the drain would only be cut. */
  #head(): Record<string, string> {
    const { call, clock, drain, wire } = this.#needs;
    const head: Record<string, string> = { "x-request-id": call.id, traceparent: `00-${call.trace}-${call.id.slice(-12)}0000-01` };
    if (wire.requestIdHeader !== undefined) head[wire.requestIdHeader] = call.id;
    if (this.#limits !== null) Object.assign(head, wire.limitHeaders(this.#limits(), clock.now()));
    if (drain.draining) head["connection"] = "close";
    return head;
  }

  async #sendBytes(
    response: CheckedResponse,
    evidence: Dispatched,
    render: () => Buffer | Problem,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Delivery> {
    const { settlement } = await response.settled;
    const bytes = render();
    if (bytes instanceof Problem) {
      this.refuse(bytes);
      return { kind: "truncated", problem: bytes };
    }
    return new Promise((resolve) => {
      if (this.#response.destroyed) return resolve(CLIENT_LEFT);
      this.#closed = resolve;
      this.#response.writeHead(200, {
        ...this.#head(),
        ...evidenceHeaders(evidence),
        ...headers,
        "x-atrium-cost-usd": formatUsd(settlement.charge),
        "x-atrium-overhead-ms": this.#overhead(settlement.latencyMs),
        "content-type": "application/json",
        "content-length": bytes.length,
      });
      finish(this.#response, resolve, bytes);
      if (!this.#response.writableFinished) this.#response.setTimeout(this.#needs.pace.stallMs);
    });
  }

  /** A problem where the answer cannot be told in the caller's dialect: it has been paid for all the same. */
  #wholeBytes(response: CheckedResponse, whole: WholeBody, evidence: Dispatched): Buffer | Problem {
    const { wire, call } = this.#needs;
    if (response.wire === wire.dialect) return whole.bytes;
    try {
      return wire.renderWhole(retell(whole.events(), call.startedAt), evidence.slot.deployment.provider);
    } catch (thrown) {
      return asProblem(thrown);
    }
  }

  #countBytes({ tokens }: TokenCount): Buffer {
    const { renderCount } = this.#needs.wire;
    if (renderCount === undefined) throw new Error("a count on a surface that takes none");
    return renderCount(tokens);
  }

  #sendStream(response: CheckedResponse, stream: FrameStream, evidence: Dispatched): Promise<Delivery> {
    const request = this.#asked as ModelRequest;
    const { wire, call, pace } = this.#needs;
    const render = wire.streamRenderer(request, evidence.slot.deployment.provider);
    this.#response.setTimeout(pace.stallMs);
    return (this.#writer as StreamWriter).pipe(stream, evidenceHeaders(evidence), {
      forward: response.wire === wire.dialect,
      dropUsageOnly: !request.includeUsage,
      render: (events) => render(retell(events, call.startedAt)),
      renderError: (problem) => wire.renderError(problem, call.id),
      stopped: () => this.#stopped,
    });
  }

  /** What the platform added to the upstream's own time, ms. */
  #overhead(upstreamMs: number): string {
    const { clock, call } = this.#needs;
    return Math.max(0, clock.monotonic() - call.startedMonotonic - upstreamMs).toFixed(2);
  }
}

function evidenceHeaders(evidence: Dispatched): Record<string, string> {
  const headers = { ...deploymentHeaders(evidence), "x-atrium-attempts": String(evidence.of.call.hops.length) };
  const { outputBound } = evidence.hold;
  return outputBound === null ? headers : { ...headers, "x-atrium-max-output-tokens": String(outputBound) };
}

/** Made once per deployment of a snapshot, which is a deployment of one model. */
const ofDeployment = new WeakMap<Deployment, Record<string, string>>();

function deploymentHeaders({ route, slot: { deployment } }: Dispatched): Record<string, string> {
  const known = ofDeployment.get(deployment);
  if (known !== undefined) return known;
  const made = {
    "x-atrium-model": headerText(route.model.name),
    "x-atrium-deployment": headerText(deployment.name),
    "x-atrium-provider": deployment.provider,
    ...(deployment.region === null ? {} : { "x-atrium-region": headerText(deployment.region) }),
  };
  ofDeployment.set(deployment, made);
  return made;
}

/** Header values are Latin-1; names may be anything. */
function headerText(name: string): string {
  return /^[\x20-\x7e]*$/.test(name) ? name : encodeURIComponent(name);
}
