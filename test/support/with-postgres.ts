import { spawn } from "node:child_process";
import { constants } from "node:os";
import { BACKENDS, SHARED_SERVER, startTestServer } from "./postgres-server.ts";

/**
 * `node test/support/with-postgres.ts COMMAND …`: runs the command with one server of each kind for all its test files,
 * instead of one for each file, and exits as the command did.
 */
const [file, ...args] = process.argv.slice(2);
if (file === undefined) throw new Error("usage: with-postgres.ts COMMAND [ARGUMENT …]");

const environment = { ...process.env };
const stops: (() => Promise<void>)[] = [];
for (const backend of BACKENDS) {
  if (backend.unavailable !== null || environment[SHARED_SERVER[backend.kind]] !== undefined) continue;
  const server = await startTestServer(backend.kind);
  stops.push(server.stop);
  environment[SHARED_SERVER[backend.kind]] = server.url("postgres");
}
const child = spawn(file, args, { stdio: "inherit", env: environment });
// Ctrl-C reaches the command as well; the servers stay until it has ended.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
const code = await new Promise<number>((resolve, reject) => {
  child.once("error", reject);
  child.once("exit", (status, signal) => resolve(status ?? 128 + (signal === null ? 0 : constants.signals[signal])));
});
await Promise.all(stops.map((stop) => stop()));
process.exitCode = code;
