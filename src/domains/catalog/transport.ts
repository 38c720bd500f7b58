import { createPrivateKey, X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import type { CredentialId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { toUnixSeconds } from "../../storage/snapshot/index.ts";
import type { Transport } from "./model.ts";
import type { CredentialRow } from "./store.ts";

/** Omitted keeps, null clears; a certificate that is cleared takes its key along. */
export interface TransportFields {
  /** `http://[user:password@]host[:port]`, as a whole: its password is not kept for another spelling. */
  readonly proxy?: string | null | undefined;
  /** PEM certificates, trusted instead of the system's authorities. */
  readonly ca?: string | null | undefined;
  /** PEM: the certificate, then those between it and its authority. */
  readonly client_cert?: string | null | undefined;
  /** PEM, without a passphrase. Write-only. */
  readonly client_key?: string | null | undefined;
}

/** Never a password or a key. */
export interface TransportView {
  /** Without user and password. */
  readonly proxy: string | null;
  readonly ca_certificates: readonly CertificateView[];
  readonly client_certificate: CertificateView | null;
}

export interface CertificateView {
  readonly subject: string;
  /** Unix seconds. */
  readonly expires_at: number;
  /** SHA-256, hex with colons. */
  readonly fingerprint: string;
}

type TransportColumn = "proxy_sealed" | "ca" | "client_cert" | "client_key_sealed";
export type TransportColumns = Pick<CredentialRow, TransportColumn>;

export const NO_TRANSPORT: TransportColumns = { proxy_sealed: null, ca: null, client_cert: null, client_key_sealed: null };

/** The columns after a write. Throws Problem invalid_request at what could not work; no message repeats a value. */
export function changeTransport(
  keyring: TenantKeyring,
  id: CredentialId,
  before: TransportColumns,
  fields: TransportFields,
  now: number,
): TransportColumns {
  const cert = parsed(fields.client_cert, before.client_cert, (text) => parseCertificates("client_cert", text, now));
  const keptKey = cert === null ? null : openText(keyring, "client_key_sealed", id, before.client_key_sealed);
  const key = parsed(fields.client_key, keptKey, parseKey);
  refuseMismatch(cert, key);
  const seal = (column: TransportColumn, text: string | null): Buffer | null =>
    text === null ? null : keyring.seal(text, { table: "credentials", column, row: id });
  return {
    proxy_sealed: fields.proxy === undefined ? before.proxy_sealed : seal("proxy_sealed", parsed(fields.proxy, null, parseProxy)),
    ca: parsed(fields.ca, before.ca, (text) => parseCertificates("ca", text, now)),
    client_cert: cert,
    client_key_sealed: key === keptKey && key !== null ? before.client_key_sealed : seal("client_key_sealed", key),
  };
}

export function openTransport(keyring: TenantKeyring, row: TransportColumns & { readonly id: CredentialId }): Transport | null {
  const proxy = openText(keyring, "proxy_sealed", row.id, row.proxy_sealed);
  const key = openText(keyring, "client_key_sealed", row.id, row.client_key_sealed);
  const clientCertificate = row.client_cert === null || key === null ? null : { cert: row.client_cert, key };
  return proxy === null && row.ca === null && clientCertificate === null ? null : { proxy, ca: row.ca, clientCertificate };
}

export function viewTransport(keyring: TenantKeyring, row: TransportColumns & { readonly id: CredentialId }): TransportView {
  const proxy = openText(keyring, "proxy_sealed", row.id, row.proxy_sealed);
  return {
    proxy: proxy === null ? null : new URL(proxy).origin,
    ca_certificates: certificatesOf(row.ca),
    client_certificate: certificatesOf(row.client_cert)[0] ?? null,
  };
}

function parsed(given: string | null | undefined, before: string | null, parse: (text: string) => string): string | null {
  if (given === undefined) return before;
  return given === null ? null : parse(given);
}

function openText(keyring: TenantKeyring, column: TransportColumn, id: CredentialId, sealed: Buffer | null): string | null {
  return sealed === null ? null : keyring.open(sealed, { table: "credentials", column, row: id }).toString();
}

function parseProxy(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  const plain = url !== null && url.protocol === "http:" && url.hostname !== "" && url.pathname === "/" && !/[?#\s]/.test(text);
  if (!plain || !isBasic(url))
    throw refused("proxy", "'proxy' must be 'http://host:port', or 'http://user:password@host:port', percent-encoded where needed.");
  return url.href.replace(/\/$/, "");
}

/** What `proxy-authorization: Basic` can carry: no colon in the user, no control character. */
function isBasic(url: URL): boolean {
  try {
    const [user, password] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
    return !user.includes(":") && !/\p{Cc}/u.test(user + password);
  } catch {
    return false;
  }
}

/** The certificates in a PEM file, and nothing else of it. */
function parseCertificates(param: "ca" | "client_cert", text: string, now: number): string {
  if (text.includes("PRIVATE KEY")) throw refused(param, `'${param}' holds a private key: it takes certificates only.`);
  const blocks = text.match(CERTIFICATE) ?? [];
  if (blocks.length === 0 || blocks.length > MAX_CERTIFICATES)
    throw refused(param, `'${param}' must be PEM, with 1 to ${MAX_CERTIFICATES} certificates.`);
  for (const [index, block] of blocks.entries()) {
    const certificate = certificateOf(block);
    if (certificate === null) throw refused(param, `Certificate ${index + 1} of '${param}' cannot be read.`);
    if (certificate.validToDate.getTime() < now) throw refused(param, `Certificate ${index + 1} of '${param}' has expired.`);
  }
  return `${blocks.join("\n")}\n`;
}

function parseKey(text: string): string {
  try {
    return createPrivateKey(text).export({ type: "pkcs8", format: "pem" }).toString();
  } catch {
    throw refused("client_key", "'client_key' must be a private key in PEM, without a passphrase.");
  }
}

function refuseMismatch(cert: string | null, key: string | null): void {
  if (cert === null && key !== null) throw refused("client_cert", "A 'client_key' needs its 'client_cert'.");
  if (cert === null) return;
  if (key === null) throw refused("client_key", "A 'client_cert' needs its 'client_key'.");
  if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key)))
    throw refused("client_key", "'client_key' is not the key of the first certificate in 'client_cert'.");
  try {
    createSecureContext({ cert, key });
  } catch {
    throw refused("client_cert", "TLS refuses 'client_cert': its key or its signature is too weak.");
  }
}

function certificatesOf(pem: string | null): CertificateView[] {
  return (pem?.match(CERTIFICATE) ?? []).map((block) => {
    const { subject, validToDate, fingerprint256 } = new X509Certificate(block);
    return { subject: subject.replaceAll("\n", ", "), expires_at: toUnixSeconds(validToDate), fingerprint: fingerprint256 };
  });
}

function certificateOf(block: string): X509Certificate | null {
  try {
    return new X509Certificate(block);
  } catch {
    return null;
  }
}

function refused(param: keyof TransportFields, message: string): Problem {
  return new Problem("invalid_request", { param, message });
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;
/** In one field. */
const MAX_CERTIFICATES = 64;
