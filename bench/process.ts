import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
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
