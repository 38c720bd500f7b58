import { execFileSync } from "node:child_process";
import { cpus } from "node:os";

/** Date, commit, runtime and processor: what every results page begins with. */
export function machine(): string {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: import.meta.dirname, encoding: "utf8" }).trim();
  return `${new Date().toISOString().slice(0, 10)}, commit ${commit}, Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}.`;
}
