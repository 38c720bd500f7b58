import { Problem } from "../../../kernel/problem.ts";
import type { Json, JsonObject } from "../../../kernel/request.ts";
import { list, number, object, string } from "../dialects/read.ts";

/**
 * A small value that conforms to a JSON schema, the same for the same schema. Understands type, const, enum, properties, required,
 * items, prefixItems, bounds of numbers, lengths and lists, multipleOf, date and uuid formats, $ref, anyOf, oneOf, allOf. Throws `unsupported_field`
 * for `pattern`, for `not` and `if`, and for a schema that has no finite value within MAX_DEPTH.
 */
export function instanceOf(schema: JsonObject, param: string): Json {
  return build(schema, { root: schema, param, depth: 0, work: { left: MAX_WORK } });
}

interface Place {
  readonly root: JsonObject;
  readonly param: string;
  readonly depth: number;
  readonly work: { left: number };
}

/** Nested schemas followed, references included: a schema that needs more than this is taken to have no finite value. */
const MAX_DEPTH = 32;
/** From here on only what a schema requires is made, and alternatives that end are tried first. */
const SHALLOW_DEPTH = 6;
/** Schemas visited for one value. */
const MAX_WORK = 10_000;
/** Items and characters that a lower bound may ask for. */
const MAX_LENGTH = 1000;

function build(schema: JsonObject, at: Place): Json {
  if (at.depth > MAX_DEPTH || at.work.left-- <= 0) throw refuse(at, "it has no small finite value");
  for (const word of ["pattern", "not", "if", "patternProperties", "dependentSchemas", "contains", "uniqueItems"])
    if (schema[word] !== undefined && schema[word] !== false) throw refuse(at, `'${word}'`);
  const below = { ...at, depth: at.depth + 1 };
  if (typeof schema["$ref"] === "string") return build(resolve(schema["$ref"], at), below);
  if (schema["const"] !== undefined) return schema["const"];
  const [first] = list(schema["enum"]);
  if (first !== undefined) return first;
  const alternatives = [...list(schema["anyOf"]), ...list(schema["oneOf"])];
  if (alternatives.length > 0) return firstFinite(alternatives.map(object), schema, below);
  if (list(schema["allOf"]).length > 0) return build(merge(schema), below);
  return ofType(schema, below);
}

function firstFinite(alternatives: readonly JsonObject[], schema: JsonObject, at: Place): Json {
  const { anyOf: _any, oneOf: _one, ...rest } = schema;
  const isLeaf = (alternative: JsonObject): number =>
    alternative["$ref"] === undefined && alternative["properties"] === undefined ? 0 : 1;
  const inOrder = at.depth < SHALLOW_DEPTH ? alternatives : alternatives.toSorted((a, b) => isLeaf(a) - isLeaf(b));
  let refused: unknown = null;
  for (const alternative of inOrder) {
    try {
      return build({ ...rest, ...alternative }, at);
    } catch (problem) {
      refused = problem;
    }
  }
  throw refused;
}

function merge(schema: JsonObject): JsonObject {
  const { allOf, ...rest } = schema;
  return list(allOf)
    .map(object)
    .reduce<JsonObject>(
      (merged, part) => ({
        ...merged,
        ...part,
        properties: { ...object(merged["properties"]), ...object(part["properties"]) },
        required: [...list(merged["required"]), ...list(part["required"])],
      }),
      rest,
    );
}

function ofType(schema: JsonObject, at: Place): Json {
  const type = string(list(schema["type"])[0] ?? schema["type"]) || (schema["properties"] === undefined ? "string" : "object");
  switch (type) {
    case "object":
      return ofObject(schema, at);
    case "array":
      return ofArray(schema, at);
    case "integer":
      return ofNumber(schema, at, 1);
    case "number":
      return ofNumber(schema, at, null);
    case "boolean":
      return true;
    case "null":
      return null;
    case "string":
      return ofString(schema, at);
    default:
      throw refuse(at, `type '${type}'`);
  }
}

function ofObject(schema: JsonObject, at: Place): Json {
  const required = new Set(list(schema["required"]).map(String));
  const made = new Map<string, Json>();
  for (const [key, property] of Object.entries(object(schema["properties"]))) {
    if (at.depth > SHALLOW_DEPTH && !required.has(key)) continue;
    try {
      made.set(key, property === true ? SIMULATED : build(object(property), at));
    } catch (problem) {
      if (required.has(key)) throw problem;
    }
  }
  for (const key of required) if (!made.has(key)) made.set(key, SIMULATED);
  if (made.size < (number(schema["minProperties"]) ?? 0)) throw refuse(at, "'minProperties'");
  return Object.fromEntries(made);
}

function ofArray(schema: JsonObject, at: Place): Json {
  const fixed = list(schema["prefixItems"]).map((item) => build(object(item), at));
  const usual = number(schema["maxItems"]) === 0 || fixed.length > 0 || at.depth > SHALLOW_DEPTH ? fixed.length : 1;
  const wanted = Math.max(number(schema["minItems"]) ?? 0, usual);
  if (wanted > MAX_LENGTH) throw refuse(at, "'minItems'");
  while (fixed.length < wanted) fixed.push(build(object(schema["items"]), at));
  return fixed;
}

/** The value nearest to 1 within the bounds, on the step where there is one. */
function ofNumber(schema: JsonObject, at: Place, unit: number | null): Json {
  const step = number(schema["multipleOf"]) ?? unit;
  const nudge = (bound: number): number => (Number.isFinite(bound) ? (unit ?? Number.EPSILON * Math.max(1, Math.abs(bound))) : 0);
  const above = number(schema["exclusiveMinimum"]) ?? -Infinity;
  const below = number(schema["exclusiveMaximum"]) ?? Infinity;
  const least = Math.max(number(schema["minimum"]) ?? -Infinity, above + nudge(above));
  const most = Math.min(number(schema["maximum"]) ?? Infinity, below - nudge(below));
  const wanted = Math.min(Math.max(1, least), most);
  const up = step === null ? wanted : Math.ceil(wanted / step) * step;
  const chosen = step === null || up <= most ? up : Math.floor(most / step) * step;
  if (!(chosen >= least && chosen <= most)) throw refuse(at, "its bounds");
  return chosen;
}

function ofString(schema: JsonObject, at: Place): Json {
  const format = typeof schema["format"] === "string" ? FORMATS.get(schema["format"]) : SIMULATED;
  if (format === undefined) throw refuse(at, `format '${string(schema["format"])}'`);
  const least = number(schema["minLength"]) ?? 0;
  if (least > MAX_LENGTH) throw refuse(at, "'minLength'");
  return schema["format"] === undefined ? format.padEnd(least, "-").slice(0, number(schema["maxLength"]) ?? undefined) : format;
}

function resolve(reference: string, at: Place): JsonObject {
  if (!reference.startsWith("#")) throw refuse(at, `'$ref' to '${reference.slice(0, 100)}'`);
  let found: Json | undefined = at.root;
  for (const step of reference.slice(1).split("/").slice(1)) {
    const key = decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~");
    const holder = object(found);
    found = Object.hasOwn(holder, key) ? holder[key] : undefined;
  }
  if (found === undefined) throw refuse(at, `'$ref' to '${reference.slice(0, 100)}'`);
  return object(found);
}

function refuse(at: Place, what: string): Problem {
  return new Problem("unsupported_field", { param: at.param, message: `'simulated' cannot make a value for this schema: ${what}.` });
}

const SIMULATED = "simulated";
const FORMATS: ReadonlyMap<string, string> = new Map([
  ["date-time", "2000-01-01T00:00:00Z"],
  ["date", "2000-01-01"],
  ["time", "00:00:00Z"],
  ["email", "simulated@example.com"],
  ["uri", "https://example.com/simulated"],
  ["hostname", "simulated.example.com"],
  ["ipv4", "192.0.2.1"],
  ["ipv6", "2001:db8::1"],
  ["uuid", "00000000-0000-7000-8000-000000000000"],
]);
