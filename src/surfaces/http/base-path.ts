/** Found at the root too: probes go to the process itself, past the proxy that the base path is for. */
const PROBES: ReadonlySet<string> = new Set(["/livez", "/readyz"]);

/** What no route is mounted at: where a path outside the base path leads. */
const NOWHERE = "/";

const ABSOLUTE_FORM = /^https?:\/\/[^/?#]*/i;

/** The path that routes are found by, of a request's target: without the base path (`/ai`, or empty), or one that leads nowhere. */
export function withoutBasePath(basePath: string, target: string): string {
  const path = pathOf(target);
  if (path.startsWith(`${basePath}/`)) return path.slice(basePath.length);
  return PROBES.has(path.split("?", 1)[0] as string) ? path : NOWHERE;
}

/** Of HTTP's absolute form, which every server must take, without who is asked (RFC 9112, 3.2.2): a path as in its usual form. */
function pathOf(target: string): string {
  return target.startsWith("/") ? target : target.replace(ABSOLUTE_FORM, "");
}
