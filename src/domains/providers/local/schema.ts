import { Problem } from "../../../kernel/problem.ts";
import type { Json, JsonObject } from "../../../kernel/request.ts";
import type { GrammarSchema } from "./protocol.ts";

/**
 * Reduces a JSON schema to what a grammar can enforce token by token: types, `enum`, `const`, `properties`, `required`,
 * `additionalProperties`, `items`, `prefixItems`, `anyOf`/`oneOf`, local `$ref`, bounded lengths and item counts, dates and times.
 * What the grammar writes is valid under the whole schema: an assertion that it cannot enforce is refused, never dropped.
 * Optional properties are always written, in the schema's order; the alternatives of a `oneOf` are taken to exclude one another.
 * @param param where the schema stands in the caller's request.
 * @throws Problem `unsupported_field` naming the keyword, or `invalid_request` where it is no schema.
 */
export function toGrammarSchema(schema: JsonObject, param: string): GrammarSchema {
  const root: Root = { definitions: new Set([...keysOf(schema["$defs"]), ...keysOf(schema["definitions"])]), nodes: 0 };
  const reduced = reduce(schema, param, root);
  const definitions = { ...objectOf(schema["definitions"]), ...objectOf(schema["$defs"]) };
  if (Object.keys(definitions).length === 0) return reduced;
  const entries = Object.entries(definitions).map(
    ([name, definition]) => [name, reduce(definition, `${param}.$defs.${name}`, root)] as const,
  );
  return { ...reduced, $defs: Object.fromEntries(entries) };
}

/** Every node becomes grammar rules that are matched at each token. */
const SCHEMA_NODES = 1000;
/** llama.cpp writes a bounded repetition out and refuses more than 2,000 of them. */
const REPETITIONS = 1000;

interface Root {
  readonly definitions: ReadonlySet<string>;
  nodes: number;
}

function reduce(schema: Json | undefined, at: string, root: Root): GrammarSchema {
  root.nodes += 1;
  if (root.nodes > SCHEMA_NODES)
    throw new Problem("invalid_request", { message: `The schema has more than ${SCHEMA_NODES} parts.`, param: at });
  if (schema === true) return ANYTHING;
  if (!isObject(schema)) throw new Problem("invalid_request", { message: "A schema must be a JSON object.", param: at });
  const asserted = Object.keys(schema).filter((key) => schema[key] !== undefined && !ANNOTATIONS.has(key) && !isIdle(key, schema[key]));
  const only = (...allowed: readonly string[]): void => refuseOthers(asserted, allowed, at);
  const description = typeof schema["description"] === "string" ? { description: schema["description"] } : {};
  if ("$ref" in schema) {
    only("$ref");
    return { $ref: reference(schema["$ref"], at, root), ...description };
  }
  for (const key of ["anyOf", "oneOf"]) {
    const choices = schema[key];
    if (choices === undefined) continue;
    only(key);
    const alternatives = listOf(choices, `${at}.${key}`);
    if (alternatives.length === 0) throw malformed(`${at}.${key}`);
    return { oneOf: alternatives.map((choice, index) => reduce(choice, `${at}.${key}.${index}`, root)), ...description };
  }
  for (const key of ["const", "enum"]) {
    if (!(key in schema)) continue;
    only(key, "type");
    const values = key === "const" ? [schema[key] ?? null] : listOf(schema[key], `${at}.${key}`);
    return {
      enum: ofTypes(
        schema["type"],
        values.map((value) => scalar(value, `${at}.${key}`)),
        `${at}.${key}`,
      ),
      ...description,
    };
  }
  return { ...typed(schema, asserted, at, root), ...description };
}

function typed(schema: JsonObject, asserted: readonly string[], at: string, root: Root): GrammarSchema {
  const type = schema["type"] ?? impliedType(schema);
  if (type === undefined) {
    refuseOthers(asserted, [], at);
    return ANYTHING;
  }
  const types = typeof type === "string" ? [type] : listOf(type, `${at}.type`);
  const allowed = types.flatMap((each) => (typeof each === "string" ? (KEYWORDS_OF[each] ?? unknownType(at)) : unknownType(at)));
  refuseOthers(asserted, ["type", ...allowed], at);
  const alternatives = types.map((each) => ofOneType(each as string, schema, at, root));
  const [first] = alternatives;
  if (first === undefined) throw malformed(`${at}.type`);
  return alternatives.length === 1 ? first : { oneOf: alternatives };
}

function ofOneType(type: string, schema: JsonObject, at: string, root: Root): GrammarSchema {
  if (type === "object") return ofObject(schema, at, root);
  if (type === "array") return ofArray(schema, at, root);
  if (type === "string") return ofString(schema, at);
  return { type };
}

function ofObject(schema: JsonObject, at: string, root: Root): GrammarSchema {
  const properties = schema["properties"] ?? {};
  if (!isObject(properties)) throw malformed(`${at}.properties`);
  const more = schema["additionalProperties"];
  for (const name of listOf(schema["required"] ?? [], `${at}.required`))
    if (typeof name !== "string" || !Object.hasOwn(properties, name))
      throw unsupported(`${at}.required`, "List every required property in 'properties'.");
  const reduced = Object.entries(properties).map(([name, property]) => [name, reduce(property, `${at}.properties.${name}`, root)] as const);
  // Without properties the schema means "any object"; with properties the model is held to them, as additionalProperties: false would.
  const open = isObject(more)
    ? reduce(more, `${at}.additionalProperties`, root)
    : more === true || (more === undefined && reduced.length === 0);
  return { type: "object", properties: Object.fromEntries(reduced), additionalProperties: open };
}

function ofArray(schema: JsonObject, at: string, root: Root): GrammarSchema {
  const prefix = schema["prefixItems"];
  const items = schema["items"];
  return {
    type: "array",
    items: items === undefined ? ANYTHING : reduce(items, `${at}.items`, root),
    ...(prefix === undefined
      ? {}
      : { prefixItems: listOf(prefix, `${at}.prefixItems`).map((item, index) => reduce(item, `${at}.prefixItems.${index}`, root)) }),
    ...range(schema, "minItems", "maxItems", at),
  };
}

function ofString(schema: JsonObject, at: string): GrammarSchema {
  const format = schema["format"];
  if (format === undefined) return { type: "string", ...range(schema, "minLength", "maxLength", at) };
  if (typeof format !== "string" || !FORMATS.has(format))
    throw unsupported(`${at}.format`, `The formats enforced here are ${[...FORMATS].join(", ")}.`);
  if ("minLength" in schema || "maxLength" in schema)
    throw unsupported(`${at}.format`, "A format together with a length cannot be enforced here.");
  return { type: "string", format };
}

function range(schema: JsonObject, least: string, most: string, at: string): JsonObject {
  const bounds: Record<string, number> = {};
  for (const key of [least, most]) {
    const value = schema[key];
    if (value === undefined) continue;
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0) throw malformed(`${at}.${key}`);
    if (value > REPETITIONS) throw unsupported(`${at}.${key}`, `The largest bound enforced here is ${REPETITIONS}.`);
    bounds[key] = value;
  }
  if ((bounds[least] ?? 0) > (bounds[most] ?? Infinity)) throw malformed(`${at}.${most}`);
  return bounds;
}

function reference(value: Json | undefined, at: string, root: Root): string {
  const name = typeof value === "string" ? LOCAL_REFERENCE.exec(value)?.[1] : undefined;
  if (name === undefined || !root.definitions.has(name))
    throw unsupported(`${at}.$ref`, "A reference must name an entry of the schema's own '$defs'.");
  return `#/$defs/${name}`;
}

function impliedType(schema: JsonObject): string | undefined {
  if ("properties" in schema || "additionalProperties" in schema) return "object";
  return "items" in schema || "prefixItems" in schema ? "array" : undefined;
}

/** Keywords that assert nothing for the value they have. */
function isIdle(key: string, value: Json | undefined): boolean {
  if (key === "uniqueItems" || key === "minProperties") return value === false || value === 0;
  // zod writes these for every integer.
  if (key === "minimum") return typeof value === "number" && value <= Number.MIN_SAFE_INTEGER;
  return key === "maximum" && typeof value === "number" && value >= Number.MAX_SAFE_INTEGER;
}

function refuseOthers(asserted: readonly string[], allowed: readonly string[], at: string): void {
  const other = asserted.find((key) => !allowed.includes(key));
  if (other !== undefined) throw unsupported(`${at}.${other}`, "Leave the keyword out and check the answer yourself.");
}

function scalar(value: Json | undefined, at: string): Json {
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  throw unsupported(at, "Only texts, numbers, booleans and null can be enforced here.");
}

function unsupported(param: string, advice: string): Problem {
  return new Problem("unsupported_field", { message: `A local model cannot be held to '${param}'. ${advice}`, param });
}

function malformed(param: string): Problem {
  return new Problem("invalid_request", { message: `'${param}' is not valid in a JSON schema.`, param });
}

function unknownType(at: string): never {
  throw malformed(`${at}.type`);
}

/** The values that are of one of the types that the schema also names. */
function ofTypes(type: Json | undefined, values: readonly Json[], at: string): readonly Json[] {
  const types = type === undefined || typeof type === "string" ? [type] : listOf(type, at);
  const kept = values.filter((value) =>
    types.some(
      (each) => each === undefined || each === (value === null ? "null" : typeof value) || (each === "integer" && Number.isInteger(value)),
    ),
  );
  if (kept.length === 0 || kept.length > SCHEMA_NODES) throw malformed(at);
  return kept;
}

function listOf(value: Json | undefined, at: string): readonly Json[] {
  if (!Array.isArray(value)) throw malformed(at);
  return value as readonly Json[];
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectOf(value: Json | undefined): JsonObject {
  return isObject(value) ? value : {};
}

function keysOf(value: Json | undefined): readonly string[] {
  return Object.keys(objectOf(value));
}

const LOCAL_REFERENCE = /^#\/(?:\$defs|definitions)\/([^/~%]+)$/;
const FORMATS: ReadonlySet<string> = new Set(["date-time", "date", "time"]);
const ANNOTATIONS: ReadonlySet<string> = new Set([
  "title",
  "description",
  "default",
  "examples",
  "$schema",
  "$id",
  "$comment",
  "$defs",
  "definitions",
  "deprecated",
  "readOnly",
  "writeOnly",
]);
const KEYWORDS_OF: Readonly<Record<string, readonly string[] | undefined>> = {
  object: ["properties", "required", "additionalProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["minLength", "maxLength", "format"],
  number: [],
  integer: [],
  boolean: [],
  null: [],
};
/** Nested values of any kind: an array or object without further schema is free inside. */
const ANYTHING: GrammarSchema = {
  oneOf: [{ type: ["string", "number", "boolean", "null"] }, { type: "array" }, { type: "object", additionalProperties: true }],
};
