import { Resolver } from "node:dns/promises";
import type { Lookup } from "./vet.ts";

/**
 * Asks DNS for both families, on the event loop: `getaddrinfo` would hold one of four threads for as long as a tenant's name
 * server likes. A family without an answer is one without addresses. `localhost` is never asked for (RFC 6761).
 */
export const lookupInDns: Lookup = async (name, signal) => {
  if (name === "localhost" || name.endsWith(".localhost")) return ["127.0.0.1", "::1"];
  const resolver = new Resolver({ timeout: TRY_MS, tries: 2 });
  const cancel = (): void => resolver.cancel();
  signal.addEventListener("abort", cancel, { once: true });
  try {
    const [ipv4, ipv6] = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    if (ipv4.status === "rejected" && ipv6.status === "rejected") throw ipv4.reason;
    return [ipv4, ipv6].flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
  } finally {
    signal.removeEventListener("abort", cancel);
  }
};

const TRY_MS = 2_000;
