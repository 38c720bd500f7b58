import { capacityRoutes } from "../src/domains/capacity/routes.ts";
import { catalogRoutes } from "../src/domains/catalog/routes.ts";
import { identityRoutes } from "../src/domains/identity/routes.ts";
import { meteringRoutes } from "../src/domains/metering/routes.ts";
import { createProviders } from "../src/domains/providers/index.ts";
import { recordsRoutes } from "../src/domains/records/routes.ts";
import { tenantsRoutes } from "../src/domains/tenants/routes.ts";
import { systemClock } from "../src/kernel/clock.ts";
import type { AnyRoute } from "../src/surfaces/admin/index.ts";

/** The whole route table as data, without a server behind it: to be read, not to be called. */
export function routeTable(): AnyRoute[] {
  const catalog = { credentials: absent(), models: absent(), deployments: absent(), grants: absent(), secretFields: secretFields() };
  return [
    ...tenantsRoutes(absent()),
    ...identityRoutes(absent()),
    ...catalogRoutes(catalog as Parameters<typeof catalogRoutes>[0]),
    ...capacityRoutes(absent()),
    ...meteringRoutes(absent()),
    ...recordsRoutes(absent()),
  ];
}

function secretFields(): string[] {
  const providers = createProviders({ clock: systemClock }).list();
  return [...new Set(providers.flatMap((provider) => provider.secretField ?? []))];
}

/** Needs that nothing may use: any property can be taken along, none can be called. */
function absent<Needs extends object>(): Needs {
  const refuse = () => {
    throw new Error("this route table is for reading");
  };
  return new Proxy(refuse, { get: () => absent() }) as unknown as Needs;
}

/** Routes that are no part of the table, each with who may call it. */
export const BESIDE_THE_TABLE: Readonly<Record<string, string>> = {
  "GET /livez": "anybody: says only that the process runs",
  "HEAD /livez": "as GET",
  "GET /readyz": "anybody: says only whether calls are taken",
  "HEAD /readyz": "as GET",
  "GET /metrics": "a platform key with platform:metrics:read",
  "POST /v1/chat/completions": "a key with models:call; the fields are in [chat-completions.md](chat-completions.md)",
  "POST /v1/messages": "a key with models:call; Anthropic's Messages API, the fields are in [messages.md](messages.md)",
  "POST /v1/messages/count_tokens":
    "a key with models:call; nothing is billed, and the header `x-atrium-token-count` says `exact` or `estimated`",
  "GET /v1/models": "a key with models:call, for the models it may use",
  "GET /v1/models/*": "a key with models:call, for the models it may use",
  "GET /admin/v1/openapi.json": "any valid key",
};
