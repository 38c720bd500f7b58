import { globSync, readFileSync } from "node:fs";
import path from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";

/**
 * `npm run soak [SCALE]`: every test that has a long version, SCALE times (10) its usual length, one file after another,
 * and the figures they print together at the end. Exits with 1 when one failed.
 */
const [scale = "10"] = process.argv.slice(2);
const ROOT = path.join(import.meta.dirname, "..", "..");
/** How a test file asks for its length. */
const HAS_LONG_VERSION = /support\/scale\.ts"|ATRIUM_TEST_KILLS|ATRIUM_TEST_FUZZ_RUNS/;
const USUAL = { ATRIUM_TEST_KILLS: 20, ATRIUM_TEST_FUZZ_RUNS: 100_000 };

process.env["ATRIUM_TEST_SCALE"] ??= scale;
for (const [name, usual] of Object.entries(USUAL)) process.env[name] ??= String(usual * Number(scale));

const files = globSync(["src/**/*.test.ts", "test/**/*.test.ts"], { cwd: ROOT })
  .map((file) => path.join(ROOT, file))
  .filter((file) => HAS_LONG_VERSION.test(readFileSync(file, "utf8")))
  .toSorted();

const figures: string[] = [];
let failed = 0;
const events = run({ files, concurrency: 1 });
events.on("test:diagnostic", ({ file, message, nesting }) => {
  if (file !== undefined && nesting === 0) figures.push(`${path.relative(ROOT, file)}: ${message}`);
});
events.on("test:fail", ({ details, name, nesting }) => {
  if (nesting === 0 && details.type !== "suite") failed += 1;
  figures.push(`FAILED: ${name}`);
});
events.compose(spec).pipe(process.stdout);
events.on("end", () => {
  process.stdout.write(`\nFigures, at ${scale} times the usual length:\n${figures.map((line) => `  ${line}\n`).join("")}`);
  process.exitCode = failed > 0 ? 1 : 0;
});
