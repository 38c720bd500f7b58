import type { Deployment } from "../catalog/index.ts";
import { DispatchError } from "./contract.ts";

/** Where a deployment's requests go, and the headers they all carry: names and values in turn, as undici takes them. */
export interface Target {
  readonly origin: string;
  /** Path and query of a route below the base URL (`/chat/completions`). */
  pathOf(route: string): string;
  readonly streamHeaders: string[];
  readonly wholeHeaders: string[];
}

/** What targets of one provider have in common. */
export interface TargetFacts {
  /** Includes `/v1`; null where the credential must name one. */
  readonly defaultBaseUrl: string | null;
  readonly streamContentType: string;
  /** The headers that prove who we are; `secret` is null for a deployment without one. */
  readonly authenticate: (secret: string | null) => string[];
}

/** Finds a deployment's target: made once per deployment of a snapshot. Throws DispatchError `unavailable` without a valid base URL. */
export function createTargets(facts: TargetFacts): (deployment: Deployment) => Target {
  const targets = new WeakMap<Deployment, Target>();
  return (deployment) => {
    const known = targets.get(deployment);
    if (known !== undefined) return known;
    const made = makeTarget(deployment, facts);
    targets.set(deployment, made);
    return made;
  };
}

function makeTarget(deployment: Deployment, facts: TargetFacts): Target {
  const base = deployment.credential?.baseUrl ?? facts.defaultBaseUrl;
  if (base === null || !URL.canParse(base))
    throw new DispatchError(
      { kind: "unavailable" },
      { cause: new Error(`deployment ${deployment.name}: its credential names no valid base_url`) },
    );
  const url = new URL(base);
  const path = url.pathname.replace(/\/+$/, "");
  const common = [
    "content-type",
    "application/json",
    "accept-encoding",
    "identity",
    "user-agent",
    "atrium",
    ...facts.authenticate(deployment.credential?.secret ?? null),
  ];
  return {
    origin: url.origin,
    pathOf: (route) => path + route + url.search,
    streamHeaders: [...common, "accept", facts.streamContentType],
    wholeHeaders: [...common, "accept", "application/json"],
  };
}
