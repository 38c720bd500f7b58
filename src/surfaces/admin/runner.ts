import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Allowed, Authenticate, Permission, Principal } from "../../domains/identity/index.ts";
import type { AuditRow, Refusal } from "../../domains/records/index.ts";
import type { Clock } from "../../kernel/clock.ts";
import { PLATFORM_TENANT, type TenantId, type Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Answer, Download, RouteContext } from "../../kernel/route.ts";
import { type Database, DatabaseUnavailable, type TenantTransaction } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { credentialOf } from "../http/credential.ts";
import { sendDownload } from "./download.ts";
import { once } from "./idempotency.ts";
import { readInput, type Input } from "./input.ts";
import { openApiDocument } from "./openapi.ts";
import { checkRoutes, isPermission, methodsAt, PREFIXES, type AnyRoute } from "./route-table.ts";
import { whileAvailable, withRetries } from "./transaction.ts";

/** What the runner asks of the rest of the house. */
export interface RunnerNeeds {
  readonly clock: Clock;
  readonly makeId: () => Uuid;
  readonly forTenant: Database["forTenant"];
  /** Throws invalid_api_key, expired_api_key, or permission_denied where the key is not for these endpoints. */
  readonly authenticate: Authenticate;
  /** Who comes without a credential, but from the console's own pages; null for nobody. Rejects with Problem invalid_api_key. */
  readonly signedIn?: (request: FastifyRequest) => Promise<Principal | null>;
  /** Throws permission_denied, and not_found for a tenant that the principal may not know of. */
  readonly allow: (principal: Principal, permission: Permission, tenant: TenantId) => Allowed<Permission>;
  /** By name or id; null where there is none. At once for what this process knows; a promise where it had to be looked up. */
  readonly findTenant: (nameOrId: string) => TenantId | null | Promise<TenantId | null>;
  readonly writeAudit: (transaction: TenantTransaction, row: AuditRow) => Promise<void>;
  /**
   * Raises the configuration's version in the transaction and tells the tenant's processes of it, and those of others. Resolves when this process
   * knows every change that was committed before it.
   */
  readonly bumpConfig: (transaction: TenantTransaction, others: readonly TenantId[]) => Promise<number>;
  /** Resolves when this process serves from a snapshot of at least this version. */
  readonly catchUp: (version: number) => Promise<void>;
  /** A tenant's keys: answers that are remembered end with them. */
  readonly keyringOf: (tenant: TenantId) => TenantKeyring;
  /** Takes what authorization refused: for the record, on no account for the caller. */
  readonly refused: (refusal: Refusal) => void;
  /** What callers put before a path, a URL or a path itself: `servers` of the OpenAPI document. */
  readonly publicUrl?: string;
}

/**
 * Mounts every route of the table, and, where some of them are, the OpenAPI document and the answers to unknown paths and wrong methods.
 * Problems are thrown to the server's error handler. Throws when a route of the table is not fit to be mounted.
 */
export function mountRoutes(server: FastifyInstance, routes: readonly AnyRoute[], needs: RunnerNeeds): void {
  const findings = checkRoutes(routes);
  if (findings.length > 0) throw new Error(`The route table is not fit to be mounted:\n${findings.join("\n")}`);
  for (const prefix of PREFIXES) {
    const mounted = routes.filter((each) => each.path.startsWith(`${prefix}/`));
    if (mounted.length === 0) continue;
    server.register(
      async (below) => {
        below.removeAllContentTypeParsers();
        // Bodies are read after the caller is known to be allowed, so Fastify hands the stream through unread.
        below.addContentTypeParser("*", (_request, payload, done) => done(null, payload));
        below.setNotFoundHandler((request) => refuseUnknown(routes, request, needs));
        for (const route of mounted) mount(below, prefix, route, needs);
        if (prefix === "/admin/v1") mountDocument(below, routes, needs);
      },
      { prefix },
    );
  }
}

function mount(server: FastifyInstance, prefix: string, route: AnyRoute, needs: RunnerNeeds): void {
  const url = route.path.slice(prefix.length).replaceAll(/\{(\w+)\}/g, ":$1");
  server.route({ method: route.method, url, handler: (request, reply) => whileAvailable(run(route, request, reply, needs)) });
}

/** The life of an administrative request: known, allowed, read, done in one transaction, in force, answered. */
async function run(route: AnyRoute, request: FastifyRequest, reply: FastifyReply, needs: RunnerNeeds): Promise<FastifyReply> {
  const principal = await known(route.id, request, needs);
  const asked = { route: route.id, principal, request };
  const allowed = await noting(asked, outOfReach(principal), needs, () =>
    reach(route, principal, request.params as Record<string, string>, needs),
  );
  const action: Action = { route, allowed, request, input: await readInput(route, request, allowed.tenant) };
  if (route.downloads !== undefined)
    return sendDownload(reply, (sendOne) =>
      needs.forTenant(allowed.tenant, async (transaction) => {
        const { download } = await noting(asked, [403], needs, () => act(action, transaction, needs));
        if (download === null) throw new Error(`${route.id} has no download`);
        await sendOne(download);
      }),
    );
  const done = await withRetries(() =>
    needs.forTenant(allowed.tenant, (transaction) =>
      once(transaction, action, needs, () => noting(asked, [403], needs, () => act(action, transaction, needs))),
    ),
  );
  if (done.configVersion !== null) await takeIn(done.configVersion, needs);
  return send(reply, done);
}

/** Who asks. Throws invalid_api_key or expired_api_key. */
function known(route: string, request: FastifyRequest, needs: RunnerNeeds): Promise<Principal> {
  const family = request.url.startsWith("/v1/") ? "organization" : "admin";
  return noting({ route, principal: null, request }, [401, 403], needs, async () => {
    const credential = credentialOf(request.headers);
    const signedIn = credential === null ? await needs.signedIn?.(request) : null;
    return signedIn ?? needs.authenticate(credential, { family, address: request.remoteAddress });
  });
}

/**
 * Only the platform may know which tenants there are, so only for it is one that is not there a plain miss. For a tenant it is
 * noted exactly like a foreign one: its own trail tells it nothing either.
 */
function outOfReach(principal: Principal): readonly number[] {
  return principal.tenant === PLATFORM_TENANT ? [403] : [403, 404];
}

interface Asked {
  /** The route's id. */
  readonly route: string;
  readonly principal: Principal | null;
  readonly request: FastifyRequest;
}

/** Does the work; a problem of one of these statuses that it throws is a refusal. */
async function noting<T>(asked: Asked, statuses: readonly number[], needs: RunnerNeeds, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (problem) {
    const { route, principal, request } = asked;
    if (problem instanceof Problem && statuses.includes(problem.status))
      needs.refused({ route, principal, credential: credentialOf(request.headers), remoteAddress: request.remoteAddress, problem });
    throw problem;
  }
}

/** The change is committed: when the database goes away now, its answer (a secret shown once) is still given, and polling brings it in force. */
async function takeIn(version: number, needs: RunnerNeeds): Promise<void> {
  try {
    await needs.catchUp(version);
  } catch (error) {
    if (!(error instanceof DatabaseUnavailable)) throw error;
  }
}

/** Whose rows, and whether this principal may. A tenant that is foreign and one that never existed are refused alike. */
async function reach(
  route: AnyRoute,
  principal: Principal,
  params: Record<string, string>,
  needs: RunnerNeeds,
): Promise<Allowed<Permission>> {
  const { permission } = route;
  if (!isPermission(permission)) throw new Error(`${route.id} asks for a permission that does not exist`);
  switch (route.reach) {
    case "platform":
      return needs.allow(principal, permission, PLATFORM_TENANT);
    case "own":
      return needs.allow(principal, permission, principal.tenant);
    case "organization":
      if (principal.tenant === PLATFORM_TENANT)
        throw new Problem("permission_denied", {
          message: "This is a tenant's own. The platform administers tenants below /admin/v1/tenants.",
        });
      return needs.allow(principal, permission, principal.tenant);
    case "path": {
      const tenant = await tenantNamed(params["tenant"] ?? "", principal, needs);
      // The platform is no tenant that a path can name: its rows have routes of their own.
      if (tenant === null || tenant === PLATFORM_TENANT) throw new Problem("not_found");
      return needs.allow(principal, permission, tenant);
    }
  }
}

/**
 * Only the platform waits for a look-up. A tenant's own tenant is known wherever its key is, so it loses nothing; waiting
 * would tell a tenant that exists elsewhere from one that does not.
 */
async function tenantNamed(nameOrId: string, principal: Principal, needs: RunnerNeeds): Promise<TenantId | null> {
  const found = needs.findTenant(nameOrId);
  if (!(found instanceof Promise) || principal.tenant === PLATFORM_TENANT) return found;
  found.catch(() => {});
  return null;
}

/** A request that may be carried out. */
export interface Action {
  readonly route: AnyRoute;
  readonly allowed: Allowed<Permission>;
  readonly request: FastifyRequest;
  readonly input: Input;
}

/** What became of a request, ready to be sent. `configVersion`: what the snapshot must have taken in first. */
export interface Done {
  readonly status: number;
  readonly body: unknown;
  readonly revision: number | null;
  readonly shownOnce: readonly string[];
  readonly configVersion: number | null;
  readonly replayed: boolean;
  readonly download: Download | null;
}

async function act(action: Action, transaction: TenantTransaction, needs: RunnerNeeds): Promise<Done> {
  const { params, query, body, ifMatch } = action.input;
  const context: RouteContext<unknown, unknown, unknown, unknown, unknown> = {
    allowed: action.allowed,
    transaction,
    params,
    query,
    body,
    ifMatch,
  };
  // The schemas that just accepted these values are the ones routeBuilder typed this handler with.
  const answer = await action.route.handler(context as RouteContext<never, never, never, never, never>);
  const row = auditRow(action, answer, needs);
  if (row !== null) await needs.writeAudit(transaction, row);
  const configVersion =
    answer.configurationChanged === true ? await needs.bumpConfig(transaction, (answer.tenantsChanged ?? []) as readonly TenantId[]) : null;
  // Asked again, now that every change before this one is known: the tenant may have been archived or suspended meanwhile.
  if (configVersion !== null) needs.allow(action.allowed.principal, action.allowed.permission, action.allowed.tenant);
  return {
    status: statusOf(answer),
    body: answer.body,
    revision: answer.revision ?? null,
    shownOnce: answer.shownOnce ?? [],
    configVersion,
    replayed: false,
    download: answer.download ?? null,
  };
}

function auditRow({ route, allowed, request }: Action, answer: Answer<unknown>, needs: RunnerNeeds): AuditRow | null {
  if (route.audit === null) return null;
  return {
    id: needs.makeId(),
    actor: allowed.principal.id,
    actorKind: allowed.principal.kind,
    action: route.audit.action,
    target: answer.change?.target ?? pathOf(request),
    before: answer.change?.before ?? null,
    after: answer.change?.after ?? null,
    requestId: request.id,
    remoteAddress: request.remoteAddress,
    status: statusOf(answer),
    at: needs.clock.now(),
  };
}

function statusOf(answer: Answer<unknown>): number {
  return answer.status ?? 200;
}

function send(reply: FastifyReply, done: Done): FastifyReply {
  if (done.revision !== null) reply.header("etag", `"${done.revision}"`);
  if (done.replayed) reply.header("idempotent-replayed", "true");
  return reply.code(done.status).send(done.body);
}

/** The document says what exists, so it is for anybody with a valid key, of any role, and for nobody without one. */
function mountDocument(server: FastifyInstance, routes: readonly AnyRoute[], needs: RunnerNeeds): void {
  const { publicUrl } = needs;
  const document = { ...openApiDocument(routes), ...(publicUrl === undefined ? {} : { servers: [{ url: publicUrl }] }) };
  server.get("/openapi.json", async (request) => {
    await known("openapi", request, needs);
    return document;
  });
}

async function refuseUnknown(routes: readonly AnyRoute[], request: FastifyRequest, needs: RunnerNeeds): Promise<never> {
  await known("unknown_route", request, needs);
  const path = pathOf(request);
  const methods = path === "/admin/v1/openapi.json" ? ["GET"] : methodsAt(routes, path);
  if (methods.length === 0) throw new Problem("unknown_route");
  throw new Problem("method_not_allowed", { headers: { allow: methods.toSorted().join(", ") } });
}

function pathOf(request: FastifyRequest): string {
  return request.url.split("?", 1)[0] as string;
}
