/** Found at the root too: probes go to the process itself, past the proxy that the base path is for. */
const PROBES: ReadonlySet<string> = new Set(["/livez", "/readyz"]);

/** What no route is mounted at: where a path outside the base path leads. */
const NOWHERE = "/";

/** The path that routes are found by, of a request's target: without the base path (`/ai`; not empty), or one that leads nowhere. */
export function withoutBasePath(basePath: string, target: string): string {
  if (target.startsWith(`${basePath}/`)) return target.slice(basePath.length);
  return PROBES.has(target.split("?", 1)[0] as string) ? target : NOWHERE;
}
