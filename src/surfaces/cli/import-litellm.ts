import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { parseDocument } from "yaml";
import { importLitellm } from "./litellm/map.ts";
import { renderImported, reportLines } from "./litellm/render.ts";
import { exitWith } from "./outside.ts";

// `npm run import-litellm -- config.yaml [--to atrium.yaml]`: an Atrium file for `npm run apply` (docs/guide/import-litellm.md).
// What it could not carry over is said on standard error, and at the head of the file. Secrets are never copied.

await exitWith(async () => {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { to: { type: "string" } } });
  const [file] = positionals;
  if (file === undefined || positionals.length > 1)
    throw new Error("Say which file: npm run import-litellm -- config.yaml [--to atrium.yaml] (docs/guide/import-litellm.md).");
  const document = parseDocument(textOf(file), { merge: true });
  const [fault] = document.errors;
  if (fault !== undefined) throw new Error(`${file}: ${fault.message}`);
  const imported = importLitellm(document.toJS({ maxAliasCount: MAX_ALIASES }));
  const text = renderImported(imported, path.basename(file));
  if (values.to === undefined) process.stdout.write(text);
  else writeFileSync(values.to, text, { flag: "wx" });
  for (const line of [...imported.notes, ...reportLines(imported)]) process.stderr.write(`${line}\n`);
  return 0;
});

/** How often aliases may be resolved: beyond, a few lines could grow without end. */
const MAX_ALIASES = 1_000;

function textOf(file: string): string {
  try {
    return readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (error) {
    throw new Error(`${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? "unknown"}).`, { cause: error });
  }
}
