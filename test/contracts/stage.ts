import { randomBytes } from "node:crypto";
import type { Permission, Role } from "../../src/domains/identity/index.ts";
import { parameterNames, type AnyRoute } from "../../src/surfaces/admin/route-table.ts";

/** The installation under test. It starts empty: the stage makes everything it needs through the routes themselves. */
export interface MatrixWorld {
  readonly routes: readonly AnyRoute[];
  readonly adminKey: string;
  /** Of the right form, and never issued. */
  readonly unknownKey: string;
  /** How long a key lives that is to have expired, ms: as little as the API can say. */
  readonly shortLifeMs: number;
  send(request: Sent): Promise<Received>;
  /** A digest of every row that is the tenant's (its id), read past row security. */
  checksum(tenant: string): Promise<string>;
  /** How many actions the audit trails of all tenants hold. */
  auditRows(): Promise<number>;
  /** Whether an Idempotency-Key is remembered here (it takes a database). */
  readonly remembers: boolean;
  /** As `send`, for what is asked thousands of times: past the socket, through the same server. */
  ask(request: Sent): Promise<Received>;
  /**
   * Mints a key of a role in a tenant (its name) through the API, above its projects or of its first one; null where such a
   * role cannot stand there. `expiresInMs` makes it a short-lived one.
   */
  mint(tenant: string, role: Role, place: "tenant" | "project", expiresInMs?: number): Promise<MintedKey | null>;
  revoke(tenant: string, id: string): Promise<void>;
  /** Keys that were good, and are no longer. */
  outcasts?(): Promise<readonly Outcast[]>;
  /** Keys of the platform that hold one permission each, and its roles'. */
  platformKeys?(): Promise<readonly { readonly name: string; readonly key: string; readonly permissions: readonly Permission[] }[]>;
  /** Added to a route's example where a field of its body counts only beside others, by route and position; null where it never does. */
  readonly controls?: Readonly<Record<string, Readonly<Record<string, unknown>> | null>>;
  /** Templates that show, by id, what is made at another. */
  readonly madeAs?: Readonly<Record<string, string>>;
  /** Added to the query of the route's example, to make it show as much as it can. */
  query?(route: AnyRoute): Readonly<Record<string, string>>;
  /** The models to be called; absent where there are no endpoints for that. */
  models?(tenants: Readonly<Record<Owner, string>>): Promise<StagedModels>;
  /** Leaves the traces that only calls leave (usage), for both owners, with each one's canary in them. */
  call?(tenant: string, canary: string): Promise<void>;
}

/** Models by name, for the callers of two tenants. */
export interface StagedModels {
  readonly own: Readonly<Record<Owner, string>>;
  /** The id of each owner's. */
  readonly ids: Readonly<Record<Owner, string>>;
  /** There is one of the name, granted to nobody. */
  readonly ungranted: string;
  /** Granted to B once. */
  readonly withdrawn: string;
  readonly deleted: string;
  /** A key of B's that is for another model of B's only. */
  readonly keyForAnother: string;
}

export interface MintedKey {
  readonly id: string;
  readonly key: string;
}

export interface Outcast {
  readonly name: string;
  readonly key: string;
  /** The code it is refused with whatever it asks for; null where it is known, of a tenant that is suspended. */
  readonly refusedWith: string | null;
  /** The one family of endpoints where it is not refused so. */
  readonly isFor?: "models";
}

export interface Sent {
  readonly method: string;
  readonly path: string;
  readonly key: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Instead of `body`: bytes as they are. */
  readonly raw?: string;
}

export interface Received {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
}

export type Owner = "A" | "B";

/** Something that a path parameter can name. */
export interface Thing {
  readonly id: string | null;
  /** Null where only an id names it. */
  readonly name: string | null;
}

/** The things both tenants own: one of each kind that the route table can make, and more on demand. */
export class Stage {
  readonly world: MatrixWorld;
  readonly #run = randomBytes(4).toString("hex");
  readonly #things = new Map<string, Thing>();
  readonly #deleted = new Map<string, Promise<Thing | null>>();
  readonly #siblings = new Map<string, Promise<Thing>>();
  readonly #admins = new Map<Owner, string>();
  readonly #tenants = new Map<string, boolean>();
  /** What nobody made: it was there. */
  readonly #found = new Set<string>();
  /** Of which there is one at a place: another one made is the same. */
  readonly #single = new Set<string>();
  /** The path that makes a tenant's thing of a kind. */
  readonly #upserts: ReadonlyMap<string, string>;
  #made = 0;

  static async build(world: MatrixWorld): Promise<Stage> {
    const stage = new Stage(world);
    const kinds = new Set(world.routes.flatMap((route) => templatesOf(route.path)));
    const ordered = [...kinds].toSorted(
      (left, right) => Number(isOwn(left)) - Number(isOwn(right)) || left.split("/").length - right.split("/").length,
    );
    for (const owner of ["A", "B"] as const) {
      for (const template of ordered) {
        if (isOwn(template) && !stage.#admins.has(owner)) await stage.#engageAdmin(owner);
        await stage.#put(template, owner);
      }
    }
    for (const owner of ["A", "B"] as const) await world.call?.(handleOf(stage.thing(TENANT, owner)), stage.canary(owner));
    return stage;
  }

  async #put(template: string, owner: Owner): Promise<void> {
    if (this.#things.has(place(owner, template))) return;
    this.#things.set(place(owner, template), await this.#make(template, owner, this.#usualName(template, owner)));
  }

  private constructor(world: MatrixWorld) {
    this.world = world;
    const upserts = world.routes.filter((route) => route.method === "PUT" && this.isTenants(route.path));
    this.#upserts = new Map(upserts.toReversed().map(({ path }) => [kindOf(path), path]));
  }

  /** Whoever may do everything with the owner's things at this route: the platform, or, where it has no part, the tenant's own admin. */
  adminKey(route: AnyRoute, owner: Owner): string {
    return route.reach === "organization" ? (this.#admins.get(owner) ?? this.world.adminKey) : this.world.adminKey;
  }

  /** A budget that the platform makes for a tenant is not the tenant's to change, so the tenant's admin makes it. */
  async #makerKey(route: AnyRoute, owner: Owner): Promise<string> {
    if (route.permission !== "budgets:write") return this.adminKey(route, owner);
    if (!this.#admins.has(owner)) await this.#engageAdmin(owner);
    return this.#admins.get(owner) ?? this.world.adminKey;
  }

  async #engageAdmin(owner: Owner): Promise<void> {
    const minted = await this.world.mint(handleOf(this.thing(TENANT, owner)), "tenant_admin", "tenant");
    if (minted === null) throw new Error("no tenant admin could be made");
    this.#admins.set(owner, minted.key);
  }

  thing(template: string, owner: Owner): Thing {
    const thing = this.#things.get(place(owner, template));
    if (thing === undefined) throw new Error(`nothing is on stage for ${template}`);
    return thing;
  }

  /** Every thing of an owner, with its kind in the singular: `project`, `key`. */
  things(owner: Owner): (Thing & { readonly kind: string; readonly template: string })[] {
    return [...this.#things]
      .filter(([key]) => key.startsWith(`${owner} `))
      .map(([key, thing]) => ({ ...thing, kind: kindOf(key), template: key.slice(owner.length + 1) }));
  }

  /** Path parameters of a route, naming the owner's things. */
  params(route: AnyRoute, owner: Owner): Record<string, string> {
    return Object.fromEntries(templatesOf(route.path).map((template) => [leafOf(template), handleOf(this.thing(template, owner))]));
  }

  /** As `params`, but an upsert is of a thing that nothing else needs, where the kind's names are free. */
  besides(route: AnyRoute, owner: Owner): Record<string, string> {
    const isFree = route.method === "PUT" && route.path.endsWith("}") && !this.isShared(route.path);
    return { ...this.params(route, owner), ...(isFree ? { [leafOf(route.path)]: nameLike(route, `beside-${this.#run}`) } : {}) };
  }

  /** As `params`, but the last thing named is one that nothing else needs, so that the call may consume it. */
  async freshParams(route: AnyRoute, owner: Owner): Promise<Record<string, string>> {
    const last = templatesOf(route.path).at(-1);
    const isOfOne = last !== undefined && consumes(route, this.world.routes);
    const params = isOfOne
      ? { ...this.params(route, owner), [leafOf(last)]: handleOf(await this.fresh(last, owner)) }
      : this.params(route, owner);
    await this.#setSingle(route, params, owner);
    return params;
  }

  /** What there is one of, without a name (`…/spend_limit`), is set, so that it can be read or ended. */
  async #setSingle(route: AnyRoute, params: Readonly<Record<string, string>>, owner: Owner): Promise<void> {
    const at = (method: AnyRoute["method"]) => this.world.routes.find((each) => each.method === method && each.path === route.path);
    const [set, end] = [at("POST"), at("DELETE")];
    if (route.path.endsWith("}") || set === undefined || end === undefined || route === set) return;
    const answer = await this.call(set, this.adminKey(set, owner), params, owner);
    if (answer.status !== 200) throw new Error(`${set.id} answered ${answer.status}: ${answer.text}`);
  }

  /** A further thing of a kind beside the one on stage; that one, made again, where the kind's names are not free (a grant of a model). */
  async fresh(template: string, owner: Owner): Promise<Thing> {
    const scratch = await this.#attempt(template, owner, `scratch-${++this.#made}-${this.#run}`);
    const made = scratch instanceof Error ? await this.#make(template, owner, this.#usualName(template, owner)) : scratch;
    if (handleOf(made) === handleOf(this.thing(template, owner))) this.#single.add(template);
    return made;
  }

  /** After a route's probes: what it deleted of the stage itself, for want of another of the kind, is made again. */
  async mend(route: AnyRoute): Promise<void> {
    if (route.method !== "DELETE" || !this.#single.has(route.path)) return;
    for (const owner of ["A", "B"] as const) await this.#make(route.path, owner, this.#usualName(route.path, owner));
  }

  /** B's thing that was made and deleted; null for a kind that cannot be deleted. Made once. */
  deleted(template: string): Promise<Thing | null> {
    const made = this.#deleted.get(template) ?? this.#makeDeleted(template, "B");
    this.#deleted.set(template, made);
    return made;
  }

  /** Another parent of B's, beside the one on stage. Made once. */
  sibling(template: string): Promise<Thing> {
    const made = this.#siblings.get(template) ?? this.fresh(template, "B");
    this.#siblings.set(template, made);
    return made;
  }

  async #makeDeleted(template: string, owner: Owner): Promise<Thing | null> {
    const route = this.world.routes.find((each) => each.method === "DELETE" && each.path === template);
    if (route === undefined) return null;
    const thing = await this.fresh(template, owner);
    const answer = await this.call(
      route,
      this.adminKey(route, owner),
      { ...this.params(route, owner), [leafOf(template)]: handleOf(thing) },
      owner,
    );
    if (answer.status !== 200) throw new Error(`${route.id} of a fresh thing answered ${answer.status}: ${answer.text}`);
    // A deleted grant is one of a model that lives on under the same name, and who left a project can come back.
    return handleOf(thing) === handleOf(this.thing(template, owner))
      ? (await this.#make(template, owner, this.#usualName(template, owner)), null)
      : thing;
  }

  /** Sends the route's example, with the owner's names in place of the example's. */
  call(
    route: AnyRoute,
    key: string | null,
    params: Readonly<Record<string, string>>,
    owner: Owner = "B",
    change: Partial<Sent> = {},
  ): Promise<Received> {
    return this.world.send(this.#request(route, key, params, owner, change));
  }

  /** As `call`, past the socket. */
  ask(
    route: AnyRoute,
    key: string | null,
    params: Readonly<Record<string, string>>,
    owner: Owner = "B",
    change: Partial<Sent> = {},
  ): Promise<Received> {
    return this.world.ask(this.#request(route, key, params, owner, change));
  }

  #request(route: AnyRoute, key: string | null, params: Readonly<Record<string, string>>, owner: Owner, change: Partial<Sent>): Sent {
    const query = new URLSearchParams(this.#renamed(this.query(route), owner) as Record<string, string>).toString();
    const path = pathFor(route, params) + (query === "" ? "" : `?${query}`);
    return { method: route.method, path, key, ...(route.body === null ? {} : { body: this.body(route, owner) }), ...change };
  }

  query(route: AnyRoute): Record<string, string> {
    return { ...route.example.query, ...this.world.query?.(route) };
  }

  body(route: AnyRoute, owner: Owner): Record<string, unknown> {
    const example = (route.example.body ?? {}) as Record<string, unknown>;
    const body = this.#renamed(example, owner) as Record<string, unknown>;
    if (route.method === "POST" && typeof body["name"] === "string") body["name"] = `${body["name"]}-${++this.#made}`;
    if (typeof body["email"] === "string") body["email"] = this.#address(route, owner, body["email"]);
    if ("display_name" in example) body["display_name"] = this.canary(owner);
    return body;
  }

  /** Of somebody who is a member already, or of somebody new, as the route needs it. */
  #address(route: AnyRoute, owner: Owner, example: string): string {
    const member = this.things(owner).find(({ name, template }) => this.isTenants(template) && name?.includes("@"))?.name;
    return route.path.endsWith("/users") ? (member ?? example) : `${++this.#made}.${owner.toLowerCase()}-${example}`;
  }

  /** A text that only the owner and the platform ever wrote. */
  canary(owner: Owner): string {
    return `canary ${owner} ${this.#run}`;
  }

  /** What must never reach anybody but the owner: ids, names and contents of what is its tenant's. */
  secrets(owner: Owner): string[] {
    const own = [...this.#things]
      .filter(([key]) => key.startsWith(`${owner} `) && this.isTenants(key.slice(owner.length + 1)))
      .flatMap(([, { id, name }]) => [id, name]);
    const others = new Set(this.things(owner === "A" ? "B" : "A").flatMap(({ id, name }) => [id, name]));
    return [...own, this.canary(owner)].filter((secret) => secret !== null && !others.has(secret)) as string[];
  }

  tenantNames(): Record<Owner, string> {
    return { A: handleOf(this.thing(TENANT, "A")), B: handleOf(this.thing(TENANT, "B")) };
  }

  /** Of every row that is the owner's. */
  checksum(owner: Owner): Promise<string> {
    return this.world.checksum(this.thing(TENANT, owner).id as string);
  }

  async #make(template: string, owner: Owner, name: string): Promise<Thing> {
    const made = await this.#attempt(template, owner, name);
    if (made instanceof Error) throw made;
    return made;
  }

  async #attempt(template: string, owner: Owner, name: string): Promise<Thing | Error> {
    const elsewhere = this.world.madeAs?.[template];
    if (elsewhere !== undefined) return this.#madeElsewhere(elsewhere, template, owner, name);
    const put = this.world.routes.find((route) => route.method === "PUT" && route.path === template);
    const route = put ?? this.world.routes.find((each) => each.method === "POST" && each.path === collectionOf(template));
    if (route === undefined) return this.#listed(template, owner);
    const parents = Object.fromEntries(
      templatesOf(collectionOf(template)).map((parent) => [leafOf(parent), handleOf(this.thing(parent, owner))]),
    );
    const named = nameLike(route, name, leafOf(template));
    const answer = await this.call(
      route,
      await this.#makerKey(route, owner),
      put === undefined ? parents : { ...parents, [leafOf(template)]: named },
      owner,
    );
    if (answer.status >= 300)
      return new Error(`the example of ${route.id} answered ${answer.status} on an installation where its parents exist: ${answer.text}`);
    const { id } = JSON.parse(answer.text) as { id?: string };
    // What is assigned (a role) is named by what it is, which the answer holds further in.
    return put === undefined && id === undefined
      ? this.#listed(template, owner)
      : { id: id ?? null, name: put === undefined ? null : named };
  }

  /** What nobody makes is there by itself. */
  async #listed(template: string, owner: Owner): Promise<Thing | Error> {
    const list = this.world.routes.find((route) => route.method === "GET" && route.path === collectionOf(template));
    if (list === undefined) return new Error(`no route makes ${template}`);
    this.#found.add(template);
    const answer = await this.call(list, this.adminKey(list, owner), this.params(list, owner), owner);
    const [first] = (JSON.parse(answer.text) as { data?: { id: string }[] }).data ?? [];
    return first === undefined ? new Error(`${list.id} lists nothing: ${answer.text}`) : { id: first.id, name: null };
  }

  /** The same thing under another address, known there by its id. */
  async #madeElsewhere(elsewhere: string, template: string, owner: Owner, name: string): Promise<Thing | Error> {
    const isUsual = name === this.#usualName(template, owner);
    if (isUsual) await this.#put(elsewhere, owner);
    const made = isUsual ? this.thing(elsewhere, owner) : await this.#attempt(elsewhere, owner, name);
    return made instanceof Error ? made : { id: made.id, name: null };
  }

  /** The platform's things keep their example's name, which other examples refer to; a tenant's are told apart by kind and owner. */
  #usualName(template: string, owner: Owner): string {
    const route = this.world.routes.find((each) => each.path === template || each.path.startsWith(`${template}/`)) as AnyRoute;
    return this.isTenants(template)
      ? `${kindOf(template)}-${owner.toLowerCase()}-${this.#run}`
      : (route.example.params[leafOf(template)] as string);
  }

  /** What a tenant's path names there is the platform's, the same for all (the model of a grant, a role). */
  isShared(template: string): boolean {
    return (template.includes("{tenant}") || isOwn(template)) && !this.isTenants(template);
  }

  /** Whether each tenant has its own of the kind. */
  isTenants(template: string): boolean {
    const known = this.#tenants.get(template) ?? this.#isTenants(template);
    this.#tenants.set(template, known);
    return known && !this.#isOfBoth(template);
  }

  /** Both owners found the very same: it is the installation's. */
  #isOfBoth(template: string): boolean {
    const [ofA, ofB] = (["A", "B"] as const).map((owner) => this.#things.get(place(owner, template)));
    return this.#found.has(template) && ofA !== undefined && ofB !== undefined && handleOf(ofA) === handleOf(ofB);
  }

  #isTenants(template: string): boolean {
    if (isOwn(template)) return true;
    const elsewhere = this.world.routes.some(
      (route) =>
        route.method === "PUT" &&
        !route.path.includes("{tenant}") &&
        leafOf(route.path) === leafOf(template) &&
        route.path.split("/").at(-2) !== template.split("/").at(-2),
    );
    return template.includes("{tenant}") && !elsewhere;
  }

  /** An example's fields that name a tenant's thing, by what they are called, with this owner's in its place. */
  #renamed(value: unknown, owner: Owner, field = ""): unknown {
    if (Array.isArray(value)) return value.map((each) => this.#renamed(each, owner, field));
    if (typeof value === "object" && value !== null)
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.#renamed(each, owner, key)]));
    if (typeof value !== "string") return value;
    const named = this.#upserts.get(kindOfField(field));
    if (named !== undefined) return this.#usualName(named, owner);
    const staged = this.#staged(owner, kindOfField(field));
    return field.endsWith("_id") && staged !== undefined ? (staged.id ?? value) : value;
  }

  /** What only an id names, by what it is. */
  #staged(owner: Owner, kind: string): Thing | undefined {
    return [...this.#things].find(([key, { name }]) => key.startsWith(`${owner} `) && name === null && kindOf(key) === kind)?.[1];
  }
}

/** `project`, `projects`, `project_id` and `project_ids` name a project. */
export function kindOfField(field: string): string {
  return field
    .replace(/_ids?$/, "")
    .replace(/s$/, "")
    .replace(/^api_key$/, "key");
}

/** `/a/{x}/b/{y}/c` names two kinds of things: `/a/{x}` and `/a/{x}/b/{y}`. */
export function templatesOf(path: string): string[] {
  return Array.from(path.matchAll(/\{\w+\}/g), (match) => path.slice(0, match.index + match[0].length));
}

export function leafOf(path: string): string {
  return parameterNames(path).at(-1) ?? "";
}

/** `…/projects/{project}` is a project; where the parameter is plainly `{id}`, its collection says what it is. */
function kindOf(template: string): string {
  const [collection = "", parameter = ""] = template.split("/").slice(-2);
  return parameter === "{id}" ? collection.replace(/s$/, "") : parameter.slice(1, -1);
}

export const TENANT = "/admin/v1/tenants/{tenant}";

/** Below what a tenant administers without naming itself. */
function isOwn(template: string): boolean {
  return template.startsWith("/v1/");
}

export function handleOf(thing: Thing): string {
  const handle = thing.name ?? thing.id;
  if (handle === null) throw new Error("a thing without a name needs an id");
  return handle;
}

export function pathFor(route: AnyRoute, params: Readonly<Record<string, string>>): string {
  return route.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ""));
}

/** The name as the route wants it at its last parameter, or at this one: an address where its example is one. */
function nameLike(route: AnyRoute, name: string, parameter = leafOf(route.path)): string {
  return (route.example.params[parameter] ?? "").includes("@") && !name.includes("@") ? `${name}@example.com` : name;
}

/** A deletion, or an action upon the last thing named (`…/keys/{id}/rotate`). */
function consumes(route: AnyRoute, routes: readonly AnyRoute[]): boolean {
  const makes = routes.some((each) => each.path.endsWith("}") && collectionOf(each.path) === route.path);
  return route.method === "DELETE" || (route.method === "POST" && !makes);
}

function collectionOf(template: string): string {
  return template.replace(/\/\{\w+\}$/, "");
}

function place(owner: Owner, template: string): string {
  return `${owner} ${template}`;
}
