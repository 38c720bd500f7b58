import { z } from "zod";
import { BOUNDS } from "../../kernel/bounds.ts";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import {
  archivedAnswer,
  deletedView,
  displayName,
  listQuery,
  NO_QUERY,
  pageOf,
  pathPart,
  unixSeconds,
  writtenAnswer,
} from "../../storage/snapshot/index.ts";
import type { Proofs } from "../identity/index.ts";
import type { CredentialFields, CredentialVerbs } from "./credentials.ts";
import type { DeploymentVerbs } from "./deployments.ts";
import type { GrantVerbs, ModelVerbs } from "./models.ts";
import { CLASS_NAMES, type PricedClass } from "./price.ts";

export interface CatalogRoutesNeeds {
  readonly credentials: CredentialVerbs;
  readonly models: ModelVerbs;
  readonly deployments: DeploymentVerbs;
  readonly grants: GrantVerbs;
  /** The name of each provider's secret: a field of its own in the body of a credential. */
  readonly secretFields: readonly string[];
}

export function catalogRoutes(needs: CatalogRoutesNeeds) {
  return [
    ...credentialRoutes(needs.credentials, needs.secretFields),
    ...modelRoutes(needs.models),
    ...deploymentRoutes(needs.deployments),
    ...grantRoutes(needs.grants),
  ];
}

function credentialRoutes(credentials: CredentialVerbs, secretFields: readonly string[]) {
  const collection = "/admin/v1/credentials";
  const path = `${collection}/{credential}`;
  const params = z.strictObject({ credential: pathPart });
  const example = { credential: "example" };
  return [
    route({
      id: "credentials.put",
      method: "PUT",
      path,
      summary: "Create or change a provider's credential. Secrets are write-only; omitted, they stay.",
      permission: "platform:catalog:write",
      reach: "platform",
      params,
      query: NO_QUERY,
      body: credentialBody(secretFields),
      result: credentialResult,
      example: { params: example, body: { provider: "vllm", base_url: "http://127.0.0.1:8000/v1" } },
      audit: { action: "credential.put" },
      handler: async ({ allowed, transaction, params: at, body, ifMatch }) =>
        writtenAnswer(await credentials.put(transaction, allowed, at.credential, credentialFields(body, secretFields), ifMatch)),
    }),
    route({
      id: "credentials.list",
      method: "GET",
      path: collection,
      summary: "List the platform's credentials, never their secrets.",
      permission: "platform:catalog:read",
      reach: "platform",
      params: NO_PARAMS,
      query: listQuery,
      body: null,
      result: pageOf(credentialResult),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await credentials.list(transaction, allowed, query) }),
    }),
    route({
      id: "credentials.get",
      method: "GET",
      path,
      summary: "Read a credential, never its secret.",
      permission: "platform:catalog:read",
      reach: "platform",
      params,
      query: NO_QUERY,
      body: null,
      result: credentialResult,
      example: { params: example },
      audit: null,
      handler: async ({ allowed, transaction, params: at }) => {
        const { view, revision } = await credentials.get(transaction, allowed, at.credential);
        return { body: view, revision };
      },
    }),
    route({
      id: "credentials.delete",
      method: "DELETE",
      path,
      summary: "Archive a credential that no deployment uses; its secret is gone at once.",
      permission: "platform:catalog:write",
      reach: "platform",
      params,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: example },
      audit: { action: "credential.archive" },
      handler: async ({ allowed, transaction, params: at, ifMatch }) =>
        archivedAnswer(await credentials.archive(transaction, allowed, at.credential, ifMatch)),
    }),
  ];
}

function modelRoutes(models: ModelVerbs) {
  return [
    route({
      id: "models.put",
      method: "PUT",
      path: "/admin/v1/models/{model}",
      summary: "Create or change a model: the name callers use. Omitted fields keep their value, null clears.",
      permission: "platform:catalog:write",
      reach: "platform",
      params: modelParams,
      query: NO_QUERY,
      body: modelBody,
      result: modelResult,
      example: { params: modelExample, body: { visibility: "all", context_window: 32768 } },
      audit: { action: "model.put" },
      handler: async ({ allowed, transaction, params, body, ifMatch }) =>
        writtenAnswer(await models.put(transaction, allowed, params.model, body, ifMatch)),
    }),
    route({
      id: "models.list",
      method: "GET",
      path: "/admin/v1/models",
      summary: "List the platform's models, oldest first.",
      permission: "platform:catalog:read",
      reach: "platform",
      params: NO_PARAMS,
      query: listQuery,
      body: null,
      result: pageOf(modelResult),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await models.list(transaction, allowed, query) }),
    }),
    route({
      id: "models.get",
      method: "GET",
      path: "/admin/v1/models/{model}",
      summary: "Read a model.",
      permission: "platform:catalog:read",
      reach: "platform",
      params: modelParams,
      query: NO_QUERY,
      body: null,
      result: modelResult,
      example: { params: modelExample },
      audit: null,
      handler: async ({ allowed, transaction, params }) => {
        const { view, revision } = await models.get(transaction, allowed, params.model);
        return { body: view, revision };
      },
    }),
    route({
      id: "models.delete",
      method: "DELETE",
      path: "/admin/v1/models/{model}",
      summary: "Archive a model and its deployments; its name becomes free, its usage and prices stay.",
      permission: "platform:catalog:write",
      reach: "platform",
      params: modelParams,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: modelExample },
      audit: { action: "model.archive" },
      handler: async ({ allowed, transaction, params, ifMatch }) =>
        archivedAnswer(await models.archive(transaction, allowed, params.model, ifMatch)),
    }),
  ];
}

function deploymentRoutes(deployments: DeploymentVerbs) {
  const collection = "/admin/v1/models/{model}/deployments";
  const path = `${collection}/{deployment}`;
  const params = modelParams.extend({ deployment: pathPart });
  const example = { ...modelExample, deployment: "example" };
  return [
    route({
      id: "deployments.put",
      method: "PUT",
      path,
      summary:
        "Create or change a deployment: one endpoint that serves the model. A changed price is a new version, in place of those that would begin after it.",
      permission: "platform:catalog:write",
      reach: "platform",
      params,
      query: NO_QUERY,
      body: deploymentBody,
      result: deploymentResult,
      example: {
        params: example,
        body: { provider: "simulated", upstream_model: "simulated", price: { input: "0.15", output: "0.60", cache_read: "0.075" } },
      },
      audit: { action: "deployment.put" },
      handler: async ({ allowed, transaction, params: at, body, ifMatch }) =>
        writtenAnswer(await deployments.put(transaction, allowed, at.model, at.deployment, body, ifMatch)),
    }),
    route({
      id: "deployments.list",
      method: "GET",
      path: collection,
      summary: "List a model's deployments, oldest first.",
      permission: "platform:catalog:read",
      reach: "platform",
      params: modelParams,
      query: listQuery,
      body: null,
      result: pageOf(deploymentResult),
      example: { params: modelExample },
      audit: null,
      handler: async ({ allowed, transaction, params: at, query }) => ({
        body: await deployments.list(transaction, allowed, at.model, query),
      }),
    }),
    route({
      id: "deployments.get",
      method: "GET",
      path,
      summary: "Read a deployment and the price in force.",
      permission: "platform:catalog:read",
      reach: "platform",
      params,
      query: NO_QUERY,
      body: null,
      result: deploymentResult,
      example: { params: example },
      audit: null,
      handler: async ({ allowed, transaction, params: at }) => {
        const { view, revision } = await deployments.get(transaction, allowed, at.model, at.deployment);
        return { body: view, revision };
      },
    }),
    route({
      id: "deployments.delete",
      method: "DELETE",
      path,
      summary: "Archive a deployment; its usage and prices stay.",
      permission: "platform:catalog:write",
      reach: "platform",
      params,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: example },
      audit: { action: "deployment.archive" },
      handler: async ({ allowed, transaction, params: at, ifMatch }) =>
        archivedAnswer(await deployments.archive(transaction, allowed, at.model, at.deployment, ifMatch)),
    }),
  ];
}

function grantRoutes(grants: GrantVerbs) {
  const collection = "/admin/v1/tenants/{tenant}/grants";
  const path = `${collection}/{model}`;
  const params = z.strictObject({ tenant: pathPart, model: pathPart });
  const example = { tenant: "example", model: "example" };
  return [
    route({
      id: "grants.put",
      method: "PUT",
      path,
      summary: "Let a tenant call one of the platform's models.",
      permission: "platform:catalog:write",
      reach: "path",
      params,
      query: NO_QUERY,
      body: z.strictObject({}),
      result: grantResult,
      example: { params: example, body: {} },
      audit: { action: "grant.put" },
      handler: async ({ allowed, transaction, params: at }) => {
        const { view, isNew } = await grants.put(transaction, allowed, at.model);
        return {
          status: isNew ? 201 : 200,
          body: view,
          change: { target: view.id, before: isNew ? null : view, after: view },
          configurationChanged: isNew,
        };
      },
    }),
    route({
      id: "grants.list",
      method: "GET",
      path: collection,
      summary: "List the platform's models granted to the tenant.",
      permission: "tenant:read",
      reach: "path",
      params: z.strictObject({ tenant: pathPart }),
      query: listQuery,
      body: null,
      result: pageOf(grantResult),
      example: { params: { tenant: "example" } },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await grants.list(transaction, allowed, query) }),
    }),
    route({
      id: "grants.get",
      method: "GET",
      path,
      summary: "Whether a model is granted to the tenant.",
      permission: "tenant:read",
      reach: "path",
      params,
      query: NO_QUERY,
      body: null,
      result: grantResult,
      example: { params: example },
      audit: null,
      handler: async ({ allowed, transaction, params: at }) => ({ body: await grants.get(transaction, allowed, at.model) }),
    }),
    route({
      id: "grants.delete",
      method: "DELETE",
      path,
      summary: "Take a grant back: the tenant's calls to the model are refused within a second.",
      permission: "platform:catalog:write",
      reach: "path",
      params,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: example },
      audit: { action: "grant.delete" },
      handler: async ({ allowed, transaction, params: at }) => archivedAnswer(await grants.remove(transaction, allowed, at.model)),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const NO_PARAMS = z.strictObject({});
const modelParams = z.strictObject({ model: pathPart });
const modelExample = { model: "example" };

const times = { created_at: unixSeconds, updated_at: unixSeconds };
const named = { id: z.string(), name: z.string(), display_name: z.string().nullable() };

const pem = z.string().min(1).max(65_536).nullable().optional();

/** A body is flat, so each provider's secret is a field by its own name. */
function credentialBody(secretFields: readonly string[]) {
  const secret = z.string().min(1).max(16_384).nullable().optional();
  return z
    .strictObject({
      display_name: displayName.optional(),
      provider: z.string().min(1).max(BOUNDS.nameLength).optional(),
      base_url: z.string().min(1).max(2048).nullable().optional(),
      proxy: z
        .string()
        .min(1)
        .max(2048)
        .nullable()
        .optional()
        .describe(
          "`http://[user:password@]host[:port]`, given as a whole; https goes through it by CONNECT. Environment proxies are never used.",
        ),
      ca: pem.describe("PEM certificates to trust for this provider, instead of the system's authorities."),
      client_cert: pem.describe("PEM: the certificate shown to the provider, then its chain. Cleared, its key goes too."),
      client_key: pem.describe("PEM: the key of `client_cert`, without a passphrase. Write-only."),
    })
    .extend(Object.fromEntries(secretFields.map((name) => [name, secret])));
}

/** Every field of the body is text or null: the schema above said so. */
function credentialFields(body: Readonly<Record<string, string | null | undefined>>, secretFields: readonly string[]): CredentialFields {
  return {
    display_name: body["display_name"],
    provider: body["provider"] ?? undefined,
    base_url: body["base_url"],
    proxy: body["proxy"],
    ca: body["ca"],
    client_cert: body["client_cert"],
    client_key: body["client_key"],
    secrets: Object.fromEntries(secretFields.map((name) => [name, body[name]])),
  };
}

const certificateView = z.object({
  subject: z.string(),
  expires_at: unixSeconds,
  fingerprint: z.string().describe("SHA-256."),
});
const credentialResult = z.object({
  ...named,
  provider: z.string(),
  base_url: z.string().nullable(),
  has_secret: z.boolean(),
  proxy: z.string().nullable().describe("Without user and password."),
  ca_certificates: z.array(certificateView),
  client_certificate: certificateView.nullable(),
  ...times,
});

const tokens = z.number().int().min(1).max(100_000_000);
const modelBody = z.strictObject({
  display_name: displayName.optional(),
  visibility: z.enum(["granted", "all"]).optional(),
  capabilities: z
    .array(z.string().regex(/^[a-z][a-z0-9_-]{0,49}$/))
    .max(50)
    .nullable()
    .optional(),
  context_window: tokens.nullable().optional().describe("Tokens; unset counts as 131,072."),
  max_output_tokens: tokens.nullable().optional(),
});
const modelResult = z.object({
  ...named,
  visibility: z.enum(["granted", "all"]),
  capabilities: z.array(z.string()),
  context_window: z.number().int().nullable(),
  max_output_tokens: z.number().int().nullable(),
  ...times,
});

const MAX_TIERS = 4;
const rate = z.string().max(32).optional();
const classRates = Object.fromEntries(CLASS_NAMES.map((name) => [name, rate])) as Record<PricedClass, typeof rate>;
const tiers = z
  .array(z.strictObject({ above_input_tokens: tokens, ...classRates }))
  .max(MAX_TIERS)
  .describe("Long context, shortest first: what all tokens of a call cost whose input is longer than this.");
const statedRates = z.strictObject({
  ...classRates,
  tiers: tiers.optional(),
});
const price = z.union(
  [
    z.literal("dataset"),
    z.literal("free"),
    statedRates.extend({ effective_from: z.iso.datetime({ offset: true }).optional().describe("In the future; absent: at once.") }),
  ],
  {
    error:
      `state "dataset" (what the provider publishes), USD per million tokens as decimal strings such as {"input":"0.15","output":"0.60"} ` +
      `(classes: ${CLASS_NAMES.join(", ")}; tiers; effective_from), or "free"`,
  },
);
const ratesView = z.partialRecord(z.enum(CLASS_NAMES), z.string());
const priceDetails = z.object({
  version: z.string(),
  source: z.enum(["stated", "free", "dataset"]),
  effective_from: z.iso.datetime(),
  rates: ratesView,
  tiers: z.array(z.object({ above_input_tokens: tokens, rates: ratesView })),
  dataset: z
    .object({
      version: z.string().describe("Of the dataset."),
      published: z.string().describe("The day that version was published."),
      provider: z.string(),
      model: z.string(),
      since: z.string().nullable().describe("The day the provider began to ask this price, where the dataset says it."),
      dearest_of_day: z.boolean().describe("Whether the provider's price depends on the hour: this is then the dearest."),
    })
    .nullable(),
});

const milliseconds = z.number().int().min(1).max(86_400_000).nullable().optional();
const deploymentBody = z.strictObject({
  display_name: displayName.optional(),
  provider: z.string().min(1).max(BOUNDS.nameLength).optional(),
  credential: z.string().min(1).max(200).nullable().optional(),
  upstream_model: z.string().min(1).max(512).optional(),
  region: z.string().min(1).max(BOUNDS.nameLength).nullable().optional(),
  position: z.number().int().min(0).max(10_000).optional().describe("Order of preference among the model's deployments, least first."),
  price: price.nullable().optional(),
  connect_timeout_ms: milliseconds,
  first_token_timeout_ms: milliseconds,
  idle_timeout_ms: milliseconds,
  total_timeout_ms: milliseconds,
  unknown_fields: z.enum(["forward", "refuse"]).nullable().optional(),
  options: z.record(z.string(), z.unknown()).nullable().optional().describe("The provider's own options."),
});
const deploymentResult = z.object({
  ...named,
  provider: z.string(),
  credential: z.string().nullable(),
  upstream_model: z.string(),
  region: z.string().nullable(),
  position: z.number().int(),
  price: z.union([z.literal("free"), z.literal("dataset"), statedRates]).describe("In force."),
  price_version: z.string(),
  price_details: priceDetails,
  scheduled_prices: z.array(priceDetails).describe("To come, earliest first."),
  connect_timeout_ms: z.number().int().nullable(),
  first_token_timeout_ms: z.number().int().nullable(),
  idle_timeout_ms: z.number().int().nullable(),
  total_timeout_ms: z.number().int().nullable(),
  unknown_fields: z.enum(["forward", "refuse"]).nullable(),
  options: z.record(z.string(), z.unknown()),
  ...times,
});

const grantResult = z.object({ id: z.string(), model: z.string(), created_at: unixSeconds });
