import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

const TICKS_PER_SECOND = 100;
const started: ChildProcess[] = [];

/** Starts a script of this folder that prints `{"port": …}` once it listens. */
export function startScript(script: string, ...args: readonly string[]): Promise<{ port: number; pid: number }> {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, script), ...args], { stdio: ["ignore", "pipe", "inherit"] });
  started.push(child);
  return new Promise((resolve, reject) => {
    child.stdout.once("data", (line) => resolve({ port: (JSON.parse(String(line)) as { port: number }).port, pid: child.pid as number }));
    child.once("exit", (code) => reject(new Error(`${script} exited with ${code}`)));
  });
}

export function stopScripts(): void {
  for (const child of started) child.kill();
}

/** User and system time of a process and its threads. */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") as string[];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

export function residentMegabytes(pid: number): number {
  return Math.round(residentKilobytes(pid) / 1024);
}

export function residentKilobytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

/** How long a process's main thread was ready to run and had no processor. */
export function waitedSeconds(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, "utf8").split(" ")[1]) / 1e9;
}

/** User and system time of a process and all that it started, the living and those it has waited for. */
export function treeCpuSeconds(root: number): number {
  const parents = new Map<number, number>();
  const ticks = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const fields = statFields(Number(name));
    if (fields === null) continue;
    parents.set(Number(name), Number(fields[1]));
    ticks.set(
      Number(name),
      fields.slice(11, 15).reduce((sum, each) => sum + Number(each), 0),
    );
  }
  const isBelow = (pid: number): boolean => pid === root || (parents.has(pid) && isBelow(parents.get(pid) as number));
  return [...ticks].reduce((sum, [pid, each]) => (isBelow(pid) ? sum + each : sum), 0) / TICKS_PER_SECOND;
}

/** What all processes of the machine have run, and what its host took. */
export function machineCpuSeconds(): number {
  const columns = /^cpu +(.*)$/m.exec(readFileSync("/proc/stat", "utf8"))?.[1]?.split(" ") ?? [];
  return BUSY_COLUMNS.reduce((sum, column) => sum + Number(columns[column]), 0) / TICKS_PER_SECOND;
}

/** Of /proc/stat: all but idle, the wait for a disk, and guests, which count as user time already. */
const BUSY_COLUMNS = [0, 1, 2, 5, 6, 7];

/** From the state on; null where there is no such process. */
function statFields(pid: number): string[] | null {
  if (!Number.isInteger(pid)) return null;
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? null;
  } catch {
    return null;
  }
}
