import { isDeepStrictEqual } from "node:util";
import type { JsonSchema, Kind } from "./kinds.ts";

/** What the server shows of a resource. */
export type View = Readonly<Record<string, unknown>>;

/** Whether a field of a file can be compared with what the server shows. Secrets are never shown. */
export function isComparable(kind: Kind, field: string, value: unknown): boolean {
  const shown = kind.shown[field];
  if (shown === undefined) return false;
  // Where null means a default that is then shown in its place, nothing tells whether it is in force.
  return value !== null || isNullable(shown) || shown.type === "array";
}

function isNullable(shown: Readonly<Record<string, unknown>>): boolean {
  const alternatives = (shown["anyOf"] ?? []) as readonly Readonly<Record<string, unknown>>[];
  return [shown["type"]].flat().includes("null") || alternatives.some(isNullable);
}

/** Whether the server holds what the file says: the same value, in whatever spelling. What it shows beyond what `schema` takes does not count. */
export function isSame(wanted: unknown, actual: unknown, schema?: JsonSchema): boolean {
  if (wanted === null || wanted === undefined)
    return actual === null || actual === undefined || (Array.isArray(actual) && actual.length === 0);
  if (typeof wanted === "string") return sameText(wanted, actual);
  if (Array.isArray(wanted)) return Array.isArray(actual) && sameList(wanted, actual, schema);
  if (typeof wanted === "object" && typeof actual === "object" && actual !== null)
    return sameObject(wanted as View, actual as View, schema);
  return isDeepStrictEqual(wanted, actual);
}

function sameObject(wanted: View, actual: View, schema: JsonSchema | undefined): boolean {
  const taken = alternativesOf(schema).flatMap((each) => Object.entries(each.properties ?? {}));
  const known = new Map(taken as [string, JsonSchema][]);
  const shown = Object.keys(actual).filter((key) => known.size === 0 || known.has(key));
  return [...new Set([...Object.keys(wanted), ...shown])].every(
    (key) =>
      isSame(wanted[key], actual[key], known.get(key)) ||
      isSame(actual[key], wanted[key]) ||
      // Named in the file, and shown by its id with the name beside it.
      (wanted[key] === actual["name"] && !("name" in wanted)),
  );
}

function alternativesOf(schema: JsonSchema | undefined): JsonSchema[] {
  if (schema === undefined) return [];
  return [schema, ...((schema.anyOf ?? []) as JsonSchema[]).flatMap(alternativesOf)];
}

function sameText(wanted: string, actual: unknown): boolean {
  if (wanted === actual) return true;
  if (typeof actual === "number") return isTime(wanted) && Math.floor(Date.parse(wanted) / 1000) === actual;
  if (typeof actual !== "string") return false;
  if (DECIMAL.test(wanted) && DECIMAL.test(actual)) return shortest(wanted) === shortest(actual);
  if (isTime(wanted) && isTime(actual)) return Date.parse(wanted) === Date.parse(actual);
  return withoutUser(wanted) === actual;
}

/** Lists of names are sets: the server may keep them in another order. */
function sameList(wanted: readonly unknown[], actual: readonly unknown[], schema: JsonSchema | undefined): boolean {
  const items = alternativesOf(schema).find((each) => each.items !== undefined)?.items as JsonSchema | undefined;
  if (wanted.length !== actual.length) return false;
  const areNames = [...wanted, ...actual].every((each) => typeof each === "string");
  return areNames ? wanted.every((each) => actual.includes(each)) : wanted.every((each, index) => isSame(each, actual[index], items));
}

const DECIMAL = /^\d{1,30}(\.\d{1,30})?$/;

/** `0.60` and `0.6` are one amount. */
function shortest(decimal: string): string {
  const [whole = "", fraction = ""] = decimal.split(".");
  const [digits, rest] = [whole.replace(/^0+(?=\d)/, ""), fraction.replace(/0+$/, "")];
  return rest === "" ? digits : `${digits}.${rest}`;
}

function isTime(text: string): boolean {
  return /^\d{4}-\d\d-\d\dT/.test(text) && !Number.isNaN(Date.parse(text));
}

/** A proxy's user and password are written and never shown. */
function withoutUser(text: string): string {
  return text.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/@]*@/i, "$1");
}
