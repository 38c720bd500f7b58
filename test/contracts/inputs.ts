import { z } from "zod";
import { BOUNDS } from "../../src/kernel/bounds.ts";
import type { AnyRoute } from "../../src/surfaces/admin/route-table.ts";
import type { Sent } from "./stage.ts";

/** One way to get a route's input wrong, and the refusal that it must meet. */
export interface BadInput {
  readonly what: string;
  readonly change: Partial<Sent>;
  /** Added to the path's query. */
  readonly query?: string;
  readonly status: number;
  /** What the envelope's `param` must be or start with; null where any will do. */
  readonly param: string | null;
}

/** Every way the matrix knows to get this route's input wrong. `body` is one that the route accepts. */
export function badInputs(route: AnyRoute, body: Readonly<Record<string, unknown>>): BadInput[] {
  const bad: BadInput[] = [{ what: "unknown query field", change: {}, query: "matrix_unknown=1", status: 400, param: "matrix_unknown" }];
  if (route.method === "GET") return bad;
  const accepted = route.body === null ? {} : body;
  const raw = (what: string, text: string, status: number, param: string | null): BadInput => ({
    what,
    change: { raw: text, headers: JSON_TYPE },
    status,
    param,
  });
  bad.push(
    { what: "unknown body field", change: { body: { ...accepted, matrix_unknown: 1 } }, status: 400, param: "matrix_unknown" },
    raw(
      "__proto__ as a body field",
      JSON.stringify({ ...accepted, __matrix__: { a: 1 } }).replace("__matrix__", "__proto__"),
      400,
      "__proto__",
    ),
    raw("malformed JSON", "{", 400, null),
    raw("a list as body", "[]", 400, null),
    raw("null as body", "null", 400, null),
    raw("a key twice", '{"matrix":1,"matrix":2}', 400, "matrix"),
    raw("too deep", `{"a":${"[".repeat(BOUNDS.jsonDepth)}${"]".repeat(BOUNDS.jsonDepth)}}`, 400, null),
    raw("oversized", `{"a":"${"x".repeat(BOUNDS.adminBodyBytes)}"}`, 413, null),
    {
      what: "another content type",
      change: { raw: "a=1", headers: { "content-type": "application/x-www-form-urlencoded" } },
      status: 415,
      param: null,
    },
    { what: "malformed If-Match", change: { headers: { ...JSON_TYPE, "if-match": "new" } }, status: 400, param: "if-match" },
  );
  if (route.method === "POST")
    bad.push({
      what: "malformed Idempotency-Key",
      change: { headers: { ...JSON_TYPE, "idempotency-key": "with space" } },
      status: 400,
      param: "idempotency-key",
    });
  return [...bad, ...wrongTypes(route, body)];
}

const JSON_TYPE = { "content-type": "application/json" };

/** Values of other types in place of each field, as far as the route's own schema says that they are wrong. */
function wrongTypes(route: AnyRoute, body: Readonly<Record<string, unknown>>): BadInput[] {
  const schema = route.body;
  if (schema === null) return [];
  return fieldsOf(schema).flatMap((field) => {
    const wrong = STRANGERS.filter((value) => refusedAt(schema, { ...body, [field]: value }, field));
    if (wrong.length === 0) return [{ what: `${field}: no value of any type is refused`, change: {}, status: 400, param: field }];
    return wrong.map((value) => ({
      what: `${field} = ${JSON.stringify(value).slice(0, 20)}`,
      change: { body: { ...body, [field]: value } },
      status: 400,
      param: field,
    }));
  });
}

/** One value of each type JSON has, and the awkward ones among them. */
const STRANGERS: readonly unknown[] = [null, true, -1.5, 1e300, "", "\u0001", "x".repeat(70_000), [], [null], [{}], { matrix: 1 }];

function refusedAt(schema: z.ZodType, value: unknown, field: string): boolean {
  const outcome = schema.safeParse(value);
  return !outcome.success && outcome.error.issues[0]?.path[0] === field;
}

/** The names of an object schema's fields; of all alternatives where there are several. */
export function fieldsOf(schema: z.ZodType): string[] {
  if (schema instanceof z.ZodObject) return Object.keys(schema.shape);
  if (schema instanceof z.ZodUnion)
    return [...new Set(schema.options.flatMap((option) => (option instanceof z.ZodType ? fieldsOf(option) : [])))];
  return [];
}
