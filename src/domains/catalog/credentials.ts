import type { CredentialId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import {
  type Address,
  addressOf,
  afterId,
  type ListQuery,
  existing,
  upsert,
  openDisplayName,
  openName,
  type Page,
  requireRevision,
  sealDisplayName,
  sealName,
  toPage,
  toUnixSeconds,
  type Written,
} from "../../storage/snapshot/index.ts";
import type { Allowed } from "../identity/index.ts";
import { type Fault, faultOfCredential, parseBaseUrl, type ProviderFacts } from "./decide.ts";
import { type CatalogVerbsNeeds, providerNamed, refuse } from "./needs.ts";
import {
  archiveCredential,
  type CredentialRow,
  findCredential,
  findCredentialForUpdate,
  type Fresh,
  insertCredential,
  isCredentialUsed,
  listCredentials,
  updateCredential,
} from "./store.ts";
import { changeTransport, NO_TRANSPORT, type TransportFields, type TransportView, viewTransport } from "./transport.ts";

/** Omitted keeps, the secret included; null clears. The secret comes under the provider's own field name. */
export interface CredentialFields extends TransportFields {
  readonly display_name?: string | null | undefined;
  readonly provider?: string | undefined;
  readonly base_url?: string | null | undefined;
  readonly secrets: Readonly<Record<string, string | null | undefined>>;
}

/** Never a secret. */
export interface CredentialView extends TransportView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly provider: string;
  readonly base_url: string | null;
  readonly has_secret: boolean;
  readonly created_at: number;
  readonly updated_at: number;
}

type Read = Allowed<"platform:catalog:read">;
type Write = Allowed<"platform:catalog:write">;

export interface CredentialVerbs {
  put(
    tx: TenantTransaction,
    allowed: Write,
    nameOrId: string,
    fields: CredentialFields,
    ifMatch: number | null,
  ): Promise<Written<CredentialView>>;
  get(tx: TenantTransaction, allowed: Read, nameOrId: string): Promise<{ view: CredentialView; revision: number }>;
  list(tx: TenantTransaction, allowed: Read, page: ListQuery): Promise<Page<CredentialView>>;
  archive(tx: TenantTransaction, allowed: Write, nameOrId: string, ifMatch: number | null): Promise<CredentialView>;
}

export function createCredentialVerbs(needs: CatalogVerbsNeeds): CredentialVerbs {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  const at = (tx: TenantTransaction, text: string): Address<CredentialId> => addressOf(ringOf(tx), "credentials", text);
  return {
    async put(tx, _allowed, nameOrId, fields, ifMatch) {
      const address = at(tx, nameOrId);
      return upsert(tx, address, ifMatch, {
        what: "credential",
        find: () => findCredentialForUpdate(tx, address),
        change: (row) => change(needs, tx, row, fields),
        make: (name, index) => add(needs, tx, name, index, fields),
      });
    },

    async get(tx, _allowed, nameOrId) {
      const row = existing(await findCredential(tx, at(tx, nameOrId)));
      return { view: viewOf(ringOf(tx), row), revision: row.revision };
    },

    async list(tx, _allowed, page) {
      const rows = await listCredentials(tx, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => viewOf(ringOf(tx), row));
    },

    async archive(tx, _allowed, nameOrId, ifMatch) {
      const row = existing(await findCredentialForUpdate(tx, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      if (await isCredentialUsed(tx, row.id))
        throw new Problem("conflict", { message: "Deployments use this credential. Delete them, or give them another, first." });
      await archiveCredential(tx, row.id, new Date(needs.clock.now()));
      return viewOf(ringOf(tx), row);
    },
  };
}

async function add(
  needs: CatalogVerbsNeeds,
  tx: TenantTransaction,
  name: string,
  index: Buffer,
  fields: CredentialFields,
): Promise<Written<CredentialView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const provider = providerNamed(needs, fields.provider);
  const id = needs.makeId<CredentialId>();
  const now = new Date(needs.clock.now());
  const secret = secretOf(provider, fields);
  const row: Fresh<CredentialRow> = {
    id,
    ...sealName(keyring, "credentials", id, name, index),
    display_name_sealed: sealDisplayName(keyring, "credentials", id, fields.display_name ?? null),
    provider: provider.id,
    base_url: baseUrlOf(fields.base_url ?? null),
    secret_sealed: sealSecret(keyring, id, secret ?? null),
    secret_version: 1,
    ...changeTransport(keyring, id, NO_TRANSPORT, fields, now.getTime()),
    revision: 1,
    created_at: now,
    updated_at: now,
  };
  refuse(faultOf(provider, row));
  await insertCredential(tx, row);
  return { before: null, after: viewOf(keyring, row), revision: row.revision };
}

async function change(
  needs: CatalogVerbsNeeds,
  tx: TenantTransaction,
  row: CredentialRow,
  fields: CredentialFields,
): Promise<Written<CredentialView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const provider = providerNamed(needs, fields.provider ?? row.provider);
  if (provider.id !== row.provider)
    throw new Problem("conflict", {
      param: "provider",
      message: "A credential stays with its provider, since its secret is that provider's. Make another.",
    });
  const secret = secretOf(provider, fields);
  const changes = {
    display_name_sealed:
      fields.display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, "credentials", row.id, fields.display_name),
    provider: row.provider,
    base_url: fields.base_url === undefined ? row.base_url : baseUrlOf(fields.base_url),
    secret_sealed: secret === undefined ? row.secret_sealed : sealSecret(keyring, row.id, secret),
    secret_version: secret === undefined ? row.secret_version : row.secret_version + 1,
    ...changeTransport(keyring, row.id, row, fields, needs.clock.now()),
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  refuse(faultOf(provider, changes));
  await updateCredential(tx, row.id, changes);
  return { before: viewOf(keyring, row), after: viewOf(keyring, { ...row, ...changes }), revision: changes.revision };
}

function faultOf(provider: ProviderFacts, row: Pick<CredentialRow, "base_url" | "secret_sealed" | "ca" | "client_cert">): Fault | null {
  return faultOfCredential(provider, {
    baseUrl: row.base_url,
    hasSecret: row.secret_sealed !== null,
    tlsField: row.ca !== null ? "ca" : row.client_cert !== null ? "client_cert" : null,
  });
}

/** Undefined: not given. A secret under another provider's name is a mistake, and says so without repeating it. */
function secretOf(provider: ProviderFacts, fields: CredentialFields): string | null | undefined {
  for (const [name, value] of Object.entries(fields.secrets)) {
    if (value !== undefined && name !== provider.secretField) {
      throw new Problem("invalid_request", {
        param: name,
        message: `'${provider.id}' does not take '${name}'${provider.secretField === null ? "" : `, but '${provider.secretField}'`}.`,
      });
    }
  }
  if (provider.secretField === null) return undefined;
  const secret = fields.secrets[provider.secretField];
  if (typeof secret === "string" && !HEADER_TEXT.test(secret)) {
    throw new Problem("invalid_request", {
      param: provider.secretField,
      message: `'${provider.secretField}' must be visible ASCII characters, without spaces or line ends: it travels in a header.`,
    });
  }
  return secret;
}

const HEADER_TEXT = /^[\x21-\x7e]+$/;

function sealSecret(keyring: TenantKeyring, id: CredentialId, secret: string | null): Buffer | null {
  return secret === null ? null : keyring.seal(secret, { table: "credentials", column: "secret_sealed", row: id });
}

function baseUrlOf(text: string | null): string | null {
  if (text === null) return null;
  const url = parseBaseUrl(text);
  if (url === null)
    throw new Problem("invalid_request", {
      param: "base_url",
      message: "'base_url' must be an http or https URL without user, query or fragment, '/v1' included.",
    });
  return url;
}

function viewOf(keyring: TenantKeyring, row: Fresh<CredentialRow>): CredentialView {
  return {
    id: row.id,
    name: openName(keyring, "credentials", row),
    display_name: openDisplayName(keyring, "credentials", row),
    provider: row.provider,
    base_url: row.base_url,
    has_secret: row.secret_sealed !== null,
    ...viewTransport(keyring, row),
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
  };
}
