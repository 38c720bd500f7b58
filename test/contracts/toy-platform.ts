import assert from "node:assert/strict";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { PERMISSIONS, ROLES, type Permission, type Principal, type Proofs } from "../../src/domains/identity/index.ts";
import type { AuditRow, Refusal } from "../../src/domains/records/index.ts";
import { createIdMaker, isUuid, PLATFORM_TENANT, type TenantId, type Uuid } from "../../src/kernel/ids.ts";
import { Problem } from "../../src/kernel/problem.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { systemRandom } from "../../src/kernel/random.ts";
import { routeBuilder, type Answer } from "../../src/kernel/route.ts";
import type { TenantTransaction } from "../../src/storage/database/index.ts";
import { createLog } from "../../src/telemetry/index.ts";
import { createHttpServer } from "../../src/surfaces/http/server.ts";
import { mountRoutes, type AnyRoute, type RunnerNeeds } from "../../src/surfaces/admin/index.ts";

/**
 * A platform of two kinds of things, in memory, behind the real route runner: small enough to be right, so that what a test
 * of the runner or of the matrix finds in it was planted there. `defects` are planted by name.
 */
export interface ToyPlatform {
  readonly server: FastifyInstance;
  readonly routes: readonly AnyRoute[];
  readonly adminKey: string;
  readonly audit: readonly AuditRow[];
  readonly refusals: readonly Refusal[];
  /** How often the snapshot was caught up, and to what. */
  readonly caughtUp: readonly number[];
  /** Makes the next catching up fail with this. */
  failCatchUp(error: Error): void;
  checksum(tenant: string): Promise<string>;
}

export type ToyDefect =
  | "foreign-project-by-id"
  | "foreign-tenant-allowed"
  | "deleted-told-apart"
  | "foreign-list"
  | "answer-beyond-schema"
  | "revoked-told-apart"
  | "owner-refused"
  | "unaudited"
  | "lookup-hangs"
  | "crash-on-star"
  | "case-folded"
  | "broken-example";

interface Thing {
  readonly id: Uuid;
  readonly tenant: TenantId;
  readonly name: string;
  readonly display_name: string | null;
  readonly revision: number;
  readonly archived: boolean;
}

interface ToyKey {
  readonly id: string;
  readonly secret: string;
  readonly tenant: TenantId;
  readonly permissions: ReadonlySet<Permission>;
  readonly expiresAt: number | null;
  readonly revoked: boolean;
}

interface State {
  readonly tenants: readonly Thing[];
  readonly projects: readonly Thing[];
  readonly keys: readonly ToyKey[];
  readonly audit: readonly AuditRow[];
  readonly version: number;
}

export async function startToyPlatform(defects: ReadonlySet<ToyDefect> = new Set()): Promise<ToyPlatform> {
  const makeId = createIdMaker(systemClock, systemRandom);
  const adminKey = "toy-platform-admin";
  const admin: ToyKey = {
    id: "bootstrap",
    secret: adminKey,
    tenant: PLATFORM_TENANT,
    permissions: new Set(ROLES.platform_admin),
    expiresAt: null,
    revoked: false,
  };
  const store = { state: { tenants: [], projects: [], keys: [admin], audit: [], version: 0 } as State };
  const caughtUp: number[] = [];
  const refusals: Refusal[] = [];
  let failure: Error | null = null;
  const catchUp = async (version: number) => {
    const error = failure;
    failure = null;
    if (error !== null) throw error;
    caughtUp.push(version);
  };
  const routes = toyRoutes(store, makeId, defects);
  const server = createHttpServer({ newId: makeId, log: createLog("silent") });
  mountRoutes(server, routes, toyNeeds(store, makeId, catchUp, refusals, defects));
  await server.ready();
  return {
    server,
    routes,
    adminKey,
    caughtUp,
    refusals,
    failCatchUp: (error) => void (failure = error),
    get audit() {
      return store.state.audit;
    },
    checksum: async (tenant) =>
      JSON.stringify(
        [store.state.projects, store.state.tenants].map((things) =>
          things.filter((thing) => thing.tenant === tenant || thing.id === tenant),
        ),
      ),
  };
}

/** Tests stand where the minting domains do. */
export function forged<T>(value: unknown): T {
  return value as T;
}

function toyNeeds(
  store: { state: State },
  makeId: () => Uuid,
  catchUp: RunnerNeeds["catchUp"],
  refusals: Refusal[],
  defects: ReadonlySet<ToyDefect>,
): RunnerNeeds {
  return {
    clock: systemClock,
    makeId,
    forTenant: async (_tenant, work) => {
      const before = store.state;
      try {
        return await work(forged<TenantTransaction>({}));
      } catch (error) {
        store.state = before;
        throw error;
      }
    },
    authenticate: (credential: string | null) => authenticate(store.state, credential, defects),
    allow: (principal, permission, tenant) => {
      const reaches = principal.tenant === PLATFORM_TENANT || principal.tenant === tenant || defects.has("foreign-tenant-allowed");
      if (!reaches && tenant !== PLATFORM_TENANT) throw new Problem("not_found");
      if (!principal.permissions.has(permission)) throw new Problem("permission_denied");
      return forged({ permission, principal, tenant, project: principal.project });
    },
    findTenant(nameOrId) {
      const found = findThing(store.state.tenants, PLATFORM_TENANT, nameOrId, defects);
      if (found === null && defects.has("lookup-hangs")) return new Promise<never>(() => {});
      return (found?.id ?? null) as TenantId | null;
    },
    writeAudit: async (_transaction, row) => {
      if (defects.has("unaudited")) return;
      store.state = { ...store.state, audit: [...store.state.audit, row] };
    },
    bumpConfig: async () => {
      store.state = { ...store.state, version: store.state.version + 1 };
      return store.state.version;
    },
    catchUp,
    refused: (refusal) => void refusals.push(refusal),
    keyringOf: () => assert.fail("nothing is remembered here: it would need a database"),
  };
}

function authenticate(state: State, credential: string | null, defects: ReadonlySet<ToyDefect>): Principal {
  const key = state.keys.find((each) => each.secret === credential);
  if (key?.revoked === true && defects.has("revoked-told-apart")) throw new Problem("expired_api_key");
  if (key === undefined || key.revoked) throw new Problem("invalid_api_key");
  if (key.expiresAt !== null && key.expiresAt <= Date.now()) throw new Problem("expired_api_key");
  return forged({ kind: "key", id: key.id, key: null, tenant: key.tenant, project: null, permissions: key.permissions, models: null });
}

function findThing(things: readonly Thing[], tenant: TenantId, nameOrId: string, defects: ReadonlySet<ToyDefect>): Thing | null {
  const folded = (text: string) => (defects.has("case-folded") ? text.toLowerCase() : text);
  const found = things.findLast(
    (thing) =>
      (thing.tenant === tenant && folded(thing.name) === folded(nameOrId) && !thing.archived) ||
      (thing.id === nameOrId && (thing.tenant === tenant || defects.has("foreign-project-by-id"))),
  );
  if (found?.archived === true) {
    if (defects.has("deleted-told-apart")) throw new Problem("conflict", { message: "It was deleted." });
    return null;
  }
  return found ?? null;
}

const NAME = z
  .string()
  .min(1)
  .max(100)
  .regex(/^[A-Za-z0-9._-]+$/);
const DISPLAY = z.strictObject({ display_name: z.string().max(200).nullable().optional() });
const THING = z.strictObject({ id: z.string(), name: z.string(), display_name: z.string().nullable() });
const LIST = z.strictObject({ data: z.array(THING), has_more: z.boolean(), last_id: z.string().nullable() });
const KEY = z.strictObject({ id: z.string(), name: z.string(), key: z.string().optional() });

function toyRoutes(store: { state: State }, makeId: () => Uuid, defects: ReadonlySet<ToyDefect>): AnyRoute[] {
  const route = routeBuilder<Proofs, TenantTransaction>();
  const view = ({ id, name, display_name }: Thing) => ({ id, name, display_name });
  const must = (thing: Thing | null) => {
    if (thing === null) throw new Problem("not_found");
    return thing;
  };
  const upsert = (
    collection: "tenants" | "projects",
    tenant: TenantId,
    name: string,
    fields: { display_name?: string | null | undefined },
    ifMatch: number | null,
  ): Answer<z.infer<typeof THING>> => {
    if (name === "*" && defects.has("crash-on-star")) throw new TypeError("star");
    const present = findThing(store.state[collection], tenant, name, defects);
    if (present === null && (isUuid(name.toLowerCase()) || !NAME.safeParse(name).success))
      throw new Problem("invalid_request", { param: "name" });
    if (ifMatch !== null && ifMatch !== (present?.revision ?? 0)) throw new Problem("revision_mismatch");
    const base = present ?? { id: makeId(), tenant, name, display_name: null, revision: 0, archived: false };
    const next: Thing = {
      ...base,
      display_name: fields.display_name === undefined ? base.display_name : fields.display_name,
      revision: base.revision + 1,
    };
    store.state = { ...store.state, [collection]: [...store.state[collection].filter((thing) => thing.id !== next.id), next] };
    return {
      body: view(next),
      revision: next.revision,
      configurationChanged: true,
      change: { target: `${collection}/${next.name}`, before: present === null ? null : view(present), after: view(next) },
    };
  };
  const archive = (collection: "tenants" | "projects", thing: Thing): Answer<z.infer<typeof THING>> => {
    store.state = {
      ...store.state,
      [collection]: store.state[collection].map((each) => (each.id === thing.id ? { ...each, archived: true } : each)),
    };
    return { body: view(thing), configurationChanged: true };
  };
  const tenant = { tenant: "acme" };
  const project = { tenant: "acme", ...(defects.has("broken-example") ? {} : { project: "chatbot" }) };
  return [
    route({
      id: "tenants.put",
      method: "PUT",
      path: "/admin/v1/tenants/{tenant}",
      summary: "Create or change a tenant.",
      permission: "platform:tenants:write",
      reach: "platform",
      params: z.strictObject({ tenant: z.string() }),
      query: z.strictObject({}),
      body: DISPLAY,
      result: THING,
      example: { params: tenant, body: { display_name: "Acme" } },
      audit: { action: "tenants.put" },
      handler: async ({ params, body: fields, ifMatch }) => upsert("tenants", PLATFORM_TENANT, params.tenant, fields, ifMatch),
    }),
    route({
      id: "tenants.delete",
      method: "DELETE",
      path: "/admin/v1/tenants/{tenant}",
      summary: "Archive a tenant.",
      permission: "platform:tenants:write",
      reach: "platform",
      params: z.strictObject({ tenant: z.string() }),
      query: z.strictObject({}),
      body: null,
      result: THING,
      example: { params: tenant },
      audit: { action: "tenants.delete" },
      handler: async ({ params }) => archive("tenants", must(findThing(store.state.tenants, PLATFORM_TENANT, params.tenant, defects))),
    }),
    route({
      id: "projects.put",
      method: "PUT",
      path: "/admin/v1/tenants/{tenant}/projects/{project}",
      summary: "Create or change a project.",
      permission: "projects:write",
      reach: "path",
      params: z.strictObject({ tenant: z.string(), project: z.string() }),
      query: z.strictObject({}),
      body: DISPLAY,
      result: THING,
      example: { params: project, body: { display_name: "Chatbot" } },
      audit: { action: "projects.put" },
      handler: async ({ allowed, params, body: fields, ifMatch }) => upsert("projects", allowed.tenant, params.project, fields, ifMatch),
    }),
    route({
      id: "projects.get",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/projects/{project}",
      summary: "Read a project.",
      permission: "projects:read",
      reach: "path",
      params: z.strictObject({ tenant: z.string(), project: z.string() }),
      query: z.strictObject({}),
      body: null,
      result: THING,
      example: { params: project },
      audit: null,
      handler: async ({ allowed, params }) => {
        const found = must(findThing(store.state.projects, allowed.tenant, params.project, defects));
        if (defects.has("owner-refused") && allowed.principal.tenant !== PLATFORM_TENANT) throw new Problem("not_found");
        return {
          body: defects.has("answer-beyond-schema") ? { ...view(found), tenant: found.tenant } : view(found),
          revision: found.revision,
        };
      },
    }),
    route({
      id: "projects.delete",
      method: "DELETE",
      path: "/admin/v1/tenants/{tenant}/projects/{project}",
      summary: "Archive a project.",
      permission: "projects:write",
      reach: "path",
      params: z.strictObject({ tenant: z.string(), project: z.string() }),
      query: z.strictObject({}),
      body: null,
      result: THING,
      example: { params: project },
      audit: { action: "projects.delete" },
      handler: async ({ allowed, params }) =>
        archive("projects", must(findThing(store.state.projects, allowed.tenant, params.project, defects))),
    }),
    route({
      id: "projects.list",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/projects",
      summary: "List projects.",
      permission: "projects:read",
      reach: "path",
      params: z.strictObject({ tenant: z.string() }),
      query: z.strictObject({ after: z.string().optional() }),
      body: null,
      result: LIST,
      example: { params: tenant },
      audit: null,
      handler: async ({ allowed, query }) => {
        const own = store.state.projects.filter(
          (thing) => (thing.tenant === allowed.tenant || defects.has("foreign-list")) && !thing.archived && thing.id > (query.after ?? ""),
        );
        return { body: { data: own.map(view), has_more: false, last_id: own.at(-1)?.id ?? null } };
      },
    }),
    route({
      id: "keys.create",
      method: "POST",
      path: "/admin/v1/tenants/{tenant}/keys",
      summary: "Mint a key.",
      permission: "keys:write",
      reach: "path",
      params: z.strictObject({ tenant: z.string() }),
      query: z.strictObject({}),
      result: KEY,
      example: { params: tenant, body: { name: "operations" } },
      audit: { action: "keys.create" },
      body: z.strictObject({ name: NAME, permissions: z.array(z.string()).optional(), expires_at: z.number().int().optional() }),
      handler: async ({ allowed, body: fields }) => {
        const key = mint(allowed.tenant, makeId(), fields.permissions ?? ["developer"], fields.expires_at ?? null);
        store.state = { ...store.state, keys: [...store.state.keys, key] };
        return { status: 201, body: { id: key.id, name: fields.name, key: key.secret }, shownOnce: ["key"], configurationChanged: true };
      },
    }),
    route({
      id: "keys.delete",
      method: "DELETE",
      path: "/admin/v1/tenants/{tenant}/keys/{key}",
      summary: "Revoke a key.",
      permission: "keys:write",
      reach: "path",
      params: z.strictObject({ tenant: z.string(), key: z.string() }),
      query: z.strictObject({}),
      body: null,
      result: KEY,
      example: { params: { ...tenant, key: "toy" } },
      audit: { action: "keys.delete" },
      handler: async ({ allowed, params }) => {
        const key = store.state.keys.find((each) => each.id === params.key && each.tenant === allowed.tenant && !each.revoked);
        if (key === undefined) throw new Problem("not_found");
        store.state = { ...store.state, keys: store.state.keys.map((each) => (each.id === key.id ? { ...each, revoked: true } : each)) };
        return { body: { id: key.id, name: "revoked" }, configurationChanged: true };
      },
    }),
    route({
      id: "own.projects",
      method: "GET",
      path: "/v1/organization/projects",
      summary: "The caller's own projects.",
      permission: "projects:read",
      reach: "own",
      params: z.strictObject({}),
      query: z.strictObject({ project_ids: z.array(z.string()).optional() }),
      body: null,
      result: LIST,
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, query }) => {
        const own = store.state.projects.filter(
          (thing) => thing.tenant === allowed.tenant && !thing.archived && (query.project_ids?.includes(thing.id) ?? true),
        );
        return { body: { data: own.map(view), has_more: false, last_id: null } };
      },
    }),
  ];
}

function mint(tenant: TenantId, id: Uuid, names: readonly string[], expiresAt: number | null): ToyKey {
  const permissions = names.flatMap((name): readonly Permission[] =>
    name in ROLES ? ROLES[name as keyof typeof ROLES] : name in PERMISSIONS ? [name as Permission] : [],
  );
  return { id, secret: `toy-secret-${id}`, tenant, permissions: new Set(permissions), expiresAt, revoked: false };
}
