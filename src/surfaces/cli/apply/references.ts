import { readFileSync } from "node:fs";
import path from "node:path";

/**
 * What a text of a file may stand for: `${NAME}` an environment variable, `${file:PATH}` the content of a file beside it,
 * `${id:ADDRESS}` the id of another resource, such as `${id:tenants/acme/projects/app/keys/backend}`. `$${` is `${` itself.
 */
export interface References {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Null while nothing has that address. */
  idOf(address: string): string | null;
  /** The same value, its relative `${file:…}` made absolute from a directory. */
  anchored(value: unknown, directory: string): unknown;
}

export function createReferences(
  environment: Readonly<Record<string, string | undefined>>,
  idOf: (address: string) => string | null,
): References {
  return {
    environment,
    idOf,
    anchored: (value, directory) =>
      mapTexts(value, (text) =>
        text.replaceAll(FILE, (_, before: string, name: string) => `${before}\${file:${path.resolve(directory, name)}}`),
      ),
  };
}

/** What an id will be that does not exist yet. */
const LATER = "(known after apply)";

export interface Substituted {
  readonly value: unknown;
  /** Whether anything in it came from outside the file: it is then shown as written. */
  readonly isReferring: boolean;
  readonly faults: readonly string[];
  /** Addresses whose ids are not known yet; `LATER` stands for them. */
  readonly later: readonly string[];
}

/** Puts what the references stand for in their place, at any depth. */
export function substitute(value: unknown, references: References): Substituted {
  const faults: string[] = [];
  const later: string[] = [];
  let isReferring = false;
  const replaced = mapTexts(value, (text) =>
    text.replaceAll(REFERENCE, (whole, name: string | undefined) => {
      if (name === undefined) return "${";
      isReferring = true;
      const found = lookUp(name, references);
      if (found.kind === "value") return found.value;
      if (found.kind === "later") later.push(name.slice("id:".length));
      else faults.push(found.fault);
      return found.kind === "later" ? LATER : whole;
    }),
  );
  return { value: replaced, isReferring, faults, later };
}

const REFERENCE = /\$\$\{|\$\{([^{}]*)\}/g;
const FILE = /(^|[^$])\$\{file:([^{}]*)\}/g;

type Found =
  | { readonly kind: "value"; readonly value: string }
  | { readonly kind: "later" }
  | { readonly kind: "fault"; readonly fault: string };

function lookUp(name: string, references: References): Found {
  if (name.startsWith("file:")) return contentOf(name.slice("file:".length));
  if (name.startsWith("id:")) {
    const id = references.idOf(name.slice("id:".length));
    return id === null ? { kind: "later" } : { kind: "value", value: id };
  }
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    return {
      kind: "fault",
      fault: `'\${${name}}' is no reference: write \${NAME}, \${file:PATH} or \${id:ADDRESS}, or $\${ for the text itself.`,
    };
  const value = references.environment[name];
  if (value === undefined || value === "") return { kind: "fault", fault: `the environment variable ${name} is not set.` };
  return { kind: "value", value };
}

/** Without the line break that editors put at the end. */
function contentOf(file: string): Found {
  try {
    return { kind: "value", value: readFileSync(file, "utf8").replace(/\r?\n$/, "") };
  } catch (error) {
    return { kind: "fault", fault: `${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? "unknown"}).` };
  }
}

function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((each) => mapTexts(each, change));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, mapTexts(each, change)]));
}
