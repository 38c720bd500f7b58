import { z } from "zod";
import { PERMISSIONS, type Permission } from "../../domains/identity/index.ts";
import type { Answer, Route, RouteContext } from "../../kernel/route.ts";

/** Any domain's route. What its handler asks for was checked against its schemas and its permission by `routeBuilder`. */
export interface AnyRoute extends Pick<Route, "id" | "method" | "path" | "summary" | "reach" | "downloads" | "example" | "audit"> {
  readonly permission: string;
  readonly params: z.ZodType;
  readonly query: z.ZodType;
  readonly body: z.ZodType | null;
  readonly result: z.ZodType;
  readonly handler: (context: RouteContext<never, never, never, never, never>) => Promise<Answer<unknown>>;
}

/** Where routes of the table may live. Below each, an unknown path and a wrong method are answered here. */
export const PREFIXES = ["/admin/v1", "/v1/organization", "/v1/projects"] as const;

/** What is wrong with the table, one sentence each; empty when a server may mount it. */
export function checkRoutes(routes: readonly AnyRoute[]): string[] {
  const findings = routes.flatMap((route) => faultsOf(route).map((fault) => `${route.id}: ${fault}`));
  for (const id of repeated(routes.map((route) => route.id))) findings.push(`${id}: two routes have this id`);
  for (const address of repeated(routes.map((route) => `${route.method} ${route.path.replaceAll(/\{\w+\}/g, "{}")}`)))
    findings.push(`${address}: two routes have this address`);
  return findings;
}

function faultsOf(route: AnyRoute): string[] {
  const named = parameterNames(route.path);
  const write = route.method !== "GET";
  const rules: readonly (readonly [boolean, string])[] = [
    [PREFIXES.some((prefix) => route.path.startsWith(`${prefix}/`)), `its path is below none of ${PREFIXES.join(", ")}`],
    [isPermission(route.permission), `'${route.permission}' is not a permission`],
    [write === (route.audit !== null), write ? "a write needs an audit action" : "a read has no audit action"],
    [write || route.body === null, "a GET has no body"],
    [!write || route.downloads === undefined, "only a GET answers with a download"],
    [
      (route.reach === "path") === (named.includes("tenant") && route.reach !== "platform"),
      "a route reaches 'path' exactly when its path names {tenant} and the rows are that tenant's",
    ],
    [sameNames(named, fieldNames(route.params)), "params and the path name different parameters"],
    [sameNames(named, Object.keys(route.example.params)), "the example and the path name different parameters"],
    [refusesUnknown(route.params) && refusesUnknown(route.query), "params and query must be z.strictObject"],
    [route.body === null || refusesUnknown(route.body), "the body must be z.strictObject"],
    [accepts(route.params, route.example.params), "the example's params do not pass the schema"],
    [accepts(route.query, route.example.query ?? {}), "the example's query does not pass the schema"],
    [route.body === null || accepts(route.body, route.example.body ?? {}), "the example's body does not pass the schema"],
  ];
  return rules.filter(([holds]) => !holds).map(([, fault]) => fault);
}

/** The `{name}`s of a path, in order. */
export function parameterNames(path: string): string[] {
  return Array.from(path.matchAll(/\{(\w+)\}/g), (match) => match[1] as string);
}

/** The methods that the table answers at a concrete path (without query), or none. */
export function methodsAt(routes: readonly AnyRoute[], path: string): string[] {
  return routes.filter((route) => matches(route.path, path)).map((route) => route.method);
}

function matches(template: string, path: string): boolean {
  const expected = template.split("/");
  const given = path.split("/");
  return (
    expected.length === given.length &&
    expected.every((segment, index) => (segment.startsWith("{") ? given[index] !== "" : segment === given[index]))
  );
}

export function isPermission(text: string): text is Permission {
  return Object.hasOwn(PERMISSIONS, text);
}

function fieldNames(schema: z.ZodType): string[] {
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

function refusesUnknown(schema: z.ZodType): boolean {
  if (schema instanceof z.ZodUnion) return schema.options.every((option) => option instanceof z.ZodType && refusesUnknown(option));
  return schema instanceof z.ZodObject && schema.def.catchall instanceof z.ZodNever;
}

function accepts(schema: z.ZodType, value: unknown): boolean {
  return schema.safeParse(value).success;
}

function sameNames(left: readonly string[], right: readonly string[]): boolean {
  return left.toSorted().join() === right.toSorted().join();
}

function repeated(values: readonly string[]): string[] {
  return [...new Set(values.filter((value, index) => values.indexOf(value) !== index))];
}
