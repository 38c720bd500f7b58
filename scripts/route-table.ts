import { capacityRoutes } from "../src/domains/capacity/routes.ts";
import { catalogRoutes } from "../src/domains/catalog/routes.ts";
import { identityRoutes } from "../src/domains/identity/routes.ts";
import { ssoRoutes } from "../src/domains/identity/sso/routes.ts";
import { budgetRoutes } from "../src/domains/metering/budgets/routes.ts";
import { meteringRoutes } from "../src/domains/metering/routes.ts";
import { createProviders } from "../src/domains/providers/index.ts";
import { recordsRoutes } from "../src/domains/records/routes.ts";
import { tenantsRoutes } from "../src/domains/tenants/routes.ts";
import { webhooksRoutes } from "../src/domains/webhooks/routes.ts";
import { systemClock } from "../src/kernel/clock.ts";
import type { AnyRoute } from "../src/surfaces/admin/index.ts";

/** The whole route table as data, without a server behind it: to be read, not to be called. */
export function routeTable(): AnyRoute[] {
  const catalog = { credentials: absent(), models: absent(), deployments: absent(), grants: absent(), secretFields: secretFields() };
  return [
    ...tenantsRoutes(absent()),
    ...identityRoutes(absent()),
    ...ssoRoutes(absent()),
    ...catalogRoutes(catalog as Parameters<typeof catalogRoutes>[0]),
    ...capacityRoutes(absent()),
    ...meteringRoutes(absent()),
    ...budgetRoutes(absent()),
    ...recordsRoutes(absent()),
    ...webhooksRoutes(absent()),
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
  "GET /console": "anybody: leads to the sign-in or to the account page",
  "GET /console/style.css": "anybody",
  "GET /console/mark.svg": "anybody",
  "GET /console/sign-in": "anybody",
  "GET /console/sign-in/:organization": "anybody: the identity providers that an organization's people sign in with",
  "POST /console/sign-in/key": "a platform key, or a tenant's key above its projects, with the form's token",
  "GET /console/start/:provider": "anybody: leads to an identity provider of the platform",
  "GET /console/start/:organization/:provider": "anybody: leads to an identity provider of a tenant",
  "GET /console/callback/:provider": "the browser that began a sign-in, with the provider's answer",
  "GET /console/callback/:organization/:provider": "as `/console/callback/:provider`",
  "GET /console/account": "whoever is signed in to the console",
  "POST /console/sign-out": "whoever is signed in to the console, with the form's token",
  "GET /console/signed-out": "anybody",
};
