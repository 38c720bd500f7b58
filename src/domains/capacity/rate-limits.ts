import type { ProjectId, TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import { addressOf, existing, type Page, pageAmong, type WholeListQuery } from "../../storage/snapshot/index.ts";
import type { Model } from "../catalog/index.ts";
import type { Allowed } from "../identity/index.ts";
import { MAX_AMOUNT } from "./level.ts";
import type { LimitVerbs } from "./limits.ts";
import type { CapacityPart, Dimension, LimitId } from "./model.ts";
import type { CapacityVerbsNeeds } from "./needs.ts";
import { planOf } from "./plan.ts";
import { limitOf } from "./source.ts";
import { findLimit, readLimits } from "./store.ts";

/** What a project may ask of a model a minute: the least of the limits that are about it. {@link MAX_AMOUNT} where there is none. */
export interface RateLimitView {
  readonly id: string;
  /** By name. */
  readonly model: string;
  readonly requests: number;
  readonly tokens: number;
}

/** Omitted keeps, {@link MAX_AMOUNT} ends what the tenant set. */
export interface RateLimitFields {
  readonly requests?: number | undefined;
  readonly tokens?: number | undefined;
}

/**
 * The limits that a tenant sets for its projects itself, in its transaction. They are beside those that the platform set: the stricter one
 * is felt. All throw Problem.
 */
export interface RateLimitVerbs {
  list(tx: TenantTransaction, allowed: Allowed<"projects:read">, project: ProjectId, page: WholeListQuery): Promise<Page<RateLimitView>>;
  change(
    tx: TenantTransaction,
    allowed: Allowed<"projects:write">,
    project: ProjectId,
    id: string,
    fields: RateLimitFields,
  ): Promise<{ readonly before: RateLimitView; readonly after: RateLimitView }>;
}

export interface RateLimitNeeds extends Pick<CapacityVerbsNeeds, "keyring"> {
  readonly limits: LimitVerbs<"projects:read", "projects:write">;
  /** What the tenant's keys may call. */
  readonly modelsOf: (tenant: TenantId) => readonly Model[];
  readonly tierOf: (tenant: TenantId) => string | null;
  readonly platformPart: () => CapacityPart;
}

export function createRateLimitVerbs(needs: RateLimitNeeds): RateLimitVerbs {
  return {
    async list(tx, _allowed, project, page) {
      const rows = among(needs, tx, project);
      for (const param of ["after", "before"] as const)
        if (page[param] !== undefined && !rows.some(({ id }) => id === page[param]))
          throw new Problem("invalid_request", { param, message: `'${param}' must be the id of a rate limit of this project.` });
      const { data, ...rest } = pageAmong(rows, page);
      const view = await viewing(needs, tx, project);
      return { ...rest, data: data.map(view) };
    },

    async change(tx, allowed, project, id, fields) {
      const row = existing(among(needs, tx, project).find((each) => each.id === id));
      const before = (await viewing(needs, tx, project))(row);
      for (const dimension of ["requests", "tokens"] as const)
        if (fields[dimension] !== undefined) await setOwn(needs, tx, allowed, { project, dimension, ...row }, fields[dimension]);
      return { before, after: (await viewing(needs, tx, project))(row) };
    },
  };
}

interface RateLimited {
  readonly id: string;
  readonly model: Model;
}

/** One for each model, of an id that says which, for there is no row where nothing is set. */
function among({ modelsOf }: RateLimitNeeds, tx: TenantTransaction, project: ProjectId): RateLimited[] {
  return modelsOf(tenantOf(tx)).map((model) => ({ id: `rl_${project}_${model.id}`, model }));
}

/** Shows rate limits of the project, as they stand in this transaction. */
async function viewing(
  { keyring, tierOf, platformPart }: RateLimitNeeds,
  tx: TenantTransaction,
  project: ProjectId,
): Promise<(of: RateLimited) => RateLimitView> {
  const tenant = tenantOf(tx);
  const rows = await readLimits(tx);
  const own: CapacityPart = { limits: rows.map((row) => limitOf(keyring(tenant), row)), tiers: new Map() };
  return ({ id, model }) => {
    const subject = { tenant, tier: tierOf(tenant), project, key: null, model: model.id, deployment: null };
    const { limits, isShared } = planOf(subject, own, platformPart());
    const least = (dimension: Dimension): number =>
      Math.min(MAX_AMOUNT, ...limits.filter((limit, at) => limit.dimension === dimension && !isShared[at]).map(({ amount }) => amount));
    return { id, model: model.name, requests: least("requests"), tokens: least("tokens") };
  };
}

interface OwnLimit extends RateLimited {
  readonly project: ProjectId;
  readonly dimension: "requests" | "tokens";
}

async function setOwn(
  { limits, keyring }: RateLimitNeeds,
  tx: TenantTransaction,
  allowed: Allowed<"projects:write">,
  { project, dimension, model }: OwnLimit,
  amount: number,
): Promise<void> {
  const name = `${dimension}-${project}-${model.id}`;
  if (amount === MAX_AMOUNT) {
    const present = await findLimit(tx, null, addressOf<LimitId>(keyring(tenantOf(tx)), "limits", name));
    if (present !== undefined) await limits.archive(tx, allowed, null, name, null);
    return;
  }
  // In any 60 seconds at most the number, as it is called: a burst would be above it.
  const fields = { scope: { kind: "project", project, model: model.id }, dimension, limit: amount, window: "sliding" } as const;
  await limits.put(tx, allowed, null, name, fields, null);
}
