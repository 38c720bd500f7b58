import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { createAuthority } from "../../../test/support/certificates.ts";
import { openConfiguration } from "../../../test/support/configuration.ts";
import { withDatabases } from "../../../test/support/postgres.ts";
import { PLATFORM_TENANT } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";

const PASSWORD = "canary-password";
const PROXY = `http://user:${PASSWORD}@proxy.example:3128`;
const params = { credential: "account" };
const vendor = { provider: "vendor", api_key: "sk-upstream" };

test("a proxy, authorities and a client certificate go in, reach the deployment, and come out without password and key", async (t) => {
  const authority = createAuthority(t, "Ours");
  if (authority === null) return;
  const { cert, key } = authority.issue("gateway");
  await withDatabases(t, async (database, t) => {
    const { act, snapshot, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    const transport = () =>
      snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog.models.get("chat")?.deployments[0]?.credential?.transport;
    const put = (body: object) => act(admin, "credentials.put", { params, body });

    const plain = await put(vendor);
    assert.deepEqual([plain.body["proxy"], plain.body["ca_certificates"], plain.body["client_certificate"]], [null, [], null]);
    await act(admin, "models.put", { params: { model: "chat" } });
    await act(admin, "deployments.put", {
      params: { model: "chat", deployment: "main" },
      body: { provider: "vendor", credential: "account", upstream_model: "gpt", price: "free" },
    });
    assert.equal(transport(), null);

    const commented = `Subject: ours\n${authority.ca}\n`;
    const made = await put({ proxy: `${PROXY}/`, ca: commented, client_cert: cert, client_key: key });
    assert.deepEqual([transport()?.proxy, transport()?.ca, transport()?.clientCertificate?.cert], [PROXY, authority.ca, cert]);
    assert.ok(transport()?.clientCertificate?.key.includes("PRIVATE KEY"));
    const ca = new X509Certificate(authority.ca);
    assert.deepEqual(
      [made.body["proxy"], made.body["ca_certificates"]],
      ["http://proxy.example:3128", [{ subject: "CN=Ours", expires_at: ca.validToDate.getTime() / 1000, fingerprint: ca.fingerprint256 }]],
    );
    assert.equal((made.body["client_certificate"] as { subject: string }).subject, "CN=gateway");

    const before = transport();
    await put({ display_name: "renamed" });
    assert.deepEqual(transport(), before, "omitted, they stay");
    const answers = [made, await act(admin, "credentials.get", { params }), await act(admin, "credentials.list")];
    const audit = await database.asSuperuser(async (client) => (await client.query("SELECT a::text FROM audit_rows a")).rows as unknown);
    const stored = await database.asSuperuser(async (client) => (await client.query("SELECT c::text FROM credentials c")).rows as unknown);
    for (const said of [answers, audit, stored].map((each) => JSON.stringify(each)))
      for (const secret of [PASSWORD, Buffer.from(PASSWORD).toString("hex"), "PRIVATE KEY", Buffer.from("PRIVATE KEY").toString("hex")])
        assert.equal(said.includes(secret), false);

    await put({ proxy: "http://other.example" });
    assert.equal(transport()?.proxy, "http://other.example", "a password is not kept for another proxy");
    await put({ proxy: null, ca: null, client_cert: null });
    assert.equal(transport(), null, "a certificate takes its key along");
    await put({ proxy: PROXY, client_cert: cert, client_key: key });
    await act(admin, "models.delete", { params: { model: "chat" } });
    await act(admin, "credentials.delete", { params });
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT proxy_sealed, client_key_sealed FROM credentials");
      assert.deepEqual(rows, [{ proxy_sealed: null, client_key_sealed: null }], "an archived credential has no secret");
    });
  });
});

test("a transport that could not work is refused by field, and the refusal repeats nothing", async (t) => {
  const authority = createAuthority(t, "Ours");
  if (authority === null) return;
  const [one, other] = [authority.issue("one"), authority.issue("other")];
  const expired = authority.issue("late", { days: -1 });
  const cases: readonly [Record<string, string | null>, string][] = [
    [{ proxy: "proxy.example:3128" }, "proxy"],
    [{ proxy: `https://u:${PASSWORD}@proxy.example` }, "proxy"],
    [{ proxy: `socks5://u:${PASSWORD}@proxy.example` }, "proxy"],
    [{ proxy: `http://u:${PASSWORD}@proxy.example/path` }, "proxy"],
    [{ proxy: `http://u:${PASSWORD}@proxy.example?x` }, "proxy"],
    [{ proxy: `http://u%3Av:${PASSWORD}@proxy.example` }, "proxy"],
    [{ proxy: `http://u:${PASSWORD}%0d%0a@proxy.example` }, "proxy"],
    [{ proxy: `http://u:${PASSWORD}%@proxy.example` }, "proxy"],
    [{ ca: "canary" }, "ca"],
    [{ ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }, "ca"],
    [{ ca: expired.cert }, "ca"],
    [{ ca: authority.ca + one.key }, "ca"],
    [{ client_cert: one.cert }, "client_key"],
    [{ client_key: one.key }, "client_cert"],
    [{ client_cert: one.cert, client_key: other.key }, "client_key"],
    [{ client_cert: one.cert, client_key: "canary" }, "client_key"],
    [{ client_cert: one.cert + one.key, client_key: one.key }, "client_cert"],
    [{ client_cert: expired.cert, client_key: expired.key }, "client_cert"],
    [{ base_url: "http://127.0.0.1:1/v1", ca: authority.ca }, "ca"],
  ];
  await withDatabases(t, async (database, t) => {
    const { act, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    const refused = async (body: object, param: string) =>
      assert.rejects(act(admin, "credentials.put", { params, body }), (error) => {
        assert.ok(error instanceof Problem, String(error));
        assert.deepEqual([error.code, error.param], ["invalid_request", param]);
        assert.ok(!error.message.includes("canary") && !error.message.includes("-----"), error.message);
        return true;
      });
    for (const [body, param] of cases) await refused({ ...vendor, ...body }, param);
    await act(admin, "credentials.put", { params, body: { ...vendor, client_cert: one.cert, client_key: one.key } });
    await refused({ client_cert: other.cert }, "client_key");
    await refused({ client_key: null }, "client_key");
    await refused({ base_url: "http://127.0.0.1:1/v1" }, "client_cert");
    await act(admin, "credentials.put", { params, body: { client_cert: one.cert + authority.ca } });
  });
});

test("a sealed proxy or key moved to another credential does not open: its deployment stays as it was", async (t) => {
  await withDatabases(t, async (database, t) => {
    const { act, snapshot, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    for (const [credential, proxy] of [
      ["account", "http://one.example"],
      ["other", "http://other.example"],
    ] as const)
      await act(admin, "credentials.put", { params: { credential }, body: { ...vendor, proxy } });
    await act(admin, "models.put", { params: { model: "chat" } });
    await act(admin, "deployments.put", {
      params: { model: "chat", deployment: "main" },
      body: { provider: "vendor", credential: "account", upstream_model: "gpt", price: "free" },
    });
    await database.asSuperuser((client) =>
      client.query("UPDATE credentials AS c SET proxy_sealed = o.proxy_sealed FROM credentials AS o WHERE o.id <> c.id"),
    );
    await act(admin, "models.put", { params: { model: "later" } });
    const deployment = snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog.models.get("chat")?.deployments[0];
    assert.equal(deployment?.credential?.transport?.proxy, "http://one.example");
  });
});
