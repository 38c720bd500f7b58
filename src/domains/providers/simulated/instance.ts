import { Problem } from "../../../kernel/problem.ts";
import type { Json, JsonObject } from "../../../kernel/request.ts";
import { list, number, object } from "../dialects/read.ts";

/**
 * A small value that conforms to a JSON schema, the same for the same schema. Understands type, const, enum, properties, required,
 * items, prefixItems, bounds of numbers, lengths and lists, multipleOf, date and uuid formats, $ref, anyOf, oneOf, allOf. Throws `unsupported_field`
 * for `pattern`, for `not` and `if`, and for a schema that has no finite value within MAX_DEPTH.
 */
export function instanceOf(schema: JsonObject, param: string): Json {
  return build(schema, { root: schema, param, depth: 0 });
}

interface Place {
  readonly root: JsonObject;
  readonly param: string;
  readonly depth: number;
}

/** Nested schemas followed, references included: a schema that needs more than this is taken to have no finite value. */
const MAX_DEPTH = 32;
/** Items and characters that a lower bound may ask for. */
const MAX_LENGTH = 1000;

function build(schema: JsonObject, at: Place): Json {
  if (at.depth > MAX_DEPTH) throw refuse(at, "no finite value");
  for (const word of ["pattern", "not", "if", "patternProperties", "dependentSchemas", "contains", "uniqueItems"]) if (schema[word] !== undefined && schema[word] !== false) throw refuse(at, `'${word}'`);
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
  let refused: unknown = null;
  for (const alternative of alternatives) {
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
    .reduce<JsonObject>((merged, part) => ({ ...merged, ...part, properties: { ...object(merged["properties"]), ...object(part["properties"]) }, required: [...list(merged["required"]), ...list(part["required"])] }), rest);
}

function ofType(schema: JsonObject, at: Place): Json {
  const type = Array.isArray(schema["type"]) ? (schema["type"] as readonly Json[])[0] : schema["type"];
  switch (type ?? (schema["properties"] === undefined ? "string" : "object")) {
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
      throw refuse(at, `type '${String(type)}'`);
  }
}

function ofObject(schema: JsonObject, at: Place): Json {
  const required = new Set(list(schema["required"]).map(String));
  const made: Record<string, Json> = {};
  for (const [key, property] of Object.entries(object(schema["properties"]))) {
    try {
      made[key] = property === true ? SIMULATED : build(object(property), at);
    } catch (problem) {
      if (required.has(key)) throw problem;
    }
  }
  for (const key of required) made[key] ??= SIMULATED;
  if (Object.keys(made).length < (number(schema["minProperties"]) ?? 0)) throw refuse(at, "'minProperties'");
  return made;
}

function ofArray(schema: JsonObject, at: Place): Json {
  const fixed = list(schema["prefixItems"]).map((item) => build(object(item), at));
  const wanted = Math.max(number(schema["minItems"]) ?? 0, number(schema["maxItems"]) === 0 || fixed.length > 0 ? fixed.length : 1);
  if (wanted > MAX_LENGTH) throw refuse(at, "'minItems'");
  while (fixed.length < wanted) fixed.push(build(object(schema["items"]), at));
  return fixed;
}

function ofNumber(schema: JsonObject, at: Place, unit: number | null): Json {
  const step = number(schema["multipleOf"]) ?? unit;
  const above = number(schema["exclusiveMinimum"]);
  const below = number(schema["exclusiveMaximum"]);
  const least = Math.max(number(schema["minimum"]) ?? -Infinity, above === null ? -Infinity : above + (unit ?? Number.EPSILON * Math.max(1, Math.abs(above))));
  const most = Math.min(number(schema["maximum"]) ?? Infinity, below === null ? Infinity : below - (unit ?? Number.EPSILON * Math.max(1, Math.abs(below))));
  const wanted = Math.min(Math.max(1, least), most);
  const value = step === null ? wanted : Math.ceil(Math.max(least, Math.min(wanted, most - step + Number.MIN_VALUE)) / step) * step;
  const chosen = Number.isFinite(value) && value >= least && value <= most ? value : step === null ? wanted : Math.floor(most / step) * step;
  if (!(chosen >= least && chosen <= most)) throw refuse(at, "its bounds");
  return chosen;
}

function ofString(schema: JsonObject, at: Place): Json {
  const format = typeof schema["format"] === "string" ? FORMATS.get(schema["format"]) : SIMULATED;
  if (format === undefined) throw refuse(at, `format '${String(schema["format"])}'`);
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
