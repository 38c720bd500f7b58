import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

const SRC = path.join(import.meta.dirname, "..", "src");
const FILES = globSync("**/*.ts", { cwd: SRC }).sort();
const PRODUCT = FILES.filter((file) => !file.endsWith(".test.ts") && !file.includes("/testing/"));
const read = (file: string): string => readFileSync(path.join(SRC, file), "utf8");

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

const IMPORT = /(?:^|\n)\s*(?:import|export)(\s+type)?\s[^;]*?from\s+"(\.[^"]+)"/g;
const DYNAMIC = /import\("(\.[^"]+)"\)/g;

function importsOf(file: string): Import[] {
  const text = read(file);
  const target = (specifier: string) => path.posix.normalize(path.posix.join(path.posix.dirname(file), specifier));
  return [
    ...[...text.matchAll(IMPORT)].map((match) => ({
      from: file,
      to: target(match[2] as string),
      typeOnly: match[1] !== undefined || everyNameIsType(match[0]),
    })),
    ...[...text.matchAll(DYNAMIC)].map((match) => ({ from: file, to: target(match[1] as string), typeOnly: false })),
  ];
}

function everyNameIsType(statement: string): boolean {
  const names = /\{([^}]*)\}/
    .exec(statement)?.[1]
    ?.split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  return names !== undefined && names.length > 0 && names.every((name) => name.startsWith("type "));
}

const LAYERS = [
  ["kernel"],
  ["storage", "telemetry", "egress"],
  ["domains"],
  ["pipeline"],
  ["surfaces"],
  ["main.ts", "config.ts", "config.test.ts"],
];
const layerOf = (file: string) => LAYERS.findIndex((names) => names.includes(file.split("/", 1)[0] as string));
const domainOf = (file: string) => /^domains\/([^/]+)\//.exec(file)?.[1];

test("every file belongs to a layer, and imports only leftwards", () => {
  const wrong = PRODUCT.flatMap(importsOf).filter(({ from, to }) => layerOf(to) > layerOf(from) && !(to === "config.ts"));
  assert.deepEqual(wrong, []);
  assert.deepEqual(
    FILES.filter((file) => layerOf(file) === -1),
    [],
  );
});

test("storage, telemetry and egress do not know each other", () => {
  const wrong = FILES.flatMap(importsOf).filter(
    ({ from, to }) => layerOf(from) === 1 && layerOf(to) === 1 && from.split("/", 1)[0] !== to.split("/", 1)[0],
  );
  assert.deepEqual(wrong, []);
});

test("a domain is entered only by its door, and another domain is imported only as types", () => {
  const wrong = PRODUCT.flatMap(importsOf).filter(({ from, to, typeOnly }) => {
    const target = domainOf(to);
    if (target === undefined || target === domainOf(from)) return false;
    const throughDoor = to === `domains/${target}/index.ts`;
    return !throughDoor || (domainOf(from) !== undefined && !typeOnly);
  });
  assert.deepEqual(wrong, []);
});

test("nobody imports main.ts, and config.ts only as types outside main.ts", () => {
  const wrong = PRODUCT.flatMap(importsOf).filter(
    ({ from, to, typeOnly }) =>
      to === "main.ts" || (to === "config.ts" && from !== "main.ts" && !from.startsWith("surfaces/cli/") && !typeOnly),
  );
  assert.deepEqual(wrong, []);
});

/** Where each piece of evidence is minted: nowhere else may a value be cast to it. */
const MINTS = {
  Principal: "domains/identity/authenticate.ts",
  Session: "domains/identity/session.ts",
  Allowed: "domains/identity/allow.ts",
  Tenant: "domains/tenants/resolve.ts",
  Permit: "domains/capacity/limiter.ts",
  CompiledRequest: "pipeline/compile.ts",
  Route: "pipeline/route.ts",
  Slot: "pipeline/place.ts",
  Hold: "domains/metering/hold.ts",
  ProviderResponse: "domains/providers/dispatch.ts",
  MeteredResponse: "domains/metering/meter.ts",
  CheckedResponse: "pipeline/check.ts",
  TenantTransaction: "storage/database/tenant-transaction.ts",
  SystemTransaction: "storage/database/tenant-transaction.ts",
  MasterKey: "storage/secrets/master-key.ts",
  TenantKey: "storage/secrets/tenant-key.ts",
} as const;

test("evidence is minted in one file each", () => {
  for (const [brand, mint] of Object.entries(MINTS)) {
    const cast = new RegExp(`\\bas (?:unknown as )?${brand}\\b`);
    const casting = PRODUCT.filter((file) => cast.test(read(file).replaceAll(IMPORT, "")));
    assert.deepEqual(casting, [mint], `${brand} is minted by ${casting.join(", ") || "nobody"}`);
  }
});

test("a provider is called from one place, and that takes a hold", () => {
  const calling = PRODUCT.filter((file) => /\.dispatch\(/.test(read(file)));
  assert.deepEqual(calling, ["domains/providers/service.ts", "pipeline/dispatch.ts"]);
  assert.match(read("pipeline/dispatch.ts"), /export async function dispatch\(platform: Platform, held: Held\)/);
  // Every endpoint of models is served by the pipeline, and nothing else answers for it.
  const main = read("main.ts");
  assert.match(main, /for \(const \{ path, wire \} of MODEL_ENDPOINTS\) mountCall\(app, path, wire, calls\);/);
  assert.deepEqual(
    PRODUCT.filter((file) => /\bmountCall\(/.test(read(file))),
    ["main.ts", "surfaces/http/calls.ts"],
  );
});

test("no step of the pipeline copies its evidence", () => {
  const spreading = PRODUCT.filter((file) => file.startsWith("pipeline/") && /\.\.\.[\w(]/.test(read(file)));
  assert.deepEqual(spreading, []);
});

test("the two pages of the pipeline fit on a page", () => {
  for (const page of ["pipeline/serve.ts", "pipeline/hop.ts"]) assert.ok(read(page).split("\n").length < 60, page);
});

test("every domain has a door and says what it is", () => {
  for (const domain of readdirSync(path.join(SRC, "domains"))) {
    for (const file of ["index.ts", "README.md"])
      assert.ok(existsSync(path.join(SRC, "domains", domain, file)), `domains/${domain}/${file}`);
  }
});

test("the kernel depends on nothing but Node and the types of schemas", () => {
  const foreign = PRODUCT.filter((file) => file.startsWith("kernel/")).filter((file) =>
    [...read(file).matchAll(/from "([^".][^"]*)"/g)].some((match) => !(match[1] as string).startsWith("node:") && match[1] !== "zod"),
  );
  assert.deepEqual(foreign, []);
});

test("nothing silences the type checker or the linter", () => {
  const escapes = /@ts-(?:ignore|nocheck)|(?:eslint|oxlint)-disable/;
  const wrong = FILES.filter((file) => escapes.test(read(file)));
  assert.deepEqual(wrong, []);
});
