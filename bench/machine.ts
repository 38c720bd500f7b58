import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import path from "node:path";

/** Date, commit, runtime and processor: what every results page begins with. */
export function machine(): string {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: import.meta.dirname, encoding: "utf8" }).trim();
  return `${new Date().toISOString().slice(0, 10)}, commit ${commit}, Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}.`;
}

/** Prints a folder's figures and writes them to its results.md, before what `findings.md` there says of them. */
export function publish(folder: string, figures: string): void {
  console.log(figures);
  writeFileSync(path.join(folder, "results.md"), `${figures}\n${readFileSync(path.join(folder, "findings.md"), "utf8")}`);
}
