import { randomBytes } from "node:crypto";
import { z } from "zod";
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
  /** Why the owner's same call, with a thing of the owner's there, fails: then nothing here proves anything. Null where it does not. */
  fault(stage: Stage, route: AnyRoute): Promise<string | null>;
}

export interface Probe {
  readonly what: string;
  readonly value: string;
  /** Values of one form are compared with one that never existed. */
  readonly form: string;
  /** `any answer`: anything but a failure of the server or a word of A. */
  readonly expect: "as if it never existed" | "refused" | "any answer";
}

/** All positions of a route: its path's parameters, the headers, and the fields of query and body, at any depth, that are named like one of the table's parameters. */
export function positionsOf(route: AnyRoute, stage: Stage): Position[] {
  const inPath = templatesOf(route.path).map((template) => pathPosition(route, template));
  const inQuery = fieldsOf(route.query)
    .filter((field) => kindOf(field, stage) !== null)
    .map((field) => queryPosition(route, field, stage));
  const inBody = route.body === null ? [] : bodyFields(route.body).filter(({ at }) => kindOf(at.at(-1) as string, stage) !== null);
  return [
    ...inPath,
    ...inQuery,
    ...inBody.map((field) => bodyPosition(route, field, stage)),
    ...wrongParent(route, stage),
    ...inHeaders(route),
    ...ofRepeats(route, stage),
  ];
}

/** The call with the owner's things everywhere is tried once for the whole route. */
const noFault = async (): Promise<null> => null;

/** A value of the same form that was never given to anything. */
export function lookalike(value: string): string {
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
      fault: noFault,
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
        return stage.ask(route, key, {
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
      fault: noFault,
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
        stage.ask(route, key, stage.params(route, "B"), "B", { headers: Object.fromEntries(TENANT_HEADERS.map((name) => [name, value])) }),
    },
  ];
}

export const TENANT_HEADERS = ["openai-organization", "openai-project", "x-atrium-tenant", "x-tenant-id", "x-forwarded-tenant"];

function pathPosition(route: AnyRoute, template: string): Position {
  const parameter = leafOf(template);
  const leaf = template === route.path;
  const free = leaf && route.method === "PUT";
  return {
    name: `path {${parameter}}`,
    stranger: lookalike,
    fault: noFault,
    values: (stage, reachesEverything) => pathProbes(stage, template, free, reachesEverything),
    call: (stage, _route, key, value) => stage.ask(route, key, { ...stage.params(route, "B"), [parameter]: value }),
  };
}

async function pathProbes(stage: Stage, template: string, free: boolean, reachesEverything: boolean): Promise<Probe[]> {
  const own = stage.thing(template, "B");
  const foreign = stage.thing(template, "A");
  // The platform's admin may see A; to it only a child under the wrong parent is foreign.
  const isForeign = stage.isTenants(template) && foreign.id !== own.id && !(reachesEverything && template.endsWith("/tenants/{tenant}"));
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
    // Addresses of mail are one whatever their case.
    ...(own.name === null || free || own.name.includes("@") ? [] : never("other case", flipCase(own.name))),
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

export function flipCase(text: string): string {
  const upper = text.toUpperCase();
  return upper === text ? text.toLowerCase() : upper;
}

function queryPosition(route: AnyRoute, field: string, stage: Stage): Position {
  const kind = kindOf(field, stage) ?? "";
  const call: Position["call"] = async (on, _route, key, value) => {
    const params = on.params(route, "B");
    return on.ask(route, key, params, "B", { path: withQuery(on, route, params, field, value) });
  };
  return {
    name: `query ${field}`,
    stranger: kind === ANY ? successor : lookalike,
    // Whoever reaches everything, over a route that is nobody's in particular, may name anybody's things.
    values: (on, reachesEverything) => fieldProbes(on, kind, reachesEverything && route.reach !== "path"),
    call,
    fault: async (on) => {
      const value = kind === ANY ? null : ownValue(on, route, kind);
      return value === null ? null : faultOf(await call(on, route, on.adminKey(route, "B"), value), `query ${field}`);
    },
  };
}

/** A field of a body that names something: where it is, and what beside it says that it counts (`kind` of a scope). */
interface BodyField {
  readonly at: readonly string[];
  readonly kind: string | null;
  readonly isList: boolean;
}

function bodyPosition(route: AnyRoute, field: BodyField, stage: Stage): Position {
  const name = `body ${field.at.join(".")}`;
  const kind = kindOf(field.at.at(-1) as string, stage) ?? "";
  const call: Position["call"] = async (on, _route, key, value) => {
    const body = { ...on.body(route, "B"), ...on.world.controls?.[`${route.id} ${name}`] };
    // One fixed name, so that two probes differ in nothing but the value.
    const fixed = "name" in body && route.method === "POST" ? { name: `probe-${lookalike("aaaaaaaa")}` } : {};
    return on.ask(route, key, on.besides(route, "B"), "B", { body: planted({ ...body, ...fixed }, field, value) });
  };
  return {
    name,
    stranger: lookalike,
    values: (on, reachesEverything) => fieldProbes(on, kind, reachesEverything && route.reach !== "path"),
    call,
    fault: async (on) => {
      const value = ownValue(on, route, kind);
      return value === null || on.world.controls?.[`${route.id} ${name}`] === null
        ? null
        : faultOf(await call(on, route, on.adminKey(route, "B"), value), name);
    },
  };
}

/** B's own thing of a kind, the platform's at a route of the platform's; null where the route can name none. */
function ownValue(stage: Stage, route: AnyRoute, kind: string): string | null {
  const things = stage.things("B").filter((each) => each.kind === kind);
  const thing =
    route.reach === "platform"
      ? things.find((each) => !stage.isTenants(each.template) && things.every((other) => !stage.isTenants(other.template)))
      : (things.find((each) => stage.isTenants(each.template)) ?? things[0]);
  return thing === undefined ? null : (thing.id ?? thing.name);
}

function faultOf({ status, text }: Received, where: string): string | null {
  return status < 300 ? null : `with the owner's own at '${where}' the call answered ${status} ${text}`;
}

/** The body with the value at the field; a `kind` beside it that can be what the field names is made so. */
function planted(body: Record<string, unknown>, { at, kind, isList }: BodyField, value: string): Record<string, unknown> {
  const [first, ...rest] = at as [string, ...string[]];
  if (rest.length === 0) return { ...body, ...(kind === null ? {} : { kind }), [first]: isList ? [value] : value };
  const inner = (body[first] ?? {}) as Record<string, unknown>;
  return { ...body, [first]: planted(inner, { at: rest, kind, isList }, value) };
}

/** Every field of a body that can hold a text, at any depth. */
function bodyFields(schema: z.ZodType): BodyField[] {
  const visit = (node: JsonSchema, at: readonly string[]): BodyField[] => {
    if (typeof node === "boolean") return [];
    const alternatives = [...(node.anyOf ?? []), ...(node.oneOf ?? []), ...(node.allOf ?? [])].flatMap((each) => visit(each, at));
    const properties = Object.entries(node.properties ?? {}).flatMap(([name, child]) => fieldsIn(node, name, child as JsonSchema, at));
    return [...alternatives, ...properties];
  };
  const fieldsIn = (parent: JsonSchema, name: string, child: JsonSchema, at: readonly string[]): BodyField[] => {
    const path = [...at, name];
    return [
      ...(holdsText(child) ? [{ at: path, kind: kindBeside(parent, name), isList: isListOfTexts(child) }] : []),
      ...visit(child, path),
    ];
  };
  const found = visit(z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }), []);
  return [...new Map(found.map((field) => [field.at.join("."), field])).values()];
}

type JsonSchema = z.core.JSONSchema._JSONSchema;

function holdsText(schema: JsonSchema): boolean {
  if (typeof schema === "boolean") return schema;
  if (schema.anyOf !== undefined) return schema.anyOf.some(holdsText);
  return [schema.type].flat().includes("string") || isListOfTexts(schema);
}

function isListOfTexts(schema: JsonSchema): boolean {
  if (typeof schema === "boolean") return false;
  if (schema.anyOf !== undefined)
    return schema.anyOf.some(isListOfTexts) && !schema.anyOf.some((each) => holdsText(each) && !isListOfTexts(each));
  return schema.type === "array" && schema.items !== undefined && !Array.isArray(schema.items) && holdsText(schema.items);
}

/** The value of a sibling `kind` under which the field counts, where there is one of its name. */
function kindBeside(parent: JsonSchema, name: string): string | null {
  const kind = typeof parent === "boolean" ? undefined : parent.properties?.["kind"];
  return typeof kind === "object" && kind.enum?.includes(name) === true ? name : null;
}

/** An Idempotency-Key names an earlier request: of anybody else's it is as one that was never used. */
function ofRepeats(route: AnyRoute, stage: Stage): Position[] {
  if (route.method !== "POST" || !stage.world.remembers) return [];
  return [
    {
      name: "header idempotency-key",
      stranger: (value) => `${value}-unused`,
      fault: noFault,
      values: async () => ["null", "*", "%", "0"].map((value): Probe => ({ what: `'${value}'`, value, form: value, expect: "any answer" })),
      call: async (on, _route, key, value) =>
        on.ask(route, key, on.params(route, "B"), "B", { headers: { "content-type": "application/json", "idempotency-key": value } }),
    },
  ];
}

function withQuery(stage: Stage, route: AnyRoute, params: Readonly<Record<string, string>>, field: string, value: string): string {
  const query = new URLSearchParams(stage.query(route));
  query.delete(field);
  query.set(acceptsList(route.query, field, value) ? `${field}[]` : field, value);
  return `${pathFor(route, params)}?${query.toString()}`;
}

function acceptsList(schema: AnyRoute["query"], field: string, value: string): boolean {
  const complains = (candidate: unknown) => {
    const outcome = schema.safeParse({ [field]: candidate });
    return !outcome.success && outcome.error.issues.some((issue) => issue.path[0] === field);
  };
  return complains(value) && !complains([value]);
}

async function fieldProbes(stage: Stage, kind: string, reachesAll: boolean): Promise<Probe[]> {
  const foreign = reachesAll ? [] : stage.things("A").filter((thing) => kind === ANY || thing.kind === kind);
  const own = new Set(stage.things("B").flatMap(({ id, name }) => [id, name]));
  const values = foreign.flatMap(({ id, name }) => [id, name]).filter((value) => value !== null && !own.has(value)) as string[];
  const things = stage.things("B").filter((thing) => thing.kind === kind);
  const mine = things.find((thing) => stage.isTenants(thing.template)) ?? things[0];
  const deleted = mine === undefined ? null : await stage.deleted(mine.template);
  const absent = (what: string, value: string | null | undefined): Probe[] =>
    value === null || value === undefined
      ? []
      : [{ what, value, form: kind === ANY ? value : UUID.test(value) ? "id" : "name", expect: "as if it never existed" }];
  return [
    ...values.flatMap((value) => absent(`foreign ${value}`, value)),
    ...absent("deleted id", deleted?.id),
    ...absent("deleted name", deleted?.name),
    ...absent("never existed", mine === undefined ? null : lookalike(mine.id ?? handleOf(mine))),
    ...absent("other case", mine?.name?.includes("@") === false ? flipCase(mine.name) : null),
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
  // A provider's secret, by the name that providers give it.
  if (field === "api_key") return null;
  if (field === "after" || field === "page") return ANY;
  return stage.things("A").find(({ kind }) => kind === kindOfField(field))?.kind ?? null;
}
