import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { startSsoWorld } from "./sso-world.ts";

// Proof that people can sign in: a real browser, a real identity provider, and the server as it ships.

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((file) => existsSync(file));
/** A directory for screenshots, to be looked at; unset: none are taken. */
const SHOTS = process.env["ATRIUM_TEST_SCREENSHOTS"];

test("people sign in, have what their group gives them, sign out, and are not tricked", async (t) => {
  if (CHROMIUM === undefined) {
    t.diagnostic("there is no chromium: sign-in is not tested in a browser");
    t.skip("there is no chromium");
    return;
  }
  const { atrium, idp, database } = await startSsoWorld(t);
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-background-networking"] });
  t.after(() => browser.close());
  const at = (place: string) => `${atrium.url}/console${place}`;
  const signIn = async (page: Page, login: string): Promise<void> => {
    await page.goto(at(""));
    await page.getByLabel("Organization").fill("acme");
    await page.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("link", { name: "Continue with Acme ID" }).click();
    await page.getByPlaceholder("Enter any login").fill(login);
    await page.getByPlaceholder("and password").fill("any");
    await page.getByRole("button", { name: "Sign-in" }).click();
  };

  await t.test("login, and a group becomes a role", async (t) => {
    const page = await freshPage(t, browser);
    await page.goto(at(""));
    await shoot(page, "sign-in");
    await page.getByText("Other ways to sign in").click();
    await shoot(page, "sign-in-platform");
    await page.goto(at("/sign-in/acme"));
    await shoot(page, "sign-in-organization");
    await signIn(page, "ada");
    await page.waitForURL(at("/account"));
    assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), "Ada Lovelace");
    assert.equal(await page.getByText("ada@acme.test").count(), 1);
    assert.equal(await page.getByText("Create, change and archive the tenant's projects.").count(), 1);
    await shoot(page, "account");
    await page.setViewportSize({ width: 360, height: 700 });
    assert.equal(await page.evaluate("document.documentElement.scrollWidth"), 360, "it fits a telephone");
    await shoot(page, "account-narrow");

    const other = await freshPage(t, browser);
    await signIn(other, "ben");
    await other.waitForURL(at("/account"));
    assert.equal(await other.getByRole("heading", { name: "In the project research" }).count(), 1);
    assert.equal(await other.getByText("Create, change and archive the tenant's projects.").count(), 0);
    await shoot(other, "account-project");
  });

  await t.test("whom the organization does not know is told so, without internals", async (t) => {
    const page = await freshPage(t, browser);
    await signIn(page, "eve");
    await page.waitForURL(/\/callback\//);
    assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), "You have no access yet");
    await shoot(page, "no-access");
    await page.goto(at("/sign-in/nobody"));
    await shoot(page, "no-such-organization");
    await page.goto(at("/nothing"));
    await shoot(page, "not-found");
  });

  await t.test("cookies are out of reach of scripts, and pages load nothing from elsewhere", async (t) => {
    const page = await freshPage(t, browser);
    const asked: string[] = [];
    await signIn(page, "ada");
    await page.waitForURL(at("/account"));
    page.on("request", (request) => asked.push(new URL(request.url()).origin));
    await page.reload();
    assert.deepEqual([...new Set(asked)], [new URL(atrium.url).origin]);
    assert.doesNotMatch(await page.evaluate("document.cookie"), /atrium_session/);
    const session = (await page.context().cookies()).find(({ name }) => name === "atrium_session");
    assert.deepEqual([session?.httpOnly, session?.sameSite], [true, "Lax"]);
    const injected = await page.evaluate(
      "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.head.append(s); return window.ran === true; })()",
    );
    assert.equal(injected, false, "the policy lets no script run");
  });

  await t.test("logout ends the session here and at the provider", async (t) => {
    const page = await freshPage(t, browser);
    await signIn(page, "ada");
    await page.waitForURL(at("/account"));
    const before = await page.context().cookies();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL(`${idp.issuer}/session/end**`);
    await page.getByRole("button", { name: /yes/i }).click();
    await page.waitForURL(at("/signed-out**"));
    await shoot(page, "signed-out");
    await page.goto(at("/account"));
    assert.equal(page.url(), at("/sign-in"));
    await page.context().addCookies(before.filter(({ name }) => name === "atrium_session"));
    await page.goto(at("/account"));
    assert.equal(
      await page.getByRole("heading", { level: 1 }).textContent(),
      "Your session has ended",
      "the cookie of before opens nothing",
    );
    await page.goto(at("/start/acme/idp"));
    assert.equal(await page.getByPlaceholder("and password").count(), 1, "the provider asks for the password again");
  });

  await t.test("a session that has expired says so, and signing in again leads on", async (t) => {
    const page = await freshPage(t, browser);
    await signIn(page, "ada");
    await page.waitForURL(at("/account"));
    await database.asSuperuser((client) => client.query("UPDATE console_sessions SET expires_at = now() - interval '1 second'"));
    await page.reload();
    assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), "Your session has ended");
    await shoot(page, "session-ended");
    await page.goto(at("/start/acme/idp"));
    await page.waitForURL(at("/account"));
  });

  await t.test("a form on another site, and on another port of this one, changes nothing", async (t) => {
    const page = await freshPage(t, browser);
    await signIn(page, "ada");
    await page.waitForURL(at("/account"));
    const token = await page.locator("input[name=csrf_token]").getAttribute("value");
    const evil = await startEvil(t, at("/sign-out"), token ?? "");
    for (const host of ["127.0.0.1", "localhost"]) {
      await page.goto(`http://${host}:${evil}/`);
      await Promise.all([page.waitForNavigation(), page.getByRole("button").click()]);
      assert.match(page.url(), /\/console\/(sign-out|signed-out)$/);
      if (host === "127.0.0.1") {
        assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), "Not done");
        await shoot(page, "forged");
      }
      await page.goto(at("/account"));
      assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), "Ada Lovelace", `still signed in after ${host}`);
    }
  });

  await t.test("an administrator signs in with a key on the first day", async (t) => {
    const page = await freshPage(t, browser);
    const { key } = (await atrium.admin("POST", "tenants/acme/keys", { name: "first-day", permissions: ["tenant_admin"] })) as {
      key: string;
    };
    const enter = async (text: string): Promise<void> => {
      await page.goto(at("/sign-in"));
      await page.getByText("Other ways to sign in").click();
      await page.getByLabel("Administrator’s key").fill(text);
      await page.getByRole("button", { name: "Sign in with the key" }).click();
    };
    await enter("not a key");
    assert.match((await page.getByRole("alert").textContent()) ?? "", /not an administrator’s key/);
    await shoot(page, "wrong-key");
    await enter(key);
    await page.waitForURL(at("/account"));
    await shoot(page, "account-key");
  });
});

async function freshPage(t: TestContext, browser: Browser): Promise<Page> {
  const context: BrowserContext = await browser.newContext({ viewport: { width: 1100, height: 760 } });
  t.after(() => context.close());
  // The provider's page asks for a font from elsewhere, which a machine without a network waits for.
  await context.route(
    ({ hostname }) => hostname !== "127.0.0.1" && hostname !== "localhost",
    (route) => route.abort(),
  );
  return context.newPage();
}

/** Takes a page light and dark. */
async function shoot(page: Page, name: string): Promise<void> {
  if (SHOTS === undefined) return;
  for (const scheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.screenshot({ path: path.join(SHOTS, `${name}-${scheme}.png`) });
  }
  await page.emulateMedia({ colorScheme: null });
}

/** A page of somebody else's, whose only button sends the console's own form, token and all. Resolves to its port. */
async function startEvil(t: TestContext, action: string, token: string): Promise<number> {
  const server = createServer((_request, response) => {
    response.setHeader("content-type", "text/html");
    response.end(
      `<form method="post" action="${action}"><input type="hidden" name="csrf_token" value="${token}"><button>Win</button></form>`,
    );
  });
  await new Promise<void>((resolve) => server.listen(0, resolve));
  t.after(() => server.close());
  return (server.address() as AddressInfo).port;
}
