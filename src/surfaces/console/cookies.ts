import type { FastifyReply, FastifyRequest } from "fastify";

/** `session`: who is signed in. `sign_in`: what a provider's answer must fit. `form`: what the sign-in form was given with. */
export type CookieName = "session" | "sign_in" | "form";

/** Over TLS, cookies that no subdomain and no plain page can set; over plain http, which is this machine's own, the same without. */
export function readCookie({ headers }: FastifyRequest, name: CookieName, secure: boolean): string | null {
  const wanted = `${fullName(name, secure)}=`;
  const found = (headers.cookie ?? "").split("; ").find((each) => each.startsWith(wanted));
  return found === undefined ? null : found.slice(wanted.length);
}

/** `maxAgeSeconds` null: until the browser is closed; 0: gone. */
export function setCookie(reply: FastifyReply, name: CookieName, value: string, maxAgeSeconds: number | null, secure: boolean): void {
  const parts = [`${fullName(name, secure)}=${value}`, "Path=/", "HttpOnly", "SameSite=Lax"];
  if (secure) parts.push("Secure");
  if (maxAgeSeconds !== null) parts.push(`Max-Age=${maxAgeSeconds}`);
  const present = reply.getHeader("set-cookie");
  reply.header("set-cookie", [...[present ?? []].flat().map(String), parts.join("; ")]);
}

function fullName(name: CookieName, secure: boolean): string {
  return `${secure ? "__Host-" : ""}atrium_${name}`;
}
