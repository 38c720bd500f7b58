import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { type Config, ConfigError, readConfig, SETTINGS, type SettingName } from "./config.ts";

const GOOD_KEY = "k".repeat(32);

/** For every setting: what is taken, and what it becomes; and what is refused. */
const VALUES: {
  readonly [Name in SettingName]: {
    readonly good: readonly (readonly [text: string, value: Config[Name]])[];
    readonly bad: readonly string[];
    /** What must be set as well for a value to be taken. */
    readonly beside?: Readonly<Record<string, string>>;
  };
} = {
  PORT: {
    good: [
      ["0", 0],
      ["65535", 65_535],
    ],
    bad: ["-1", "65536", "80.5", "http", " 80", "0x50", "1e3"],
  },
  HOST: {
    good: [
      ["0.0.0.0", "0.0.0.0"],
      ["::1", "::1"],
      ["localhost", "localhost"],
    ],
    bad: ["example.com", "256.1.1.1", "127.0.0.1:80", "*"],
  },
  TLS_CERT: { good: [["/tls/tls.crt", "/tls/tls.crt"]], bad: ["a\0canary"], beside: { TLS_KEY: "/k" } },
  TLS_KEY: { good: [["tls.key", path.resolve("tls.key")]], bad: ["a\0canary"], beside: { TLS_CERT: "/c" } },
  TRUSTED_PROXIES: {
    good: [
      [
        "10.0.0.0/8, 127.0.0.1",
        [
          { address: "10.0.0.0", prefixLength: 8, family: "ipv4" },
          { address: "127.0.0.1", prefixLength: 32, family: "ipv4" },
        ],
      ],
      ["fd00::/8", [{ address: "fd00::", prefixLength: 8, family: "ipv6" }]],
      ["0.0.0.0/0", [{ address: "0.0.0.0", prefixLength: 0, family: "ipv4" }]],
    ],
    bad: ["canary", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::1/129", "10.0.0.0/8/8", "10.0.0.1,", "fe80::1%eth0", "*", "10.0.0.0/-1"],
  },
  ATRIUM_EGRESS_ALLOW: {
    good: [["10.1.0.0/16", [{ address: "10.1.0.0", prefixLength: 16, family: "ipv4" }]]],
    bad: ["canary", "10.0.0.0/33", "localhost"],
  },
  BASE_PATH: {
    good: [
      ["/", ""],
      ["/ai", "/ai"],
      ["/ai/", "/ai"],
      ["/team-1/v1.0/~ai", "/team-1/v1.0/~ai"],
    ],
    bad: ["ai", "//", "/a//b", "/a b", "/../canary", "/a/.", "/a?canary", "/%2f", "https://canary/ai"],
  },
  PUBLIC_URL: {
    good: [["https://h.example/ai/", "https://h.example/ai"]],
    bad: ["h.example", "ftp://h", "https://h/?canary", "https://h/#x", "https://user:canary@h"],
  },
  ATRIUM_MANAGEMENT_ADDRESS: {
    good: [
      ["127.0.0.1:9000", { host: "127.0.0.1", port: 9_000 }],
      ["[::1]:0", { host: "::1", port: 0 }],
      ["localhost:80", { host: "localhost", port: 80 }],
    ],
    bad: ["9000", ":9000", "127.0.0.1", "127.0.0.1:65536", "::1:9000", "canary:9000", "[127.0.0.1]:1", "http://127.0.0.1:1", "1.2.3.4:"],
  },
  DATABASE_URL: {
    good: [
      ["postgres://u:p@h/db", "postgres://u:p@h/db"],
      ["postgresql://h/db", "postgresql://h/db"],
    ],
    bad: ["mysql://canary@h/db", "canary", "postgres//canary"],
  },
  DATABASE_MIGRATION_URL: { good: [["postgres://h/db", "postgres://h/db"]], bad: ["http://canary"] },
  DATABASE_LISTEN_URL: { good: [["postgres://h/db", "postgres://h/db"]], bad: ["canary"] },
  ATRIUM_DATA_DIR: {
    good: [
      ["/srv/atrium", "/srv/atrium"],
      ["here", path.resolve("here")],
    ],
    bad: ["a\0canary"],
  },
  ATRIUM_MASTER_KEY: {
    good: [
      ["ab".repeat(32), "ab".repeat(32)],
      [`${"A".repeat(43)}=`, `${"A".repeat(43)}=`],
      ["-_".repeat(21) + "A", "-_".repeat(21) + "A"],
    ],
    bad: ["canary", "ab".repeat(31), "zz".repeat(32), `canary!${"A".repeat(37)}`, "A".repeat(44)],
  },
  ATRIUM_BOOTSTRAP_KEY: { good: [[GOOD_KEY, GOOD_KEY]], bad: ["canary", `canary ${GOOD_KEY}`, `canaré${GOOD_KEY}`, "c".repeat(1_025)] },
  ATRIUM_DURABILITY: {
    good: [
      ["process", "process"],
      ["power", "power"],
    ],
    bad: ["Power", "remote", "none"],
  },
  ATRIUM_DEMO_MODEL: { good: [["gpt-x", "gpt-x"]], bad: [" "] },
  OPENAI_API_KEY: { good: [["sk-x", "sk-x"]], bad: [" "] },
  OPENAI_BASE_URL: { good: [["http://h/v1/", "http://h/v1"]], bad: ["h/v1", "ftp://h", "http://"] },
  ATRIUM_MODELS_DIR: { good: [["/models", "/models"]], bad: ["a\0b"] },
  ATRIUM_LOG_LEVEL: {
    good: [
      ["silent", "silent"],
      ["debug", "debug"],
    ],
    bad: ["trace", "INFO", "3"],
  },
  ATRIUM_DRAIN_SECONDS: {
    good: [
      ["0", 0],
      ["3600", 3_600],
    ],
    bad: ["-1", "3601", "30s", "1.5"],
  },
  ATRIUM_STALENESS_SECONDS: {
    good: [
      ["0", 0],
      ["86400", 86_400],
    ],
    bad: ["86401", "forever"],
  },
};

function refusal(environment: Record<string, string>): string {
  try {
    readConfig(environment);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.message;
  }
  return assert.fail(`taken: ${JSON.stringify(environment)}`);
}

test("every setting takes its good values and refuses its bad ones, by name, with what it should look like", () => {
  for (const [name, { good, bad, beside }] of Object.entries(VALUES) as [SettingName, (typeof VALUES)[SettingName]][]) {
    for (const [text, value] of good) assert.deepEqual(readConfig({ ...beside, [name]: text })[name], value, `${name}=${text}`);
    for (const text of bad) {
      const message = refusal({ ...beside, [name]: text });
      assert.ok(message.startsWith(`${name} must `) && message.includes(SETTINGS[name].type), message);
    }
  }
});

test("no refusal quotes what was given, and no secret is anywhere in it", () => {
  for (const [name, { bad }] of Object.entries(VALUES))
    for (const text of bad.filter((each) => each.includes("canary"))) assert.doesNotMatch(refusal({ [name]: text }), /canary/, name);
  assert.doesNotMatch(refusal({ ATRIUM_BOOTSTRAP_KEY: `secret ${GOOD_KEY}`, PORT: "x" }), new RegExp(GOOD_KEY));
});

test("what is unset, or empty as compose files write it, has its default", () => {
  const defaults = readConfig({});
  assert.deepEqual(readConfig(Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, ""]))), defaults);
  for (const [name, { default: text }] of Object.entries(SETTINGS) as [SettingName, (typeof SETTINGS)[SettingName]][]) {
    if (text === null) assert.equal(defaults[name], null, name);
    else assert.deepEqual(defaults[name], readConfig({ [name]: text })[name], name);
  }
  assert.equal(defaults.HOST, "127.0.0.1");
  assert.equal(defaults.PORT, 4000);
});

test("an unknown ATRIUM_ name stops the start with the nearest known one", () => {
  for (const [wrong, nearest] of [
    ["ATRIUM_LOGLEVEL", "ATRIUM_LOG_LEVEL"],
    ["ATRIUM_DATADIR", "ATRIUM_DATA_DIR"],
    ["ATRIUM_MASTERKEY", "ATRIUM_MASTER_KEY"],
    ["ATRIUM_DRAIN_SECOND", "ATRIUM_DRAIN_SECONDS"],
  ] as const) {
    const message = refusal({ [wrong]: "canary" });
    assert.equal(message, `${wrong} is not a setting; did you mean ${nearest}?`);
  }
});

test("what Kubernetes injects and what the tests read is let be, and so is every other name", () => {
  readConfig({
    ATRIUM_TEST_KILLS: "3",
    ATRIUM_SERVICE_HOST: "10.0.0.1",
    ATRIUM_SERVICE_PORT_HTTP: "80",
    ATRIUM_PORT: "tcp://10.0.0.1:80",
    ATRIUM_PORT_4000_TCP_ADDR: "10.0.0.1",
    PATH: "/bin",
    atrium_x: "1",
  });
  assert.match(refusal({ ATRIUM_PORTS: "1" }), /ATRIUM_PORTS is not a setting/);
});

test("a certificate without its key, and a key without its certificate, are refused", () => {
  for (const name of ["TLS_CERT", "TLS_KEY"]) assert.match(refusal({ [name]: "/canary" }), /^TLS_CERT and TLS_KEY must both be set/);
});

test("everything that is wrong is said at once", () => {
  assert.equal(refusal({ PORT: "x", ATRIUM_DURABILITY: "x", ATRIUM_NOPE: "x" }).split("\n").length, 3);
});
