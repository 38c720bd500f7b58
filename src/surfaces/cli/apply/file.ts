import { readFileSync } from "node:fs";
import path from "node:path";
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from "yaml";
import { z } from "zod";
import { collectionsBelow, type Kind, type Kinds } from "./kinds.ts";
import { type References, substitute } from "./references.ts";

/** Where something stands: `atrium.yaml:12`, with the document where the file has several. */
export type Place = string;

/** One resource as the files want it. Fields they leave out are nobody's business here. */
export interface Wanted {
  readonly kind: Kind;
  /** One name for each step of the kind. */
  readonly names: readonly string[];
  readonly place: Place;
  /** As written, references unresolved. */
  readonly fields: ReadonlyMap<string, { readonly raw: unknown; readonly place: Place }>;
}

/** What files say together. */
export interface Manifest {
  /** By address, as `addressOf` has it. */
  readonly wanted: ReadonlyMap<string, Wanted>;
  /** Addresses of the collections that the files list, which `--prune` takes to be whole. */
  readonly listed: ReadonlyMap<string, { readonly kind: Kind; readonly parents: readonly string[] }>;
}

/** What is wrong with a file: one line for each fault, with file, line and path. */
export class FileProblem extends Error {
  override readonly name = "FileProblem";
  constructor(faults: readonly string[]) {
    super(faults.join("\n"));
  }
}

/** Of one file, before it is parsed. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
/** How often aliases may be resolved in one document: beyond, a few lines could grow without end. */
const MAX_ALIASES = 100;

/** `tenants/acme/projects/app`: how files, plans and errors name a resource; a `/` in a name is written `%2F`. */
export function addressOf(kind: Kind, names: readonly string[]): string {
  return kind.steps.flatMap((step, index) => (index < names.length ? [step, escapeName(names[index] as string)] : [step])).join("/");
}

function escapeName(name: string): string {
  return name.replaceAll("%", "%25").replaceAll("/", "%2F");
}

/** Reads YAML or JSON, several documents in a file. `-` is standard input. Throws FileProblem naming everything that is wrong. */
export function readManifest(files: readonly string[], kinds: Kinds, references: References): Manifest {
  const reading: Reading = { kinds, references, wanted: new Map(), listed: new Map(), faults: [] };
  for (const file of files) readFile(file, reading);
  if (reading.faults.length > 0) throw new FileProblem(reading.faults);
  return reading;
}

interface Reading {
  readonly kinds: Kinds;
  readonly references: References;
  readonly wanted: Map<string, Wanted & { readonly fields: Map<string, { raw: unknown; place: Place }> }>;
  readonly listed: Map<string, { kind: Kind; parents: readonly string[] }>;
  readonly faults: string[];
}

/** A document being walked. */
interface Page {
  readonly document: Document;
  readonly directory: string;
  placeOf(node: Node | null | undefined): Place;
}

function readFile(file: string, reading: Reading): void {
  const shown = file === "-" ? "standard input" : file;
  const text = textOf(file, shown);
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false });
  if (!Array.isArray(documents)) return;
  for (const [index, document] of documents.entries()) {
    const place = (offset: number): Place =>
      `${shown}:${lines.linePos(offset).line}${documents.length > 1 ? ` (document ${index + 1})` : ""}`;
    for (const error of document.errors) reading.faults.push(`${place(error.pos[0])}: ${error.message}`);
    if (document.errors.length > 0) continue;
    const page: Page = {
      document,
      directory: file === "-" ? process.cwd() : path.dirname(path.resolve(file)),
      placeOf: (node) => place(node?.range?.[0] ?? 0),
    };
    walk(reading, page, { node: document.contents, at: document.contents }, [], []);
  }
}

function textOf(file: string, shown: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file === "-" ? 0 : file);
  } catch (error) {
    throw new FileProblem([`${shown}: it cannot be read (${(error as NodeJS.ErrnoException).code ?? "unknown"}).`]);
  }
  if (bytes.length > MAX_FILE_BYTES) throw new FileProblem([`${shown}: larger than ${MAX_FILE_BYTES / 1024 / 1024} MiB; split it.`]);
  return bytes.toString("utf8");
}

/** The children of the root (no steps) or of a resource: collections below it and, of a resource, its fields. */
function walk(
  reading: Reading,
  page: Page,
  { node, at }: { readonly node: unknown; readonly at: unknown },
  steps: readonly string[],
  names: readonly string[],
): void {
  const body = resolved(page, node);
  const kind = reading.kinds.get(steps.join("/"));
  const address = kind === undefined ? "" : addressOf(kind, names);
  const fault = (where: unknown, what: string) =>
    void reading.faults.push(`${page.placeOf(where as Node)}: ${address === "" ? "" : `${address}: `}${what}`);
  const wanted = kind === undefined ? null : want(reading, kind, names, address, page.placeOf(at as Node));
  if (body === null || (isScalar(body) && body.value === null)) return;
  if (!isMap(body)) return fault(body, kind === undefined ? "a file is a mapping of collections." : "a resource is a mapping of fields.");
  const collections = collectionsBelow(reading.kinds, steps);
  for (const { key, value } of body.items) {
    const name = nameOf(key);
    if (collections.includes(name)) walkCollection(reading, page, value, [...steps, name], names);
    else if (kind !== undefined && wanted !== null && Object.hasOwn(kind.fields, name))
      readField(reading, page, wanted, { name, node: value as Node | null, place: page.placeOf(key as Node), address });
    else fault(key, `'${name}' is neither a field nor a collection here; there are ${listOf([...fieldNames(kind), ...collections])}.`);
  }
}

/** A mapping of names, or a list of them where there is nothing more to say. */
function walkCollection(reading: Reading, page: Page, node: unknown, steps: readonly string[], parents: readonly string[]): void {
  const kind = reading.kinds.get(steps.join("/")) as Kind;
  const body = resolved(page, node);
  reading.listed.set(addressOf(kind, parents), { kind, parents });
  if (body === null || (isScalar(body) && body.value === null)) return;
  if (!isMap(body) && !isSeq(body))
    return void reading.faults.push(
      `${page.placeOf(body as Node)}: ${addressOf(kind, parents)}: give a mapping of names, or a list of them.`,
    );
  const members = isMap(body) ? body.items.map(({ key, value }) => ({ key, value })) : body.items.map((key) => ({ key, value: null }));
  for (const { key, value } of members) {
    const name = nameOf(key);
    if (name === "") reading.faults.push(`${page.placeOf(key as Node)}: ${addressOf(kind, parents)}: a name is a text that is not empty.`);
    else walk(reading, page, { node: value, at: key }, steps, [...parents, name]);
  }
}

function want(reading: Reading, kind: Kind, names: readonly string[], address: string, place: Place) {
  const present = reading.wanted.get(address);
  if (present !== undefined) return present;
  const wanted = { kind, names, place, fields: new Map<string, { raw: unknown; place: Place }>() };
  reading.wanted.set(address, wanted);
  return wanted;
}

interface FieldNode {
  readonly name: string;
  readonly node: Node | null;
  readonly place: Place;
  readonly address: string;
}

function readField(
  reading: Reading,
  page: Page,
  wanted: Reading["wanted"] extends Map<string, infer W> ? W : never,
  field: FieldNode,
): void {
  const { name, node, place, address } = field;
  const fault = (at: Place, what: string) => void reading.faults.push(`${at}: ${address}: ${what}`);
  const sooner = wanted.fields.get(name);
  if (sooner !== undefined) return fault(place, `'${name}' was given already, at ${sooner.place}.`);
  try {
    const written: unknown = node?.toJS(page.document, { maxAliasCount: MAX_ALIASES }) ?? null;
    const raw = reading.references.anchored(written, page.directory);
    wanted.fields.set(name, { raw, place });
    const { value, faults } = substitute(raw, reading.references);
    for (const each of faults) fault(place, `${name}: ${each}`);
    if (faults.length > 0) return;
    const outcome = z.fromJSONSchema(wanted.kind.fields[name] as z.core.JSONSchema.JSONSchema).safeParse(value);
    if (outcome.success) return;
    const issue = deepest(outcome.error.issues[0] as z.core.$ZodIssue);
    const at = issue.path.length > 0 && (isMap(node) || isSeq(node)) ? (node.getIn(issue.path, true) as Node | undefined) : node;
    fault(at === undefined ? place : page.placeOf(at), `${[name, ...issue.path].join(".")}: ${issue.message}.`);
  } catch (error) {
    fault(place, `${name}: ${(error as Error).message}`);
  }
}

/** Of a union's faults, those of the alternative that the value came closest to. */
function deepest(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors
    .flatMap((each) => each.slice(0, 1))
    .map(deepest)
    .toSorted(
      (left, right) => right.path.length - left.path.length || Number(right.code !== "invalid_type") - Number(left.code !== "invalid_type"),
    )[0];
  return inner === undefined ? issue : { ...inner, path: [...issue.path, ...inner.path] };
}

/** As it is written: `1.10` is a name, and no number. */
function nameOf(key: unknown): string {
  if (!isScalar(key) || key.value === null) return "";
  return typeof key.value === "string" ? key.value : (key.source ?? "");
}

function resolved(page: Page, node: unknown): unknown {
  if (isAlias(node)) return node.resolve(page.document) ?? null;
  return node ?? null;
}

function fieldNames(kind: Kind | undefined): string[] {
  return kind === undefined ? [] : Object.keys(kind.fields);
}

function listOf(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.toSorted().join(", ");
}
