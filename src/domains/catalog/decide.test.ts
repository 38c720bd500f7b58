import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type ModelId, PLATFORM_TENANT, type PriceVersion, type TenantId } from "../../kernel/ids.ts";
import { faultOfCredential, faultOfDeployment, faultOfKeptPrice, findModel, listModels, parseBaseUrl, parseOptions } from "./decide.ts";
import type { CatalogPart, Model } from "./model.ts";
import { decidePrice, PRICED_CLASSES, ratesFromRow, ratesToRow, samePrice, statedPrice, tiersFromRow, tiersToRow } from "./price.ts";

const TENANT = "01890000-0000-7000-8000-00000000000a" as TenantId;
const vendor = {
  id: "vendor",
  nature: "vendor",
  defaultBaseUrl: "https://vendor.example/v1",
  secretField: "api_key",
  freeByDefault: false,
} as const;
const engine = { id: "engine", nature: "engine", defaultBaseUrl: null, secretField: "api_key", freeByDefault: false } as const;
const inside = { id: "inside", nature: "inside", defaultBaseUrl: null, secretField: null, freeByDefault: true } as const;

test("a base URL is http or https, without user, query or fragment", () => {
  assert.equal(parseBaseUrl("https://api.example.com/v1/"), "https://api.example.com/v1");
  assert.equal(parseBaseUrl("http://127.0.0.1:8000/v1"), "http://127.0.0.1:8000/v1");
  for (const url of [
    "",
    "example.com/v1",
    "ftp://a/v1",
    "file:///etc/passwd",
    "https://u:p@a/v1",
    "https://u@a/v1",
    "https://a/v1?key=1",
    "https://a/v1#f",
    "https://a/ v1",
    "javascript:1",
    "https://",
  ]) {
    assert.equal(parseBaseUrl(url), null, url);
  }
});

test("which credentials are refused, and at which field", () => {
  const cases: readonly [
    typeof vendor | typeof engine | typeof inside,
    string | null,
    boolean,
    string | undefined,
    ("ca" | "client_cert")?,
  ][] = [
    [vendor, null, true, undefined],
    [vendor, null, true, undefined, "ca"],
    [vendor, "http://127.0.0.1:1/v1", true, "ca", "ca"],
    [engine, "http://127.0.0.1:1/v1", true, "client_cert", "client_cert"],
    [engine, "https://127.0.0.1:1/v1", true, undefined, "client_cert"],
    [vendor, null, false, "api_key"],
    [vendor, "https://vendor.example/v1", false, "api_key"],
    [vendor, "http://127.0.0.1:1/v1", false, undefined],
    [engine, "http://127.0.0.1:1/v1", false, undefined],
    [engine, null, true, "base_url"],
    [inside, null, false, "provider"],
  ];
  for (const [provider, baseUrl, hasSecret, param, tlsField = null] of cases) {
    assert.equal(faultOfCredential(provider, { baseUrl, hasSecret, tlsField })?.param, param, `${provider.id} ${baseUrl} ${hasSecret}`);
  }
});

test("which deployments are refused, and at which field", () => {
  const good = { owner: PLATFORM_TENANT, credentialProvider: "vendor", upstreamModel: "m", priced: true };
  const cases: readonly [typeof vendor | typeof inside, Partial<typeof good> | { credentialProvider: null }, string | undefined][] = [
    [vendor, {}, undefined],
    [vendor, { upstreamModel: "" }, "upstream_model"],
    [vendor, { credentialProvider: null }, "credential"],
    [vendor, { credentialProvider: "engine" }, "credential"],
    [vendor, { priced: false }, "price"],
    [inside, { credentialProvider: null }, undefined],
    [inside, { credentialProvider: "vendor" }, "credential"],
  ];
  for (const [provider, change, param] of cases)
    assert.equal(faultOfDeployment(provider, { ...good, ...change })?.param, param, `${provider.id} ${JSON.stringify(change)}`);
  const local = { ...inside, id: "local" };
  assert.equal(faultOfDeployment(local, { ...good, credentialProvider: null, owner: TENANT })?.param, "provider");
});

test("a provider without options takes none, by name", () => {
  assert.deepEqual(parseOptions(vendor, {}), { options: {} });
  assert.equal(
    "param" in parseOptions(vendor, { seed: 1 }) && (parseOptions(vendor, { seed: 1 }) as { param: string }).param,
    "options.seed",
  );
});

const millionths = fc.bigInt({ min: 0n, max: 10n ** 15n });
const asDecimal = (millionth: bigint) => `${millionth / 1_000_000n}.${(millionth % 1_000_000n).toString().padStart(6, "0")}`;
const stated = fc.dictionary(fc.constantFrom(...Object.keys(PRICED_CLASSES)), millionths, { minKeys: 1 });

test("a stated price is exact to the pico-dollar, and survives storage and answer", () => {
  fc.assert(
    fc.property(stated, fc.option(stated), (prices, longer) => {
      const texts = (millionths: typeof prices) =>
        Object.fromEntries(Object.entries(millionths).map(([name, millionth]) => [name, asDecimal(millionth)]));
      const decision = decidePrice({
        ...texts(prices),
        ...(longer === null ? {} : { tiers: [{ above_input_tokens: 1_000, ...texts(longer) }] }),
      });
      assert.ok(decision.kind === "priced");
      // One USD per million tokens is one million pico-dollars a token, so a millionth of it is one pico-dollar.
      for (const [name, millionth] of Object.entries(prices))
        assert.equal(decision.rates[PRICED_CLASSES[name as keyof typeof PRICED_CLASSES]], millionth);
      const stored = {
        source: decision.source,
        rates: ratesFromRow(JSON.parse(JSON.stringify(ratesToRow(decision.rates))) as Record<string, string>),
        ...tiersFromRow(JSON.parse(JSON.stringify(tiersToRow(decision.tiers))) as ReturnType<typeof tiersToRow>),
      };
      assert.ok(samePrice(stored, decision));
      const restated = statedPrice(stored);
      const again = decidePrice(restated === "dataset" ? "free" : restated);
      assert.ok(again.kind === "priced" && samePrice(again, decision));
    }),
  );
});

test("a price that cannot be exact, is negative, is no number or names no class is refused by its field", () => {
  for (const text of ["0.0000001", "-1", "1e3", "", " 1", "1,5", ".5", "0x1", "NaN", "٣"]) {
    const decision = decidePrice({ input: text });
    assert.equal(decision.kind === "fault" && decision.param, "price.input", text);
  }
  assert.equal(decidePrice({}).kind, "fault");
  const tiers = (...starts: readonly number[]) =>
    decidePrice({ input: "1", tiers: starts.map((above_input_tokens) => ({ above_input_tokens, input: "2" })) });
  assert.equal(tiers(1, 2).kind, "priced");
  for (const starts of [
    [2, 1],
    [2, 2],
  ]) {
    const decision = tiers(...starts);
    assert.equal(decision.kind === "fault" && decision.param, "price.tiers.1.above_input_tokens");
  }
  const unnamed = decidePrice({ input: "1", tiers: [{ above_input_tokens: 1 }] });
  assert.equal(unnamed.kind === "fault" && unnamed.param, "price.tiers.0");
});

test("a deployment that moves keeps a stated price, and no price that was the dataset's or a default", () => {
  const cases: readonly [typeof vendor | typeof inside, string, "stated" | "free" | "dataset", boolean][] = [
    [inside, "m", "free", true],
    [inside, "other", "free", true],
    [vendor, "m", "free", false],
    [vendor, "m", "stated", true],
    [inside, "other", "stated", true],
    [inside, "m", "dataset", true],
    [inside, "other", "dataset", false],
    [vendor, "m", "dataset", false],
  ];
  for (const [provider, upstreamModel, source, kept] of cases) {
    const fault = faultOfKeptPrice({ provider: "inside", upstream_model: "m" }, { provider, upstreamModel }, [
      { from: 0, price: { version: "v" as PriceVersion, source, rates: {} } },
    ]);
    assert.equal(fault?.param, kept ? undefined : "price", `${provider.id} ${upstreamModel} ${source}`);
  }
});

test("a tier says what it changes; what it leaves out costs what it costs below", () => {
  const decision = decidePrice({
    input: "1",
    output: "2",
    tiers: [
      { above_input_tokens: 10, output: "3" },
      { above_input_tokens: 20, input: "4" },
    ],
  });
  assert.deepEqual(decision.kind === "priced" && decision.tiers, [
    { above: 10, rates: { input_uncached: 1_000_000n, output: 3_000_000n } },
    { above: 20, rates: { input_uncached: 4_000_000n, output: 3_000_000n } },
  ]);
});

test("own models first, then those visible to all or granted; the key's list narrows both", () => {
  const model = (name: string, id: string, owner: TenantId, visibility: "granted" | "all" = "granted"): Model => ({
    id: id as ModelId,
    owner,
    name,
    visibility,
    capabilities: [],
    contextWindow: 1,
    maxOutputTokens: null,
    createdAt: 0,
    deployments: [],
  });
  const part = (models: readonly Model[], grants: readonly string[] = []): CatalogPart => ({
    models: new Map(models.map((each) => [each.name, each])),
    grants: new Set(grants as ModelId[]),
  });
  const platform = part([
    model("public", "1", PLATFORM_TENANT, "all"),
    model("granted", "2", PLATFORM_TENANT),
    model("hidden", "3", PLATFORM_TENANT),
    model("both", "4", PLATFORM_TENANT, "all"),
  ]);
  const own = part([model("both", "5", TENANT), model("mine", "6", TENANT)], ["2"]);
  const found = (name: string, list: ReadonlySet<string> | null = null) => findModel(own, platform, list, name)?.id;
  assert.deepEqual(
    ["public", "granted", "hidden", "both", "mine", "none"].map((name) => found(name)),
    ["1", "2", undefined, "5", "6", undefined],
  );
  assert.equal(found("public", new Set(["mine"])), undefined);
  assert.equal(findModel(undefined, platform, null, "granted"), undefined);
  assert.deepEqual(
    listModels(own, platform, null).map((each) => each.name),
    ["public", "granted", "both", "mine"],
  );
  assert.deepEqual(
    listModels(own, platform, new Set(["mine", "hidden"])).map((each) => each.name),
    ["mine"],
  );
});
