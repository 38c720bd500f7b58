import { randomBytes } from "node:crypto";
import { PLATFORM_TENANT } from "../../src/kernel/ids.ts";
import type { AnyRoute } from "../../src/surfaces/admin/route-table.ts";
import { fieldsOf } from "./inputs.ts";
import { handleOf, kindOfField, leafOf, pathFor, templatesOf, type Received, type Stage } from "./stage.ts";

/** A place in a request that names something. */
export interface Position {
  /** `path {project}`, `query project_ids`, `body credential`. */
  readonly name: string;
  values(stage: Stage, reachesEverything: boolean): Promise<Probe[]>;
  /** A value like this one that was never given to anything. */
  stranger(value: string): string;
  call(stage: Stage, route: AnyRoute, key: string | null, value: string): Promise<Received>;
}

export interface Probe {
  readonly what: string;
  readonly value: string;
  /** Values of one form are compared with one that never existed. */
  readonly form: string;
  /** `any answer`: anything but a failure of the server or a word of A. */
  readonly expect: "as if it never existed" | "refused" | "any answer";
}

/** All positions of a route: its path's parameters, and the fields of query and body that are named like one of the table's parameters. */
export function positionsOf(route: AnyRoute, stage: Stage): Position[] {
  const inPath = templatesOf(route.path).map((template) => pathPosition(route, template));
  const inQuery = fieldsOf(route.query)
    .filter((field) => kindOf(field, stage) !== null)
    .map((field) => fieldPosition(route, "query", field, stage));
  const inBody =
    route.body === null
      ? []
      : fieldsOf(route.body)
          .filter((field) => kindOf(field, stage) !== null)
          .map((field) => fieldPosition(route, "body", field, stage));
  return [...inPath, ...inQuery, ...inBody, ...wrongParent(route, stage), ...inHeaders(route)];
}

function lookalike(value: string): string {
  const random = randomBytes(value.length);
  const kept = UUID.test(value) ? value.length - 12 : 0;
  return value.slice(0, kept) + Array.from(value.slice(kept), (letter, index) => alike(letter, random[index] as number)).join("");
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The next value of the same form: where a list is cut by one, it is cut by the other. */
function successor(value: string): string {
  return increment(value, UUID.test(value) ? HEX : BASE62);
}

function increment(value: string, alphabet: string): string {
  const kept = value.slice(0, -1);
  const next = alphabet.indexOf(value.at(-1) ?? "") + 1;
  return next < alphabet.length ? kept + alphabet.charAt(next) : increment(kept, alphabet) + alphabet.charAt(0);
}

const HEX = "0123456789abcdef";
const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

function alike(letter: string, random: number): string {
  const alphabet = ["0123456789", "abcdef", "ghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"].find((each) => each.includes(letter));
  return alphabet === undefined ? letter : alphabet.charAt(random % alphabet.length);
}

/** The caller's own thing, asked for below another parent that is the caller's as well. */
function wrongParent(route: AnyRoute, stage: Stage): Position[] {
  const [parent, leaf] = templatesOf(route.path).slice(-2);
  if (parent === undefined || leaf === undefined || stage.isShared(leaf)) return [];
  return [
    {
      name: `path {${leafOf(leaf)}} below another {${leafOf(parent)}}`,
      stranger: lookalike,
      async values(stage) {
        const { id, name } = stage.thing(leaf, "B");
        const free = leaf === route.path && route.method === "PUT";
        const values = [
          ["id", id],
          ["name", free ? null : name],
        ] as const;
        return values.flatMap(([what, value]): Probe[] =>
          value === null ? [] : [{ what, value, form: what, expect: "as if it never existed" }],
        );
      },
      async call(stage, _route, key, value) {
        return stage.call(route, key, {
          ...stage.params(route, "B"),
          [leafOf(parent)]: handleOf(await stage.sibling(parent)),
          [leafOf(leaf)]: value,
        });
      },
    },
  ];
}

/** Headers by which other products name a tenant or a project: here they name nothing. */
function inHeaders(route: AnyRoute): Position[] {
  if (route.method !== "GET") return [];
  return [
    {
      name: "headers",
      stranger: lookalike,
      async values(stage, reachesEverything) {
        if (reachesEverything && route.reach !== "path") return [];
        const named = stage.things("A").filter(({ kind }) => kind === "tenant" || kind === "project");
        return named.flatMap(({ kind, id, name }) =>
          [id, name].flatMap((value): Probe[] =>
            value === null ? [] : [{ what: `foreign ${kind}`, value, form: kind, expect: "as if it never existed" }],
          ),
        );
      },
      call: (stage, _route, key, value) =>
        stage.call(route, key, stage.params(route, "B"), "B", { headers: Object.fromEntries(TENANT_HEADERS.map((name) => [name, value])) }),
    },
  ];
}

const TENANT_HEADERS = ["openai-organization", "openai-project", "x-atrium-tenant", "x-tenant-id", "x-forwarded-tenant"];

function pathPosition(route: AnyRoute, template: string): Position {
  const parameter = leafOf(template);
  const leaf = template === route.path;
  const free = leaf && route.method === "PUT";
  return {
    name: `path {${parameter}}`,
    stranger: lookalike,
    values: (stage, reachesEverything) => pathProbes(stage, template, free, reachesEverything),
    call: (stage, _route, key, value) => stage.call(route, key, { ...stage.params(route, "B"), [parameter]: value }),
  };
}

async function pathProbes(stage: Stage, template: string, free: boolean, reachesEverything: boolean): Promise<Probe[]> {
  const own = stage.thing(template, "B");
  const foreign = stage.thing(template, "A");
  // The platform's admin may see A; to it only a child under the wrong parent is foreign.
  const isForeign =
    template.includes("{tenant}") && foreign.id !== own.id && !(reachesEverything && template.endsWith("/tenants/{tenant}"));
  const deleted = await stage.deleted(template);
  const never = (what: string, value: string | null): Probe[] =>
    value === null ? [] : [{ what, value, form: what.endsWith("id") ? "id" : "name", expect: "as if it never existed" }];
  const refused = (what: string, value: string): Probe => ({ what, value, form: what, expect: "refused" });
  return [
    ...(isForeign ? never("foreign id", foreign.id) : []),
    // A tenant may give its own thing the name that another tenant's has.
    ...(isForeign && !free ? never("foreign name", foreign.name) : []),
    ...(template.endsWith("/tenants/{tenant}") ? never("the platform's own id", PLATFORM_TENANT) : []),
    ...never("deleted id", deleted?.id ?? null),
    ...(free ? [] : never("deleted name", deleted?.name ?? null)),
    ...(own.name === null || free ? [] : never("other case", flipCase(own.name))),
    ...(own.id === null ? [] : [refused("id in other case", flipCase(own.id))]),
    // A fine name for a new thing.
    ...(free ? [] : [refused("null", "null")]),
    refused("*", "*"),
    refused("%", "%"),
    refused("dot dot", "../.."),
    refused("NUL", "a\0b"),
    refused("never existed", lookalike(own.id ?? handleOf(own))),
  ];
}

function flipCase(text: string): string {
  const upper = text.toUpperCase();
  return upper === text ? text.toLowerCase() : upper;
}

function fieldPosition(route: AnyRoute, place: "query" | "body", field: string, stage: Stage): Position {
  return {
    name: `${place} ${field}`,
    stranger: kindOf(field, stage) === ANY ? successor : lookalike,
    // Whoever reaches everything, over a route that is nobody's in particular, may name anybody's things.
    values: async (_stage, reachesEverything) =>
      fieldProbes(stage, kindOf(field, stage) ?? "", reachesEverything && route.reach !== "path"),
    call: async (_stage, _route, key, value) => {
      const params = stage.params(route, "B");
      if (place === "query") return stage.call(route, key, params, "B", { path: withQuery(stage, route, params, field, value) });
      const body = stage.body(route, "B");
      // One fixed name, so that two probes differ in nothing but the value.
      const fixed = "name" in body && route.method === "POST" ? { name: `probe-${lookalike("aaaaaaaa")}` } : {};
      return stage.call(route, key, params, "B", { body: { ...body, ...fixed, [field]: shaped(route, field, value) } });
    },
  };
}

function withQuery(stage: Stage, route: AnyRoute, params: Readonly<Record<string, string>>, field: string, value: string): string {
  const query = new URLSearchParams(stage.query(route));
  query.delete(field);
  query.set(acceptsList(route.query, field, value) ? `${field}[]` : field, value);
  return `${pathFor(route, params)}?${query.toString()}`;
}

/** Wrapped in a list where the field is one. */
function shaped(route: AnyRoute, field: string, value: string): unknown {
  return route.body !== null && acceptsList(route.body, field, value) ? [value] : value;
}

function acceptsList(schema: AnyRoute["query"], field: string, value: string): boolean {
  const complains = (candidate: unknown) => {
    const outcome = schema.safeParse({ [field]: candidate });
    return !outcome.success && outcome.error.issues.some((issue) => issue.path[0] === field);
  };
  return complains(value) && !complains([value]);
}

function fieldProbes(stage: Stage, kind: string, reachesAll: boolean): Probe[] {
  const foreign = reachesAll ? [] : stage.things("A").filter((thing) => kind === ANY || thing.kind === kind);
  const own = new Set(stage.things("B").flatMap(({ id, name }) => [id, name]));
  const values = foreign.flatMap(({ id, name }) => [id, name]).filter((value) => value !== null && !own.has(value)) as string[];
  return [
    ...values.map((value): Probe => ({ what: `foreign ${value}`, value, form: value, expect: "as if it never existed" })),
    ...["null", "*", "%", "\u{1f4a3}", "a\0b"].map((value): Probe => ({
      what: JSON.stringify(value),
      value,
      form: value,
      expect: "any answer",
    })),
  ];
}

/** A cursor may name anything. */
const ANY = "any";

/** The kind of thing on stage that a field names, if any. */
function kindOf(field: string, stage: Stage): string | null {
  if (field === "after" || field === "page") return ANY;
  return stage.things("A").find(({ kind }) => kind === kindOfField(field))?.kind ?? null;
}
