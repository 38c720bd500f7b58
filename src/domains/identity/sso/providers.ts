import { createHash } from "node:crypto";
import { sql } from "kysely";
import type { Clock } from "../../../kernel/clock.ts";
import { PLATFORM_TENANT, type ProjectId, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import { type Egress, EgressRefused } from "../../../egress/index.ts";
import { type TenantTransaction, tenantOf } from "../../../storage/database/index.ts";
import type { TenantKeyring } from "../../../storage/secrets/index.ts";
import {
  type Address,
  addressOf,
  afterId,
  existing,
  kept,
  type ListQuery,
  openDisplayName,
  openName,
  type Page,
  requireRevision,
  sealDisplayName,
  sealName,
  toPage,
  toUnixSeconds,
  upsert,
  type Written,
} from "../../../storage/snapshot/index.ts";
import { beyondCreator, permissionsInPlace, placeOf } from "../decide.ts";
import type { Allowed, Principal } from "../model.ts";
import { isRole, type Role } from "../permissions.ts";
import { EVERYBODY, parseIssuer } from "./decide.ts";
import { type Algorithm, audienceKey, type GroupRole, type ProviderId, type ProviderRecord, type ProviderRules } from "./model.ts";
import type { Visitor } from "./console.ts";
import { openRules, sealRules } from "./source.ts";
import {
  archiveProvider,
  countProviders,
  findProvider,
  findProviderForUpdate,
  type FreshProvider,
  insertProvider,
  listProviders,
  type ProviderRow,
  updateProvider,
} from "./store.ts";

export interface ProviderVerbsNeeds {
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  readonly vet: Egress["vet"];
  /** Brings the snapshot up to now. */
  readonly refresh: () => Promise<void>;
  /** From the snapshot: whose bearer tokens these are. */
  readonly providerFor: (issuer: string, audience: string) => ProviderRecord | undefined;
  /** The live project of this name or id. Throws Problem not_found. */
  readonly projectOf: (tx: TenantTransaction, nameOrId: string) => Promise<ProjectId>;
  readonly projectName: (tenant: TenantId, project: ProjectId) => string | undefined;
  /** From the snapshot; undefined for the platform. */
  readonly tenantName: (tenant: TenantId) => string | undefined;
}

/** Omitted keeps, the secret included; null clears. */
export interface ProviderFields {
  readonly display_name?: string | null | undefined;
  readonly issuer?: string | undefined;
  readonly client_id?: string | null | undefined;
  readonly client_secret?: string | null | undefined;
  readonly audiences?: readonly string[] | undefined;
  readonly algorithms?: readonly Algorithm[] | undefined;
  readonly scopes?: readonly string[] | undefined;
  readonly groups_claim?: string | undefined;
  readonly project_claim?: string | null | undefined;
  readonly group_roles?: readonly GroupRoleFields[] | undefined;
  readonly email_domains?: readonly string[] | undefined;
  readonly trust_email?: boolean | undefined;
  readonly auto_provision?: boolean | undefined;
}

export interface GroupRoleFields {
  readonly group: string;
  readonly role: string;
  /** By name or id. */
  readonly project?: string | null | undefined;
}

/** Never a secret. */
export interface ProviderView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly issuer: string;
  readonly client_id: string | null;
  readonly has_client_secret: boolean;
  readonly redirect_path: string;
  readonly audiences: string[];
  readonly algorithms: Algorithm[];
  readonly scopes: string[];
  readonly groups_claim: string;
  readonly project_claim: string | null;
  readonly group_roles: { group: string; role: string; project: string | null }[];
  readonly email_domains: string[];
  readonly trust_email: boolean;
  readonly auto_provision: boolean;
  readonly created_at: number;
  readonly updated_at: number;
}

/** A tenant's, or the platform's own: the proof names the tenant. */
type Read = Allowed<"identity_providers:read"> | Allowed<"platform:identity_providers:read">;
type Write = Allowed<"identity_providers:write"> | Allowed<"platform:identity_providers:write">;

/** All throw Problem. */
export interface ProviderVerbs {
  put(
    tx: TenantTransaction,
    allowed: Write,
    nameOrId: string,
    fields: ProviderFields,
    ifMatch: number | null,
  ): Promise<Written<ProviderView>>;
  get(tx: TenantTransaction, allowed: Read, nameOrId: string): Promise<{ view: ProviderView; revision: number }>;
  list(tx: TenantTransaction, allowed: Read, page: ListQuery): Promise<Page<ProviderView>>;
  archive(tx: TenantTransaction, allowed: Write, nameOrId: string, ifMatch: number | null): Promise<ProviderView>;
}

export function createProviderVerbs(needs: ProviderVerbsNeeds): ProviderVerbs {
  const at = (tx: TenantTransaction, text: string): Address<ProviderId> =>
    addressOf(needs.keyring(tenantOf(tx)), "identity_providers", text);
  return {
    async put(tx, allowed, nameOrId, fields, ifMatch) {
      requireHighest(tenantOf(tx), allowed.principal);
      const address = at(tx, nameOrId);
      return upsert(tx, address, ifMatch, {
        what: "identity_provider",
        find: () => findProviderForUpdate(tx, address),
        change: (row) => change(needs, tx, row, fields),
        make: (name, index) => add(needs, tx, name, index, fields),
      });
    },

    async get(tx, _allowed, nameOrId) {
      const row = existing(await findProvider(tx, at(tx, nameOrId)));
      return { view: viewOf(needs, tx, row), revision: row.revision };
    },

    async list(tx, _allowed, page) {
      const rows = await listProviders(tx, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => viewOf(needs, tx, row));
    },

    async archive(tx, _allowed, nameOrId, ifMatch) {
      const row = existing(await findProviderForUpdate(tx, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      await archiveProvider(tx, row.id, new Date(needs.clock.now()));
      return viewOf(needs, tx, row);
    },
  };
}

async function add(
  needs: ProviderVerbsNeeds,
  tx: TenantTransaction,
  name: string,
  index: Buffer,
  fields: ProviderFields,
): Promise<Written<ProviderView>> {
  if (fields.issuer === undefined)
    throw invalid("issuer", "A new identity provider needs its 'issuer': the URL that its tokens have in 'iss'.");
  if ((await countProviders(tx)) >= MAX_PROVIDERS)
    throw new Problem("conflict", { message: `There are ${MAX_PROVIDERS} identity providers already. Delete one first.` });
  const keyring = needs.keyring(tenantOf(tx));
  const id = needs.makeId<ProviderId>();
  const now = new Date(needs.clock.now());
  const rules = await rulesOf(needs, tx, DEFAULT_RULES, fields);
  const issuer = await issuerOf(needs, fields.issuer);
  await reserveAudiences(needs, tx, id, issuer, rules);
  const row: FreshProvider = {
    id,
    ...sealName(keyring, "identity_providers", id, name, index),
    display_name_sealed: sealDisplayName(keyring, "identity_providers", id, fields.display_name ?? null),
    issuer,
    client_id: fields.client_id ?? null,
    client_secret_sealed: sealSecret(keyring, id, fields.client_secret ?? null),
    rules_sealed: sealRules(keyring, id, rules),
    revision: 1,
    created_at: now,
    updated_at: now,
  };
  await insertProvider(tx, row);
  return { before: null, after: viewOf(needs, tx, row), revision: row.revision };
}

async function change(
  needs: ProviderVerbsNeeds,
  tx: TenantTransaction,
  row: ProviderRow,
  fields: ProviderFields,
): Promise<Written<ProviderView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const rules = await rulesOf(needs, tx, openRules(keyring, row), fields);
  const issuer = fields.issuer === undefined ? row.issuer : await issuerOf(needs, fields.issuer);
  if (issuer !== row.issuer && row.client_secret_sealed !== null && fields.client_secret === undefined)
    throw invalid("client_secret", "A secret stays with its issuer. Give the new issuer's 'client_secret', or null.");
  await reserveAudiences(needs, tx, row.id, issuer, rules);
  const changes = {
    display_name_sealed:
      fields.display_name === undefined
        ? row.display_name_sealed
        : sealDisplayName(keyring, "identity_providers", row.id, fields.display_name),
    issuer,
    client_id: kept(fields.client_id, row.client_id),
    client_secret_sealed: fields.client_secret === undefined ? row.client_secret_sealed : sealSecret(keyring, row.id, fields.client_secret),
    rules_sealed: sealRules(keyring, row.id, rules),
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  const before = viewOf(needs, tx, row);
  await updateProvider(tx, row.id, changes);
  return { before, after: viewOf(needs, tx, { ...row, ...changes }), revision: changes.revision };
}

async function rulesOf(
  needs: ProviderVerbsNeeds,
  tx: TenantTransaction,
  present: ProviderRules,
  fields: ProviderFields,
): Promise<ProviderRules> {
  const rules: ProviderRules = {
    audiences: kept(fields.audiences, present.audiences),
    algorithms: kept(fields.algorithms, present.algorithms),
    scopes: kept(fields.scopes, present.scopes),
    groupsClaim: kept(fields.groups_claim, present.groupsClaim),
    projectClaim: kept(fields.project_claim, present.projectClaim),
    groupRoles: fields.group_roles === undefined ? present.groupRoles : await groupRolesOf(needs, tx, fields.group_roles),
    emailDomains: fields.email_domains?.map((domain) => domain.toLowerCase()) ?? present.emailDomains,
    trustEmail: kept(fields.trust_email, present.trustEmail),
    autoProvision: kept(fields.auto_provision, present.autoProvision),
  };
  if (rules.emailDomains.length === 0 && rules.groupRoles.some(({ group }) => group === EVERYBODY))
    throw invalid("group_roles", `The group '${EVERYBODY}' is everybody with an account there. Name your 'email_domains' as well.`);
  return rules;
}

async function groupRolesOf(needs: ProviderVerbsNeeds, tx: TenantTransaction, given: readonly GroupRoleFields[]): Promise<GroupRole[]> {
  const roles: GroupRole[] = [];
  for (const { group, role, project } of given)
    roles.push({
      group,
      role: roleOf(role, tenantOf(tx)),
      project: project === undefined || project === null ? null : await needs.projectOf(tx, project),
    });
  return roles;
}

function roleOf(role: string, tenant: TenantId): Role {
  if (!isRole(role)) throw invalid("group_roles", `'${role}' is no role.`);
  if (tenant !== PLATFORM_TENANT && role.startsWith("platform_"))
    throw invalid("group_roles", `'${role}' is a role of the platform, which a tenant's groups cannot have.`);
  return role;
}

/** Who says which server vouches for members may be any of them, so must hold already what the highest of them holds. */
function requireHighest(tenant: TenantId, writer: Principal): void {
  const highest = tenant === PLATFORM_TENANT ? "platform_admin" : "tenant_admin";
  const lacking = beyondCreator(writer, [...permissionsInPlace([highest], placeOf(tenant, null))], "members:write");
  if (lacking !== undefined)
    throw new Problem("permission_denied", {
      message: `An identity provider vouches for every member, so whoever changes one must hold all that '${highest}' does: you lack '${lacking}'.`,
    });
}

async function issuerOf(needs: ProviderVerbsNeeds, text: string): Promise<string> {
  const issuer = parseIssuer(text);
  if (issuer === null) throw invalid("issuer", "'issuer' must be an https URL without user, query and fragment, exactly as 'iss' has it.");
  try {
    await needs.vet(issuer);
  } catch (error) {
    if (error instanceof EgressRefused)
      throw new Problem("invalid_request", { param: "issuer", message: `'issuer': ${error.publicReason}`, cause: error });
    throw error;
  }
  return issuer;
}

/**
 * An issuer's audience leads to one provider of one tenant, so that a token never chooses its tenant. Two who ask for one at the same
 * time come one after the other.
 */
async function reserveAudiences(
  needs: ProviderVerbsNeeds,
  tx: TenantTransaction,
  id: ProviderId,
  issuer: string,
  { audiences }: ProviderRules,
): Promise<void> {
  if (audiences.length === 0) return;
  const locks = audiences.map((audience) => lockOf(audienceKey(issuer, audience))).toSorted();
  for (const lock of locks) await tx.selectNoFrom(sql`pg_advisory_xact_lock(${lock}::bigint)`.as("locked")).execute();
  await needs.refresh();
  const taken = audiences.find((audience) => {
    const owner = needs.providerFor(issuer, audience);
    return owner !== undefined && owner.id !== id;
  });
  if (taken !== undefined)
    throw new Problem("conflict", {
      param: "audiences",
      message: `Tokens of this issuer for '${taken}' are another identity provider's. Have yours made for an audience of your own.`,
    });
}

function lockOf(key: string): string {
  return createHash("sha256").update(`identity_providers.audience ${key}`).digest().readBigInt64BE(0).toString();
}

function sealSecret(keyring: TenantKeyring, id: ProviderId, secret: string | null): Buffer | null {
  return secret === null ? null : keyring.seal(secret, { table: "identity_providers", column: "client_secret_sealed", row: id });
}

function viewOf(needs: ProviderVerbsNeeds, tx: TenantTransaction, row: FreshProvider): ProviderView {
  const tenant = tenantOf(tx);
  const keyring = needs.keyring(tenant);
  const rules = openRules(keyring, row);
  const name = openName(keyring, "identity_providers", row);
  return {
    id: row.id,
    name,
    display_name: openDisplayName(keyring, "identity_providers", row),
    issuer: row.issuer,
    client_id: row.client_id,
    has_client_secret: row.client_secret_sealed !== null,
    redirect_path: callbackPath({ organization: tenant === PLATFORM_TENANT ? null : (needs.tenantName(tenant) ?? tenant), provider: name }),
    audiences: [...rules.audiences],
    algorithms: [...rules.algorithms],
    scopes: [...rules.scopes],
    groups_claim: rules.groupsClaim,
    project_claim: rules.projectClaim,
    group_roles: rules.groupRoles.map(({ group, role, project }) => ({
      group,
      role,
      project: project === null ? null : (needs.projectName(tenant, project) ?? project),
    })),
    email_domains: [...rules.emailDomains],
    trust_email: rules.trustEmail,
    auto_provision: rules.autoProvision,
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
  };
}

/** Where a provider sends browsers back: one address for each, so that one provider's answer is never taken for another's. */
export function callbackPath({ organization, provider }: Visitor): string {
  return `/console/callback/${visitPath({ organization, provider })}`;
}

/** As the console's addresses name a provider. */
export function visitPath({ organization, provider }: Visitor): string {
  return [organization, provider].flatMap((part) => (part === null ? [] : [encodeURIComponent(part)])).join("/");
}

const DEFAULT_RULES: ProviderRules = {
  audiences: [],
  algorithms: ["RS256", "PS256", "ES256", "ES384", "EdDSA"],
  scopes: ["openid", "email", "profile"],
  groupsClaim: "groups",
  projectClaim: null,
  groupRoles: [],
  emailDomains: [],
  trustEmail: false,
  autoProvision: false,
};

const MAX_PROVIDERS = 20;

function invalid(param: string, message: string): Problem {
  return new Problem("invalid_request", { param, message });
}
