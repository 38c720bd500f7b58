import { randomBytes } from "node:crypto";
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
  /** Mints a key of a role in a tenant (its name) through the API; `expiresInMs` makes it a short-lived one. */
  mint(tenant: string, role: "tenant_admin" | "developer", expiresInMs?: number): Promise<{ readonly id: string; readonly key: string }>;
  revoke(tenant: string, id: string): Promise<void>;
  /** Added to the query of the route's example, to make it show as much as it can. */
  query?(route: AnyRoute): Readonly<Record<string, string>>;
  /** Leaves the traces that only calls leave (usage), for both owners, with each one's canary in them. */
  call?(tenant: string, canary: string): Promise<void>;
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
  #made = 0;

  static async build(world: MatrixWorld): Promise<Stage> {
    const stage = new Stage(world);
    const kinds = new Set(world.routes.flatMap((route) => templatesOf(route.path)));
    const ordered = [...kinds].toSorted((left, right) => left.split("/").length - right.split("/").length);
    for (const owner of ["A", "B"] as const) {
      for (const template of ordered)
        stage.#things.set(place(owner, template), await stage.#make(template, owner, stage.#usualName(template, owner)));
    }
    for (const owner of ["A", "B"] as const)
      await world.call?.(handleOf(stage.thing("/admin/v1/tenants/{tenant}", owner)), stage.canary(owner));
    return stage;
  }

  private constructor(world: MatrixWorld) {
    this.world = world;
  }

  thing(template: string, owner: Owner): Thing {
    const thing = this.#things.get(place(owner, template));
    if (thing === undefined) throw new Error(`nothing is on stage for ${template}`);
    return thing;
  }

  /** Every thing of an owner, with its kind in the singular: `project`, `key`. */
  things(owner: Owner): (Thing & { readonly kind: string })[] {
    return [...this.#things].filter(([key]) => key.startsWith(`${owner} `)).map(([key, thing]) => ({ ...thing, kind: kindOf(key) }));
  }

  /** Path parameters of a route, naming the owner's things. */
  params(route: AnyRoute, owner: Owner): Record<string, string> {
    return Object.fromEntries(templatesOf(route.path).map((template) => [leafOf(template), handleOf(this.thing(template, owner))]));
  }

  /** As `params`, but the last thing named is one that nothing else needs, so that the call may consume it. */
  async freshParams(route: AnyRoute, owner: Owner): Promise<Record<string, string>> {
    const last = templatesOf(route.path).at(-1);
    if (last === undefined || !consumes(route, this.world.routes)) return this.params(route, owner);
    return { ...this.params(route, owner), [leafOf(last)]: handleOf(await this.fresh(last, owner)) };
  }

  /** A further thing of a kind beside the one on stage; that one, made again, where the kind's names are not free (a grant of a model). */
  async fresh(template: string, owner: Owner): Promise<Thing> {
    const scratch = await this.#attempt(template, owner, `scratch-${++this.#made}-${this.#run}`);
    return scratch instanceof Error ? this.#make(template, owner, this.#usualName(template, owner)) : scratch;
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
    const answer = await this.call(route, this.world.adminKey, { ...this.params(route, owner), [leafOf(template)]: handleOf(thing) });
    if (answer.status !== 200) throw new Error(`${route.id} of a fresh thing answered ${answer.status}: ${answer.text}`);
    // A deleted grant is one of a model that lives on under the same name.
    return thing.name === this.#usualName(template, owner) ? (await this.#make(template, owner, thing.name), null) : thing;
  }

  /** Sends the route's example, with the owner's names in place of the example's. */
  call(
    route: AnyRoute,
    key: string | null,
    params: Readonly<Record<string, string>>,
    owner: Owner = "B",
    change: Partial<Sent> = {},
  ): Promise<Received> {
    const query = new URLSearchParams(this.#renamed(this.query(route), owner) as Record<string, string>).toString();
    const path = pathFor(route, params) + (query === "" ? "" : `?${query}`);
    return this.world.send({
      method: route.method,
      path,
      key,
      ...(route.body === null ? {} : { body: this.body(route, owner) }),
      ...change,
    });
  }

  query(route: AnyRoute): Record<string, string> {
    return { ...route.example.query, ...this.world.query?.(route) };
  }

  body(route: AnyRoute, owner: Owner): Record<string, unknown> {
    const example = (route.example.body ?? {}) as Record<string, unknown>;
    const body = this.#renamed(example, owner) as Record<string, unknown>;
    if (route.method === "POST" && typeof body["name"] === "string") body["name"] = `${body["name"]}-${++this.#made}`;
    if ("display_name" in example) body["display_name"] = this.canary(owner);
    return body;
  }

  /** A text that only the owner and the platform ever wrote. */
  canary(owner: Owner): string {
    return `canary ${owner} ${this.#run}`;
  }

  /** What must never reach anybody but the owner: ids, names and contents of what is its tenant's. */
  secrets(owner: Owner): string[] {
    const own = [...this.#things]
      .filter(([key]) => key.startsWith(`${owner} `) && key.includes("{tenant}") && !this.isShared(key))
      .flatMap(([, { id, name }]) => [id, name]);
    return [...own, this.canary(owner)].filter((secret) => secret !== null);
  }

  async #make(template: string, owner: Owner, name: string): Promise<Thing> {
    const made = await this.#attempt(template, owner, name);
    if (made instanceof Error) throw made;
    return made;
  }

  async #attempt(template: string, owner: Owner, name: string): Promise<Thing | Error> {
    const put = this.world.routes.find((route) => route.method === "PUT" && route.path === template);
    const route = put ?? this.world.routes.find((each) => each.method === "POST" && each.path === collectionOf(template));
    if (route === undefined) return new Error(`no route makes ${template}`);
    const parents = Object.fromEntries(
      templatesOf(collectionOf(template)).map((parent) => [leafOf(parent), handleOf(this.thing(parent, owner))]),
    );
    const answer = await this.call(
      route,
      this.world.adminKey,
      put === undefined ? parents : { ...parents, [leafOf(template)]: name },
      owner,
    );
    if (answer.status >= 300)
      return new Error(`the example of ${route.id} answered ${answer.status} on an installation where its parents exist: ${answer.text}`);
    const { id } = JSON.parse(answer.text) as { id?: string };
    return { id: id ?? null, name: put === undefined ? null : name };
  }

  /** The platform's things keep their example's name, which other examples refer to; a tenant's are told apart by kind and owner. */
  #usualName(template: string, owner: Owner): string {
    const route = this.world.routes.find((each) => each.path === template) as AnyRoute;
    return this.#isTenants(template)
      ? `${kindOf(template)}-${owner.toLowerCase()}-${this.#run}`
      : (route.example.params[leafOf(template)] as string);
  }

  /** What a tenant's path names there is the platform's, the same for all (the model of a grant). */
  isShared(template: string): boolean {
    return template.includes("{tenant}") && !this.#isTenants(template);
  }

  #isTenants(template: string): boolean {
    const elsewhere = this.world.routes.some(
      (route) => route.method === "PUT" && !route.path.includes("{tenant}") && leafOf(route.path) === leafOf(template),
    );
    return template.includes("{tenant}") && !elsewhere;
  }

  /** An example's fields that name a tenant's thing, by what they are called, with this owner's in its place. */
  #renamed(value: unknown, owner: Owner, field = ""): unknown {
    if (Array.isArray(value)) return value.map((each) => this.#renamed(each, owner, field));
    if (typeof value === "object" && value !== null)
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.#renamed(each, owner, key)]));
    const named = this.world.routes.find(
      (route) => route.method === "PUT" && this.#isTenants(route.path) && kindOf(route.path) === kindOfField(field),
    );
    return named === undefined || typeof value !== "string" ? value : this.#usualName(named.path, owner);
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

export function handleOf(thing: Thing): string {
  const handle = thing.name ?? thing.id;
  if (handle === null) throw new Error("a thing without a name needs an id");
  return handle;
}

export function pathFor(route: AnyRoute, params: Readonly<Record<string, string>>): string {
  return route.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ""));
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
