import { stringify } from "csv-stringify/sync";
import { inputTokens, outputTokens, TOKEN_CLASSES } from "../../kernel/tokens.ts";
import { FOCUS_COLUMNS, focusCells } from "./exports-focus.ts";
import type { HopView } from "./hop-view.ts";

/** `focus` is the FinOps Open Cost and Usage Specification 1.2, as CSV. */
export const EXPORT_FORMATS = ["csv", "jsonl", "focus"] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

/** Takes the next piece of an export; resolves when there is room for more. */
export type Write = (text: string) => Promise<void>;

/** Content type, and the end of a file's name. */
export const EXPORT_TYPES: Readonly<Record<ExportFormat, { readonly contentType: string; readonly extension: string }>> = {
  csv: { contentType: "text/csv; charset=utf-8", extension: "csv" },
  jsonl: { contentType: "application/jsonl; charset=utf-8", extension: "jsonl" },
  focus: { contentType: "text/csv; charset=utf-8", extension: "focus.csv" },
};

/** Writes every row that `each` gives, a batch at a time: one line a row, after a line of column names in CSV. */
export async function writeRows(
  format: ExportFormat,
  each: (take: (rows: readonly HopView[]) => Promise<void>) => Promise<void>,
  write: Write,
): Promise<void> {
  if (format === "jsonl") return each((rows) => write(rows.map((row) => `${JSON.stringify(row)}\n`).join("")));
  const { columns, cells } = format === "focus" ? { columns: FOCUS_COLUMNS, cells: focusCells } : PLAIN;
  // Not before the first row was read: until something is written, what fails is told.
  let head = csv([columns]);
  await each((rows) => {
    const text = head + csv(rows.map(cells));
    head = "";
    return write(text);
  });
  if (head !== "") await write(head);
}

/** A cell of CSV: text that may be anybody's words, or a number or other word of ours. Null is an empty cell. */
export type Cell = { readonly text: string } | string | number | boolean | null;

function csv(rows: readonly (readonly Cell[])[]): string {
  return stringify(
    rows.map((row) => row.map((cell) => (typeof cell === "object" && cell !== null ? inert(cell.text) : cell))),
    {
      cast: { boolean: String },
      record_delimiter: "windows",
      // Many readers end a row at either.
      quoted_match: /[\r\n]/,
    },
  );
}

/**
 * Text that a spreadsheet does not run: what begins as a formula gets an apostrophe before it (OWASP, "CSV Injection"). So does
 * what begins with an apostrophe and such a sign, so that taking one away gives back what it was.
 */
export function inert(text: string): string {
  return /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/u.test(text) ? `'${text}` : text;
}

const PLAIN_COLUMNS = [
  "id",
  "hop",
  "call",
  "tenant_id",
  "tenant",
  "project_id",
  "project",
  "key_id",
  "feature",
  "user",
  "trace",
  "kind",
  "provider",
  "model",
  "model_served",
  "deployment_id",
  "deployment",
  "region",
  "price_version",
  "cost",
  "charge",
  "worst_case",
  "bound",
  "source",
  "estimated",
  "dispatch_unknown",
  "status",
  "latency_ms",
  "first_token_ms",
  "started_at",
] as const satisfies readonly (keyof HopView)[];

/** Columns with strangers' words: callers' tags, administrators' names, what an upstream calls its model. */
const WORDS: ReadonlySet<string> = new Set([
  "tenant",
  "project",
  "feature",
  "user",
  "trace",
  "model",
  "model_served",
  "deployment",
  "region",
]);

const PLAIN = {
  columns: [...PLAIN_COLUMNS, "input_tokens", "output_tokens", ...TOKEN_CLASSES],
  cells: (row: HopView): readonly Cell[] => [
    ...PLAIN_COLUMNS.map((column) => {
      const value = row[column];
      return typeof value === "string" && WORDS.has(column) ? { text: value } : value;
    }),
    inputTokens(row.tokens),
    outputTokens(row.tokens),
    ...TOKEN_CLASSES.map((tokenClass) => row.tokens[tokenClass]),
  ],
};
