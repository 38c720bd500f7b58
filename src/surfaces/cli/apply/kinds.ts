import { z } from "zod";

/** A kind of resource that the server can make: what a file may hold, and where. */
export interface Kind {
  /** The collections that lead to it, outermost first: `["tenants", "projects"]`. */
  readonly steps: readonly string[];
  /** `put`: an upsert by name. `post`: made once, named in its body, and never changed. */
  readonly write: "put" | "post";
  readonly canBeDeleted: boolean;
  /** Each field that can be written, as JSON Schema. */
  readonly fields: Readonly<Record<string, JsonSchema>>;
  readonly required: readonly string[];
  /** What the server shows of each field; a field that is not here is write-only. */
  readonly shown: Readonly<Record<string, JsonSchema>>;
  /** What the answer of a write tells this once: the secret of a key. */
  readonly revealed: readonly string[];
  /** The property of a listed item that is its name. */
  readonly nameField: string;
}

export type JsonSchema = z.core.JSONSchema.JSONSchema;

/** Kinds by their steps, joined with `/`. */
export type Kinds = ReadonlyMap<string, Kind>;

/**
 * Every kind that the server's OpenAPI document shows a way to make, list and so compare: a new resource of the server needs
 * nothing here. Throws where the document is not one of Atrium's.
 */
export function kindsOf(document: unknown): Kinds {
  const { paths } = documentShape.parse(document);
  const kinds = new Map<string, Kind>();
  for (const [path, operations] of Object.entries(paths)) {
    const steps = stepsOf(path);
    const collection = path.replace(/\/\{\w+\}$/, "");
    const list = itemOf(paths[collection]?.get);
    if (steps === null || list === null) continue;
    const { put } = operations;
    const post = paths[collection]?.post;
    const canBeDeleted = operations.delete !== undefined;
    const common = { steps, canBeDeleted, shown: list, nameField: nameFieldOf(path, list) };
    if (put !== undefined) kinds.set(steps.join("/"), { ...common, write: "put", ...fieldsOf(put), revealed: revealedBy(put, list) });
    else if (post !== undefined && "name" in list && "name" in fieldsOf(post).fields)
      kinds.set(steps.join("/"), { ...common, write: "post", ...withoutName(fieldsOf(post)), revealed: revealedBy(post, list) });
  }
  return kinds;
}

/** The collections that may stand below a kind, or at the root of a file. */
export function collectionsBelow(kinds: Kinds, steps: readonly string[]): string[] {
  return [...kinds.values()]
    .filter((kind) => kind.steps.length === steps.length + 1 && steps.every((step, index) => kind.steps[index] === step))
    .map((kind) => kind.steps.at(-1) as string);
}

/**
 * What must be there before what: deployments name credentials, grants name models, limits and budgets name anything.
 * Collections that are not named here come after these, outer before inner.
 */
const ORDER = ["credentials", "models", "deployments", "tiers", "tenants", "projects", "service_accounts", "keys", "grants"];

/** Orders kinds so that what one needs comes before it. */
export function compareKinds(left: Kind, right: Kind): number {
  const [a, b] = [ranksOf(left), ranksOf(right)];
  return Math.max(...a) - Math.max(...b) || a.length - b.length || (a.at(-1) as number) - (b.at(-1) as number);
}

function ranksOf(kind: Kind): number[] {
  return kind.steps.map((step) => (ORDER.includes(step) ? ORDER.indexOf(step) : ORDER.length));
}

const schema = z.custom<JsonSchema>((value) => typeof value === "object" && value !== null);
/** Of what is not JSON (an export), nothing is read. */
const content = z.object({ content: z.object({ "application/json": z.object({ schema }).optional() }).optional() });
const operation = z.object({ requestBody: content.optional(), responses: z.object({ "200": content.optional() }) }).optional();
const documentShape = z.object({
  paths: z.record(z.string(), z.object({ get: operation, put: operation, post: operation, delete: operation })),
});
type Operation = z.infer<typeof operation>;

/** `/admin/v1/a/{x}/b/{y}` is a `b` of an `a`; null for any other path. */
function stepsOf(path: string): string[] | null {
  const parts = path.split("/").slice(3);
  const isResource = path.startsWith("/admin/v1/") && parts.length > 0 && parts.length % 2 === 0;
  if (!isResource || parts.some((part, index) => part.startsWith("{") !== (index % 2 === 1))) return null;
  return parts.filter((_, index) => index % 2 === 0);
}

/** The properties of one member of a list; null where the operation is no list. */
function itemOf(list: Operation): Record<string, JsonSchema> | null {
  const data = propertiesOf(schemaOf(list?.responses["200"]))["data"];
  return data?.items === undefined || typeof data.items !== "object" || Array.isArray(data.items) ? null : propertiesOf(data.items);
}

function schemaOf(of: z.infer<typeof content> | undefined): JsonSchema | undefined {
  return of?.content?.["application/json"]?.schema;
}

function propertiesOf(of: JsonSchema | undefined): Record<string, JsonSchema> {
  return (of?.properties ?? {}) as Record<string, JsonSchema>;
}

function fieldsOf(write: Operation): Pick<Kind, "fields" | "required"> {
  const body = schemaOf(write?.requestBody);
  return { fields: propertiesOf(body), required: (body?.required as string[] | undefined) ?? [] };
}

function revealedBy(write: Operation, shown: Readonly<Record<string, JsonSchema>>): string[] {
  return Object.keys(propertiesOf(schemaOf(write?.responses["200"]))).filter((field) => !(field in shown));
}

/** The file gives the name as what the resource stands under. */
function withoutName({ fields, required }: Pick<Kind, "fields" | "required">): Pick<Kind, "fields" | "required"> {
  const { name: _, ...rest } = fields;
  return { fields: rest, required: required.filter((each) => each !== "name") };
}

/** A grant is shown by its `model`, as its path names it, and a member by the address that the path takes. */
function nameFieldOf(path: string, shown: Readonly<Record<string, JsonSchema>>): string {
  const parameter = /\{(\w+)\}$/.exec(path)?.[1] ?? "";
  return ["name", parameter, "email"].find((field) => field in shown) ?? "id";
}
