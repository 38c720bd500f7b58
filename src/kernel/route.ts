import type { z } from "zod";

/**
 * An endpoint as data. From one value come the HTTP mount, the OpenAPI entry, the permission table, the audit row and
 * the generated tests for 400, 401, 403 and 404.
 */
export interface Route<Proof = unknown, Transaction = unknown, Params = unknown, Query = unknown, Body = unknown, Result = unknown> {
  /** `<collection>.<verb>`: the OpenAPI operation id and the audit action, e.g. `projects.put`. Unique. */
  readonly id: string;
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  /** From the root, parameters as `{name}`: `/admin/v1/tenants/{tenant}/projects/{project}`. */
  readonly path: string;
  readonly summary: string;
  /** The permission the caller must hold. */
  readonly permission: string;
  /**
   * Whose rows the route touches. `platform`: the platform's own, only for principals of the platform. `path`: those of the
   * tenant that the path parameter `tenant` names; anybody but that tenant and the platform gets 404. `own`: the caller's tenant.
   * `organization`: the same, but for the platform, which administers tenants by their paths.
   */
  readonly reach: "platform" | "path" | "own" | "organization";
  readonly params: z.ZodType<Params>;
  readonly query: z.ZodType<Query>;
  /** Null for routes without a body. Unknown fields are refused. */
  readonly body: z.ZodType<Body> | null;
  readonly result: z.ZodType<Result>;
  /** Where the answer is a download: the content types it can have. `result` is then of its text. Only on a `GET`. */
  readonly downloads?: readonly string[];
  /** A call that succeeds on a fresh installation once `before` ran; the docs show it and the matrix varies it. */
  readonly example: {
    readonly params: Readonly<Record<string, string>>;
    readonly query?: Readonly<Record<string, string>>;
    readonly body?: unknown;
  };
  /** Null for reads. Each successful write leaves one audit row, written in its transaction. */
  readonly audit: { readonly action: string } | null;
  readonly handler: (context: RouteContext<Proof, Transaction, Params, Query, Body>) => Promise<Answer<Result>>;
}

export interface RouteContext<Proof, Transaction, Params, Query, Body> {
  /** `Allowed<permission>` for the tenant that `reach` names. */
  readonly allowed: Proof;
  /** Open for the tenant in `allowed`; committed after the handler returns, rolled back if it throws. */
  readonly transaction: Transaction;
  readonly params: Params;
  readonly query: Query;
  readonly body: Body;
  /** The revision in `If-Match`, if any. */
  readonly ifMatch: number | null;
}

/** What a handler gives back. */
export interface Answer<Result> {
  readonly status?: 200 | 201;
  readonly body: Result;
  /** Sent in place of `body`, by a route with `downloads`. */
  readonly download?: Download;
  /** Sent as `etag`. */
  readonly revision?: number;
  /** For the audit row of a write; secrets masked by the handler's own `view`. */
  readonly change?: { readonly target: string; readonly before: unknown; readonly after: unknown };
  /** Fields of `body` that are shown this once: an idempotent replay and the record omit them. */
  readonly shownOnce?: readonly string[];
  /** Whether the configuration snapshot must take the change in before the answer is sent. */
  readonly configurationChanged?: boolean;
  /** Ids of tenants whose configuration a platform's route changed beside its own. */
  readonly tenantsChanged?: readonly string[];
}

/** Text that is sent while it is read. */
export interface Download {
  readonly contentType: string;
  readonly fileName: string;
  /** Writes all of it, within the handler's transaction. `to` resolves when there is room for more, and rejects when the reader has left. */
  write(to: (text: string) => Promise<void>): Promise<void>;
}

/**
 * Makes a typed `route` function: `Proofs` maps each permission to the proof its handlers receive, so a route that names
 * one permission and calls a verb that asks for another does not compile, and a route without a permission does not either.
 */
export function routeBuilder<Proofs extends Record<string, unknown>, Transaction>() {
  return <Permission extends keyof Proofs & string, Params, Query, Body, Result>(
    route: Omit<Route<Proofs[Permission], Transaction, Params, Query, Body, Result>, "permission"> & { readonly permission: Permission },
  ): Route<Proofs[Permission], Transaction, Params, Query, Body, Result> => route;
}
