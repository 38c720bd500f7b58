import assert from "node:assert/strict";
import { test } from "node:test";
import { PLATFORM_TENANT } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { type Configuration, openConfiguration } from "../../../test/support/configuration.ts";
import { silentLog, withDatabases } from "../../../test/support/postgres.ts";
import { DATASET } from "./dataset.ts";
import { priceAt } from "./decide.ts";

const SECRET = "sk-upstream-canary-0123456789";
const credential = { params: { credential: "account" }, body: { provider: "vendor", api_key: SECRET } };
const at = { model: "chat", deployment: "main" };

function problem(code: Problem["code"], param: string | null = null) {
  return (error: unknown) => {
    assert.ok(error instanceof Problem, String(error));
    assert.deepEqual([error.code, error.param], [code, param]);
    return true;
  };
}

function deploymentOf(configuration: Configuration, model: string) {
  return configuration.snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog.models.get(model)?.deployments[0];
}

/** What an attempt admitted at `time` is charged by. */
function chargedAt(configuration: Configuration, time: number) {
  return priceAt(deploymentOf(configuration, "chat")?.prices ?? [], time);
}

test("a secret goes in, reaches the deployment, and comes out nowhere else", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act } = configuration;
    const admin = await configuration.admin();
    const made = await act(admin, "credentials.put", credential);
    assert.equal(made.body["has_secret"], true);
    await act(admin, "models.put", { params: { model: "chat" } });
    await act(admin, "deployments.put", {
      params: at,
      body: { provider: "vendor", credential: "account", upstream_model: "gpt", price: "free" },
    });
    assert.equal(deploymentOf(configuration, "chat")?.credential?.secret, SECRET);

    const kept = await act(admin, "credentials.put", { params: credential.params, body: { base_url: "http://127.0.0.1:9/v1/" } });
    assert.deepEqual([kept.body["has_secret"], kept.body["base_url"]], [true, "http://127.0.0.1:9/v1"]);
    assert.equal(deploymentOf(configuration, "chat")?.credential?.secret, SECRET, "omitted, it stays");
    assert.equal(deploymentOf(configuration, "chat")?.credential?.baseUrl, "http://127.0.0.1:9/v1");
    await act(admin, "credentials.put", { params: credential.params, body: { api_key: "sk-second" } });
    assert.equal(deploymentOf(configuration, "chat")?.credential?.secret, "sk-second");
    await act(admin, "credentials.put", { params: credential.params, body: { api_key: null } });
    assert.equal(deploymentOf(configuration, "chat")?.credential?.secret, null);

    const answers = [made, kept, await act(admin, "credentials.get", { params: credential.params }), await act(admin, "credentials.list")];
    assert.equal(JSON.stringify(answers).includes("sk-"), false);
    await act(admin, "credentials.put", credential);
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT credentials::text FROM credentials");
      assert.equal(JSON.stringify(rows).includes(Buffer.from(SECRET).toString("hex")), false);
    });
  }));

test("a sealed secret moved to another credential does not open: its deployment stays as it was, and holds back nothing else", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act } = configuration;
    const admin = await configuration.admin();
    await act(admin, "credentials.put", credential);
    await act(admin, "credentials.put", { params: { credential: "other" }, body: { provider: "vendor", api_key: "sk-other" } });
    await act(admin, "models.put", { params: { model: "chat" } });
    await act(admin, "deployments.put", {
      params: at,
      body: { provider: "vendor", credential: "other", upstream_model: "gpt", price: "free" },
    });
    await database.asSuperuser((client) =>
      client.query("UPDATE credentials AS c SET secret_sealed = o.secret_sealed FROM credentials AS o WHERE o.id <> c.id"),
    );
    await act(admin, "models.put", { params: { model: "later" } });
    assert.equal(deploymentOf(configuration, "chat")?.credential?.secret, "sk-other");
    assert.equal(configuration.snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog.models.has("later"), true);
  }));

test("a deployment that this version cannot serve is left out at a start, and holds back neither the platform's keys nor its other models", (t) =>
  withDatabases(t, async (database, t) => {
    const before = await openConfiguration(t, await database.open());
    const admin = await before.admin();
    await before.act(admin, "models.put", { params: { model: "chat" } });
    for (const deployment of ["newer", "options", "main"])
      await before.act(admin, "deployments.put", { params: { ...at, deployment }, body: { provider: "inside", upstream_model: "m" } });
    await database.asSuperuser(async (client) => {
      await client.query("UPDATE deployments SET provider = 'of-a-newer-version' WHERE position = 0");
      await client.query(`UPDATE deployments SET options = '{"of_a_newer_version": 1}' WHERE position = 1`);
    });
    const faults: string[] = [];
    const log = { ...silentLog, error: (fields: object) => void faults.push(JSON.stringify(fields)) };
    const after = await openConfiguration(t, await database.open(), { log });
    const models = after.snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog.models;
    assert.deepEqual(
      models?.get("chat")?.deployments.map((deployment) => deployment.name),
      ["main"],
    );
    assert.equal(faults.length, 2, "each is said");
    await after.act(await after.admin(), "models.put", { params: { model: "other" } });
  }));

test("a grant names the model that bears the name now, also where another process has made it anew", (t) =>
  withDatabases(t, async (database, t) => {
    const one = await openConfiguration(t, await database.open());
    const other = await openConfiguration(t, await database.open(), { pollMs: 3_600_000 });
    const admin = await one.admin();
    await one.act(admin, "tenants.put", { params: { tenant: "acme" } });
    await one.act(admin, "models.put", { params: { model: "chat" } });
    await other.snapshot.refresh();
    await database.asSuperuser((client) =>
      client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"),
    );
    await one.act(admin, "models.delete", { params: { model: "chat" } });
    const remade = await one.act(admin, "models.put", { params: { model: "chat" } });
    const grant = await other.act(admin, "grants.put", { params: { tenant: "acme", model: "chat" } });
    assert.equal(grant.body["id"], remade.body["id"]);
  }));

test("credentials and deployments that could not work are refused by field", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    const credentialCases: readonly [Record<string, unknown>, string][] = [
      [{}, "provider"],
      [{ provider: "nobody" }, "provider"],
      [{ provider: "inside" }, "provider"],
      [{ provider: "vendor" }, "api_key"],
      [{ provider: "engine" }, "base_url"],
      [{ provider: "vendor", api_key: "k", base_url: "ftp://a" }, "base_url"],
      [{ provider: "vendor", api_key: "sk-from-a-file\n" }, "api_key"],
      [{ provider: "vendor", api_key: "sk-\u2014" }, "api_key"],
    ];
    for (const [body, param] of credentialCases)
      await assert.rejects(act(admin, "credentials.put", { params: { credential: "x" }, body }), problem("invalid_request", param));
    await act(admin, "credentials.put", credential);
    await assert.rejects(
      act(admin, "credentials.put", { params: credential.params, body: { provider: "engine", base_url: "http://a/v1" } }),
      problem("conflict", "provider"),
    );

    await act(admin, "models.put", { params: { model: "chat" } });
    const good = { provider: "vendor", credential: "account", upstream_model: "gpt", price: { input: "1", output: "2" } };
    const deploymentCases: readonly [Record<string, unknown>, string][] = [
      [{ ...good, provider: undefined }, "provider"],
      [{ ...good, upstream_model: undefined }, "upstream_model"],
      [{ ...good, upstream_model: undefined, price: "dataset" }, "upstream_model"],
      [{ ...good, credential: undefined }, "credential"],
      [{ ...good, credential: "absent" }, "credential"],
      [{ ...good, price: undefined }, "price"],
      [{ ...good, price: { input: "0.0000001" } }, "price.input"],
      [{ ...good, options: { delay_ms: 1 } }, "options.delay_ms"],
      [{ provider: "inside", upstream_model: "m", options: { delay_ms: -1 } }, "options.delay_ms"],
      [{ provider: "inside", upstream_model: "m", options: { nonsense: 1 } }, "options.nonsense"],
    ];
    for (const [body, param] of deploymentCases)
      await assert.rejects(act(admin, "deployments.put", { params: at, body }), problem("invalid_request", param), param);
    await assert.rejects(act(admin, "deployments.put", { params: at, body: { ...good, price: undefined } }), /"dataset".*"input".*"free"/);
    await assert.rejects(act(admin, "deployments.put", { params: at, body: { ...good, price: "dataset" } }), /no prices of 'vendor'/);
    await assert.rejects(act(admin, "deployments.put", { params: { ...at, model: "absent" }, body: good }), problem("not_found"));
    await act(admin, "deployments.put", { params: at, body: good });
    await assert.rejects(act(admin, "credentials.delete", { params: credential.params }), problem("conflict"));
    await act(admin, "models.delete", { params: { model: "chat" } });
    await act(admin, "credentials.delete", { params: credential.params });
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT count(*)::int AS sealed FROM credentials WHERE secret_sealed IS NOT NULL");
      assert.deepEqual(rows, [{ sealed: 0 }], "an archived credential has no secret");
    });
  }));

test("a changed price is a new version, later than the one before; an unchanged one is none; a clock that goes back changes nothing", (t) =>
  withDatabases(t, async (database, t) => {
    let now = Date.now();
    const configuration = await openConfiguration(t, await database.open(), {
      clock: { now: () => now, monotonic: () => performance.now() },
    });
    const { act } = configuration;
    const admin = await configuration.admin();
    await act(admin, "models.put", { params: { model: "chat" } });
    const put = async (price: unknown) => {
      const { body } = await act(admin, "deployments.put", { params: at, body: { provider: "inside", upstream_model: "m", price } });
      assert.equal(chargedAt(configuration, now).version, body["price_version"]);
      return body;
    };
    const first = await put({ input: "0.15", output: "0.60", cache_read: "0.075" });
    assert.deepEqual(first["price"], { input: "0.15", output: "0.6", cache_read: "0.075" });
    assert.deepEqual(chargedAt(configuration, now).rates, { input_uncached: 150_000n, output: 600_000n, cache_read: 75_000n });
    assert.equal((await put({ input: "0.150", output: "0.6", cache_read: "0.075" }))["price_version"], first["price_version"]);
    assert.equal((await put(undefined))["price_version"], first["price_version"]);
    now -= 3_600_000;
    const second = await put({ input: "1" });
    assert.notEqual(second["price_version"], first["price_version"]);
    assert.deepEqual(second["price"], { input: "1" });
    assert.equal((await put({ input: "1" }))["price_version"], second["price_version"], "in force, though by this clock it is to come");
    assert.equal((await put(null))["price"], "free", "null clears: this provider is free by default");
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT source, rates FROM prices ORDER BY created_at");
      assert.deepEqual(rows, [
        { source: "stated", rates: { input_uncached: "150000", output: "600000", cache_read: "75000" } },
        { source: "stated", rates: { input_uncached: "1000000" } },
        { source: "free", rates: {} },
      ]);
    });
  }));

test("price 'dataset' is the published price, with its source; what its package says later re-prices nothing until it is asked for again", (t) =>
  withDatabases(t, async (database, t) => {
    const connection = await database.open();
    const configuration = await openConfiguration(t, connection);
    const { act } = configuration;
    const admin = await configuration.admin();
    await act(admin, "credentials.put", { params: credential.params, body: { provider: "openai", api_key: "sk-k" } });
    await act(admin, "models.put", { params: { model: "chat" } });
    const body = { provider: "openai", credential: "account", upstream_model: "gpt-5.4", price: "dataset" };
    const made = await act(admin, "deployments.put", { params: at, body });
    const details = made.body["price_details"] as Record<string, unknown>;
    assert.equal(made.body["price"], "dataset");
    assert.deepEqual(details["rates"], { input: "2.5", output: "15", cache_read: "0.25" });
    assert.deepEqual(details["tiers"], [{ above_input_tokens: 271_999, rates: { input: "5", output: "22.5", cache_read: "0.5" } }]);
    const origin = {
      version: DATASET.version,
      published: DATASET.published,
      provider: "openai",
      model: "gpt-5.4",
      since: null,
      dearest_of_day: false,
    };
    assert.deepEqual(details["dataset"], origin);
    assert.equal(
      (await act(admin, "deployments.put", { params: at, body })).body["price_version"],
      made.body["price_version"],
      "asked for again, unchanged",
    );

    await database.asSuperuser((client) =>
      client.query(`UPDATE prices SET rates = '{"input_uncached": "7"}', dataset = dataset || '{"version": "0.0.1"}'`),
    );
    const upgraded = await openConfiguration(t, connection);
    const later = await upgraded.act(admin, "deployments.put", { params: at, body: { region: "eu" } });
    assert.equal(later.body["price_version"], made.body["price_version"]);
    assert.equal(chargedAt(upgraded, Date.now()).rates.input_uncached, 7n);
    const read = await upgraded.act(admin, "deployments.get", { params: at });
    assert.equal(((read.body["price_details"] as typeof details)["dataset"] as typeof origin).version, "0.0.1");
    const asked = await upgraded.act(admin, "deployments.put", { params: at, body: { price: "dataset" } });
    assert.notEqual(asked.body["price_version"], made.body["price_version"]);
    assert.deepEqual((asked.body["price_details"] as typeof details)["dataset"], origin);
    assert.equal(chargedAt(upgraded, Date.now()).rates.input_uncached, 2_500_000n);

    await assert.rejects(
      act(admin, "deployments.put", { params: at, body: { upstream_model: "gpt-4.1" } }),
      problem("invalid_request", "price"),
    );
    await assert.rejects(
      act(admin, "deployments.put", { params: at, body: { upstream_model: "gpt-9", price: "dataset" } }),
      /nearest: 'gpt-/,
    );
    const moved = await act(admin, "deployments.put", { params: at, body: { upstream_model: "gpt-4.1", price: "dataset" } });
    assert.deepEqual((moved.body["price_details"] as typeof details)["rates"], { input: "2", output: "8", cache_read: "0.5" });

    await database.asSuperuser((client) => client.query(`UPDATE prices SET dataset = dataset || '{"provider": "groq"}'`));
    const other = await act(admin, "deployments.put", { params: at, body: { price: "dataset" } });
    assert.deepEqual((other.body["price_details"] as typeof details)["dataset"], { ...origin, model: "gpt-4.1" }, "of another provider's");
  }));

test("a price to come is charged from its instant on, is replaced by a later word, and is never of the past", (t) =>
  withDatabases(t, async (database, t) => {
    let now = Date.parse("2026-11-22T12:00:00Z");
    const configuration = await openConfiguration(t, await database.open(), {
      clock: { now: () => now, monotonic: () => performance.now() },
    });
    const { act } = configuration;
    const admin = await configuration.admin();
    await act(admin, "models.put", { params: { model: "chat" } });
    const put = async (price: unknown) =>
      (await act(admin, "deployments.put", { params: at, body: { provider: "inside", upstream_model: "m", price } })).body;
    const inputs = (...days: readonly string[]) => days.map((day) => chargedAt(configuration, Date.parse(day)).rates.input_uncached);
    const scheduled = (view: Record<string, unknown>) =>
      (view["scheduled_prices"] as { effective_from: string }[]).map((each) => each.effective_from);

    const januaryText = "2027-01-01T01:00:00+01:00";
    await assert.rejects(
      put({ input: "9", effective_from: januaryText }),
      problem("invalid_request", "price.effective_from"),
      "nothing until then",
    );
    await put({ input: "1" });
    const next = await put({ input: "2", effective_from: januaryText });
    assert.deepEqual([next["price"], scheduled(next)], [{ input: "1" }, ["2027-01-01T00:00:00.000Z"]]);
    assert.deepEqual(inputs("2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"), [1_000_000n, 2_000_000n]);
    assert.deepEqual(
      scheduled(await put({ input: "2", effective_from: januaryText })),
      ["2027-01-01T00:00:00.000Z"],
      "said twice is said once",
    );
    await put({ input: "3", effective_from: "2027-06-01T00:00:00Z" });
    assert.deepEqual(inputs("2027-05-31T00:00:00Z", "2027-06-01T00:00:00Z"), [2_000_000n, 3_000_000n]);
    const sooner = await put({ input: "4", effective_from: "2027-02-01T00:00:00Z" });
    assert.equal(scheduled(sooner).length, 2, "June's, which would have begun after it, is replaced; January's is not");
    assert.deepEqual((await act(admin, "deployments.get", { params: at })).body["scheduled_prices"], sooner["scheduled_prices"]);
    assert.deepEqual(inputs("2027-01-15T00:00:00Z", "2027-12-01T00:00:00Z"), [2_000_000n, 4_000_000n]);
    await act(admin, "deployments.put", { params: at, body: { region: "eu" } });
    assert.deepEqual(inputs("2027-12-01T00:00:00Z"), [4_000_000n], "another field leaves them");

    now = Date.parse("2027-02-02T00:00:00Z");
    const reached = (await act(admin, "deployments.get", { params: at })).body;
    assert.deepEqual([reached["price"], scheduled(reached)], [{ input: "4" }, []]);
    const again = await put({ input: "4", effective_from: "2027-02-01T00:00:00Z" });
    assert.equal(again["price_version"], reached["price_version"], "a file that is applied again after its date changes nothing");
    await assert.rejects(put({ input: "5", effective_from: "2027-02-01T00:00:00Z" }), problem("invalid_request", "price.effective_from"));
    await assert.rejects(
      put({ input: "5", effective_from: "9999-12-31T23:59:59.999-23:59" }),
      problem("invalid_request", "price.effective_from"),
    );
    await put({ input: "6", effective_from: "2028-01-01T00:00:00Z" });
    const cleared = await put({ input: "4" });
    assert.deepEqual([scheduled(cleared), inputs("2029-01-01T00:00:00Z")], [[], [4_000_000n]], "a price for now replaces what was to come");
    for (let month = 1; month <= 8; month++)
      await put({ input: "7", output: String(month), effective_from: `2030-0${month}-01T00:00:00Z` });
    await assert.rejects(put({ input: "7", effective_from: "2031-01-01T00:00:00Z" }), /at most so many/);
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT count(*)::int AS versions FROM prices");
      assert.deepEqual(rows, [{ versions: 14 }], "every version is kept");
    });
  }));

test("a tenant calls what is granted or visible to all, as its key's list narrows it; everything else is one answer", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act, catalog, tenants, snapshot } = configuration;
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: { tenant: "acme" } });
    for (const model of ["open", "org/granted:1", "hidden"])
      await act(admin, "models.put", { params: { model }, body: { visibility: model === "open" ? "all" : "granted" } });
    const key = async (body: unknown) =>
      configuration.principal((await act(admin, "tenant_keys.create", { params: { tenant: "acme" }, body })).body["key"]);
    const caller = await key({});
    const narrow = await key({ models: ["org/granted:1", "hidden"] });
    const names = (principal: typeof caller) =>
      catalog.modelsFor(snapshot.current, tenants.resolve(principal, snapshot.current), principal).map((model) => model.name);
    assert.deepEqual(names(caller), ["open"]);
    const grant = { params: { tenant: "acme", model: "org/granted:1" } };
    assert.equal((await act(admin, "grants.put", grant)).status, 201);
    assert.equal((await act(admin, "grants.put", grant)).status, 200);
    assert.deepEqual([names(caller), names(narrow)], [["open", "org/granted:1"], ["org/granted:1"]]);
    const messages = ["hidden", "absent", "open"].map((name) => {
      let message = "";
      assert.throws(
        () => catalog.modelFor(snapshot.current, tenants.resolve(narrow, snapshot.current), narrow, name),
        (error) => {
          message = String(error);
          return problem("model_not_found")(error);
        },
      );
      return message;
    });
    assert.equal(new Set(messages).size, 1);
    assert.deepEqual((await act(admin, "grants.list", { params: { tenant: "acme" } })).body["data"], [
      (await act(admin, "grants.get", grant)).body,
    ]);
    await assert.rejects(act(admin, "grants.put", { params: { tenant: "acme", model: "absent" } }), problem("not_found"));
    await act(admin, "grants.delete", grant);
    assert.deepEqual(names(caller), ["open"]);
    await assert.rejects(act(admin, "grants.get", grant), problem("not_found"));
    await assert.rejects(act(admin, "grants.delete", grant), problem("not_found"));
  }));

test("what a deployment leaves out has the documented default, and what its provider's schema makes of the options is what it gets", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act } = configuration;
    const admin = await configuration.admin();
    await act(admin, "models.put", { params: { model: "chat" } });
    const body = { provider: "inside", upstream_model: "m" };
    await act(admin, "deployments.put", { params: at, body });
    const defaults = {
      connectTimeoutMs: 3000,
      firstTokenTimeoutMs: 600_000,
      idleTimeoutMs: 120_000,
      totalTimeoutMs: 3_600_000,
      unknownFields: null,
      provider: { delay_ms: 5 },
    };
    assert.deepEqual(deploymentOf(configuration, "chat")?.options, defaults);
    assert.equal(deploymentOf(configuration, "chat")?.model.contextWindow, 131_072);
    await act(admin, "deployments.put", {
      params: at,
      body: { ...body, idle_timeout_ms: 7, unknown_fields: "refuse", options: { delay_ms: 9 } },
    });
    await act(admin, "deployments.put", { params: at, body: { region: "eu" } });
    assert.deepEqual(deploymentOf(configuration, "chat")?.options, {
      ...defaults,
      idleTimeoutMs: 7,
      unknownFields: "refuse",
      provider: { delay_ms: 9 },
    });
    await act(admin, "deployments.put", { params: at, body: { idle_timeout_ms: null, unknown_fields: null, options: null } });
    assert.deepEqual(deploymentOf(configuration, "chat")?.options, defaults);
    await act(admin, "deployments.put", { params: { ...at, deployment: "first" }, body: { ...body, position: 0 } });
    await act(admin, "deployments.put", { params: { ...at, deployment: "last" }, body });
    const names = configuration.snapshot.current.tenants
      .get(PLATFORM_TENANT)
      ?.catalog.models.get("chat")
      ?.deployments.map((deployment) => deployment.name);
    assert.deepEqual(names, ["main", "first", "last"]);
    await act(admin, "deployments.delete", { params: at });
    await assert.rejects(act(admin, "deployments.get", { params: at }), problem("not_found"));
    assert.equal(deploymentOf(configuration, "chat")?.name, "first");
  }));

test("two upserts of one new model or deployment at once make one row", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    const models = await Promise.all(Array.from({ length: 6 }, () => act(admin, "models.put", { params: { model: "chat" } })));
    assert.equal(new Set(models.map((answer) => answer.body["id"])).size, 1);
    const body = { provider: "inside", upstream_model: "m", price: { input: "1" } };
    const deployments = await Promise.all(Array.from({ length: 6 }, () => act(admin, "deployments.put", { params: at, body })));
    assert.equal(new Set(deployments.map((answer) => JSON.stringify([answer.body["id"], answer.body["price_version"]]))).size, 1);
  }));
