import { isIP } from "node:net";
import path from "node:path";
import type { Network } from "./egress/index.ts";

export type { Network } from "./egress/index.ts";

/** A setting: read once at start from the environment variable of its name. The reference page is generated from this. */
interface Setting<Value> {
  /** Shown in the reference: what a value looks like, with its bounds. */
  readonly type: string;
  /** As it would be written in the environment; null when unset means something of its own, which `describe` says. */
  readonly default: string | null;
  readonly describe: string;
  /** Parses a value; a string result is the reason why it is refused. */
  readonly parse: (text: string) => Parsed<Value>;
  /** Never printed, not even in an error. */
  readonly secret?: true;
}

type Parsed<Value> = { readonly value: Value } | { readonly reason: string };

export const SETTINGS = {
  PORT: setting({ type: "0–65535 (0: any free port)", default: "4000", describe: "The port to listen on.", parse: integer(0, 65_535) }),
  HOST: setting({
    type: "address",
    default: "127.0.0.1",
    describe: "The address to listen on. Only this machine reaches the default; containers set 0.0.0.0.",
    parse: address,
  }),
  TLS_CERT: setting({
    type: "file, PEM",
    default: null,
    describe: "The certificate, with its chain. With TLS_KEY: HTTPS with HTTP/2 and HTTP/1.1. A renewed file is used without a restart.",
    parse: pathname,
  }),
  TLS_KEY: setting({
    type: "file, PEM",
    default: null,
    describe: "The certificate's private key, without a passphrase. Re-read together with TLS_CERT.",
    parse: pathname,
  }),
  TRUSTED_PROXIES: setting({
    type: "addresses or CIDRs, separated by commas",
    default: null,
    describe:
      "The proxies in front. From these alone `x-forwarded-for` counts: the right-most address that is none of them is the client's in records and logs.",
    parse: networks,
  }),
  BASE_PATH: setting({
    type: "path, such as /ai",
    default: "/",
    describe: "Every route is below it; /livez and /readyz are at the root as well, where probes that go past the proxy look.",
    parse: basePath,
  }),
  PUBLIC_URL: setting({
    type: "http(s):// URL",
    default: null,
    describe:
      "Where callers reach this server, the proxy's path included: for links and sign-in. Unset: the address it listens on, and BASE_PATH.",
    parse: linkUrl,
  }),
  ATRIUM_MANAGEMENT_ADDRESS: setting({
    type: "address:port",
    default: null,
    describe: "Where /admin/v1, /console and /metrics are, and only there. Unset: beside everything else. With TLS_CERT it is HTTPS too.",
    parse: addressAndPort,
  }),
  DATABASE_URL: setting({
    type: "postgres:// URL",
    default: null,
    describe: "PostgreSQL 15 or newer. Unset: an embedded PostgreSQL in the data directory. Needs ATRIUM_MASTER_KEY.",
    parse: postgresUrl,
    secret: true,
  }),
  DATABASE_MIGRATION_URL: setting({
    type: "postgres:// URL",
    default: null,
    describe: "The database's owner, for migrations, where DATABASE_URL is not the owner's.",
    parse: postgresUrl,
    secret: true,
  }),
  DATABASE_LISTEN_URL: setting({
    type: "postgres:// URL",
    default: null,
    describe: "A direct connection for LISTEN, where DATABASE_URL is a transaction pooler's.",
    parse: postgresUrl,
    secret: true,
  }),
  ATRIUM_DATA_DIR: setting({
    type: "directory",
    default: "./data",
    describe: "Where the embedded database, the journal, the master key and the first admin key live.",
    parse: pathname,
  }),
  ATRIUM_MASTER_KEY: setting({
    type: "32 bytes, base64 or hex",
    default: null,
    describe:
      "The root of all secrets. Unset with the embedded database: generated once into master.key (0600) in the data directory. Keep a copy apart from backups: without it nothing sealed opens again.",
    parse: masterKey,
    secret: true,
  }),
  ATRIUM_BOOTSTRAP_KEY: setting({
    type: "32–1024 visible ASCII characters",
    default: null,
    describe: "A platform-admin key of this value exists while the variable holds it: for automation.",
    parse: visible(32, 1024),
    secret: true,
  }),
  ATRIUM_DURABILITY: setting({
    type: "process | power",
    default: "power",
    describe: "What a journalled record survives before the upstream sees a byte: a killed process, or a power loss as well.",
    parse: oneOf("process", "power"),
  }),
  ATRIUM_DEMO_MODEL: setting({
    type: "upstream model id or *.gguf",
    default: null,
    describe: "At first start, gives the demo tenant this real model too: an upstream model id (with OPENAI_API_KEY), or a GGUF file.",
    parse: nonEmpty,
  }),
  OPENAI_API_KEY: setting({
    type: "secret",
    default: null,
    describe: "The credential of ATRIUM_DEMO_MODEL when it is an upstream model id. Read at first start only, and stored sealed.",
    parse: nonEmpty,
    secret: true,
  }),
  OPENAI_BASE_URL: setting({
    type: "http(s):// URL, including /v1",
    default: "https://api.openai.com/v1",
    describe: "The upstream of ATRIUM_DEMO_MODEL when it is an upstream model id. Read at first start only.",
    parse: httpUrl,
  }),
  ATRIUM_EGRESS_ALLOW: setting({
    type: "addresses or CIDRs, separated by commas",
    default: null,
    describe:
      "Networks of your own that URLs of tenants (webhooks, identity providers) may lead to, over http as well. All others must be public, and https.",
    parse: networks,
  }),
  ATRIUM_MODELS_DIR: setting({
    type: "directory",
    default: null,
    describe: "The only folder GGUF files are opened from. Unset: `models` in the data directory.",
    parse: pathname,
  }),
  ATRIUM_LOG_LEVEL: setting({
    type: "silent | error | warn | info | debug",
    default: null,
    describe: "Logs go to standard error, one JSON line each; `info` has one line a call. Unset: `info`, and `warn` on a terminal.",
    parse: oneOf("silent", "error", "warn", "info", "debug"),
  }),
  ATRIUM_DRAIN_SECONDS: setting({
    type: "0–3600",
    default: "30",
    describe: "How long calls in flight may take to end after SIGTERM before they are aborted with a retryable error.",
    parse: integer(0, 3_600),
  }),
  ATRIUM_STALENESS_SECONDS: setting({
    type: "0–86400",
    default: "900",
    describe: "How long known keys are served while the database cannot be reached; after that /readyz answers 503 and calls are refused.",
    parse: integer(0, 86_400),
  }),
} as const;

export type SettingName = keyof typeof SETTINGS;
type ValueOf<S> = S extends Setting<infer Value> ? Value : never;

/** Every setting's value; null where it is unset and has no default. */
export type Config = {
  readonly [Name in SettingName]: ValueOf<(typeof SETTINGS)[Name]> | ((typeof SETTINGS)[Name] extends { default: null } ? null : never);
};

/** The start stops with this: one sentence per wrong setting, saying what to write instead. Values are never quoted. */
export class ConfigError extends Error {
  constructor(problems: readonly string[]) {
    super(problems.join("\n"));
    this.name = "ConfigError";
  }
}

/** @throws ConfigError naming every wrong or unknown setting at once */
export function readConfig(environment: Readonly<Record<string, string | undefined>>): Config {
  const problems = unknownNames(environment);
  const config: Record<string, unknown> = {};
  for (const [name, each] of Object.entries(SETTINGS) as [SettingName, Setting<unknown>][]) {
    const text = environment[name] === undefined || environment[name] === "" ? each.default : environment[name];
    if (text === null) {
      config[name] = null;
      continue;
    }
    const parsed = each.parse(text);
    if ("reason" in parsed) problems.push(`${name} ${parsed.reason} (${each.type}).`);
    else config[name] = parsed.value;
  }
  if ((config["TLS_CERT"] === null) !== (config["TLS_KEY"] === null))
    problems.push("TLS_CERT and TLS_KEY must both be set, or neither (file, PEM).");
  if (problems.length > 0) throw new ConfigError(problems);
  return config as Config;
}

/** Where the database is, as `openDatabase` takes it. */
export function databaseSettings(config: Config) {
  return {
    dataDirectory: config.ATRIUM_DATA_DIR,
    databaseUrl: config.DATABASE_URL ?? undefined,
    migrationUrl: config.DATABASE_MIGRATION_URL ?? undefined,
    listenUrl: config.DATABASE_LISTEN_URL ?? undefined,
  };
}

/** What Kubernetes injects for a Service named `atrium`, what the project's own tests read, and what the commands that call a server do. */
const FOREIGN = /^ATRIUM_(TEST_|SERVICE_|PORT($|_)|URL$|ADMIN_KEY$)/;

function unknownNames(environment: Readonly<Record<string, string | undefined>>): string[] {
  return Object.keys(environment)
    .filter((name) => name.startsWith("ATRIUM_") && !(name in SETTINGS) && !FOREIGN.test(name))
    .map((name) => `${name} is not a setting; did you mean ${nearest(name)}?`);
}

function nearest(name: string): string {
  const distances = Object.keys(SETTINGS).map((known) => ({ known, distance: editDistance(name, known) }));
  return distances.reduce((best, each) => (each.distance < best.distance ? each : best)).known;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (previous[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substituted, (previous[j] as number) + 1, (current[j - 1] as number) + 1));
    }
    previous = current;
  }
  return previous[b.length] as number;
}

function setting<const S extends Setting<unknown>>(definition: S): S {
  return definition;
}

function integer(least: number, most: number) {
  return (text: string): Parsed<number> => {
    const value = Number(text);
    return /^\d+$/.test(text) && value >= least && value <= most
      ? { value }
      : { reason: `must be a whole number from ${least} to ${most}` };
  };
}

function oneOf<const Word extends string>(...words: readonly Word[]) {
  return (text: string): Parsed<Word> => {
    const value = words.find((word) => word === text);
    return value === undefined ? { reason: `must be one of ${words.join(", ")}` } : { value };
  };
}

/** What an `Authorization` header can carry as a token. */
function visible(least: number, most: number) {
  return (text: string): Parsed<string> =>
    text.length >= least && text.length <= most && /^[\x21-\x7e]+$/.test(text)
      ? { value: text }
      : { reason: `must have ${least} to ${most} characters, without spaces` };
}

function nonEmpty(text: string): Parsed<string> {
  return text.trim() === "" ? { reason: "must not be blank" } : { value: text.trim() };
}

function address(text: string): Parsed<string> {
  return isIP(text) !== 0 || text === "localhost" ? { value: text } : { reason: "must be an IP address or localhost" };
}

/** The default, `/`, becomes the empty text: what is put before a path. */
function basePath(text: string): Parsed<string> {
  const trimmed = text.replace(/\/$/, "");
  return /^(?:\/(?!\.\.?(?:\/|$))[A-Za-z0-9._~-]+)*$/.test(trimmed)
    ? { value: trimmed }
    : { reason: "must begin with a slash and have letters, digits, '.', '_', '~' and '-' between slashes" };
}

function addressAndPort(text: string): Parsed<{ readonly host: string; readonly port: number }> {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain ?? "";
  const port = Number(digits);
  const known = bracketed === undefined ? isIP(host) === 4 || host === "localhost" : isIP(host) === 6;
  return known && port <= 65_535
    ? { value: { host, port } }
    : { reason: "must be an IP address (IPv6 in brackets) or localhost, a colon and a port" };
}

function networks(text: string): Parsed<readonly Network[]> {
  const found = text.split(",").map((each) => networkOf(each.trim()));
  return found.length <= MAX_NETWORKS && found.every((each) => each !== null)
    ? { value: found }
    : { reason: `must list at most ${MAX_NETWORKS} IP addresses or CIDRs, such as 10.0.0.0/8, ::1` };
}

/** Of proxies, the longest list that is published (a content network's) has some dozens. */
const MAX_NETWORKS = 1_000;

function networkOf(text: string): Network | null {
  const [address = "", length, ...rest] = text.split("/");
  const version = isIP(address);
  if (version === 0 || address.includes("%") || rest.length > 0) return null;
  const bits = version === 4 ? 32 : 128;
  if (length !== undefined && (!/^\d{1,3}$/.test(length) || Number(length) > bits)) return null;
  return { address, prefixLength: length === undefined ? bits : Number(length), family: version === 4 ? "ipv4" : "ipv6" };
}

function pathname(text: string): Parsed<string> {
  return text.includes("\0") ? { reason: "must be a path" } : { value: path.resolve(text) };
}

function postgresUrl(text: string): Parsed<string> {
  return /^postgres(ql)?:\/\//.test(text) && URL.canParse(text) ? { value: text } : { reason: "must be a postgres:// URL" };
}

function httpUrl(text: string): Parsed<string> {
  return /^https?:\/\//.test(text) && URL.canParse(text)
    ? { value: text.replace(/\/+$/, "") }
    : { reason: "must be an http:// or https:// URL" };
}

/** A URL that paths are appended to. */
function linkUrl(text: string): Parsed<string> {
  const parsed = httpUrl(text);
  return "reason" in parsed || !/[?#@\s]/.test(text)
    ? parsed
    : { reason: "must be an http:// or https:// URL without user, query and fragment" };
}

function masterKey(text: string): Parsed<string> {
  return /^(?:[0-9a-fA-F]{64}|[0-9A-Za-z+/_-]{43}=?)$/.test(text.trim())
    ? { value: text }
    : { reason: "must be exactly 32 bytes; `openssl rand -base64 32` makes one" };
}
