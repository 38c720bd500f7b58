import { readFileSync } from "node:fs";
import path from "node:path";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import {
  callbackPath,
  type Console,
  PERMISSIONS,
  type Permission,
  type Principal,
  type ProviderRecord,
  sameText,
  type ConsoleUser,
  SignInRefused,
  type Visitor,
  visitPath,
} from "../../domains/identity/index.ts";
import type { Refusal } from "../../domains/records/index.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import { asProblem, Problem } from "../../kernel/problem.ts";
import type { Log } from "../../telemetry/index.ts";
import { readCookie, setCookie } from "./cookies.ts";
import type { Html } from "./html.ts";
import { consoleUrl, isFromOwnPage, type OriginNeeds } from "./origin.ts";
import { accountPage, messagePage, type MessagePage, signInPage } from "./pages.ts";

export interface ConsoleSurfaceNeeds extends OriginNeeds {
  readonly console: Console;
  readonly random: RandomBytes;
  readonly log: Log;
  /** Takes what authorization refused: for the record, on no account for the caller. */
  readonly refused: (refusal: Refusal) => void;
}

/** Where the console is, below the base path. */
const ROOT = "/console";
const MAX_FORM_BYTES = 16 * 1024;
const FILES = { "style.css": "text/css; charset=utf-8", "mark.svg": "image/svg+xml" } as const;
const FILE_SECONDS = 3600;

/** Mounts the console's pages: plain HTML without scripts. */
export function mountConsole(server: FastifyInstance, needs: ConsoleSurfaceNeeds): void {
  server.register(
    async (below) => {
      below.removeAllContentTypeParsers();
      below.addContentTypeParser(
        "application/x-www-form-urlencoded",
        { parseAs: "string", bodyLimit: MAX_FORM_BYTES },
        (_request, text, done) => done(null, new URLSearchParams(String(text))),
      );
      below.addHook("onRequest", async (_request, reply) => void reply.headers(HEADERS));
      below.setNotFoundHandler((request, reply) =>
        say(needs, request, reply, 404, { title: "Not found", text: "There is no such page.", action: "home" }),
      );
      below.setErrorHandler((thrown, request, reply) => failed(needs, thrown, request, reply));
      mountFiles(below);
      mountSignIn(below, needs);
      mountAccount(below, needs);
    },
    { prefix: ROOT },
  );
}

/**
 * Who is signed in to the console, for the calls of its own pages to the API: the session's cookie counts with its token in the header
 * `x-atrium-csrf` only, and from the console's own origin. Null where there is no cookie. Throws Problem invalid_api_key.
 */
export function createSignedIn(needs: OriginNeeds & Pick<ConsoleSurfaceNeeds, "console">) {
  return async (request: FastifyRequest): Promise<Principal | null> => {
    const cookie = readCookie(request, "session", isSecure(request, needs));
    const token = request.headers["x-atrium-csrf"];
    if (cookie === null || typeof token !== "string") return null;
    if (!isFromOwnPage(request, consoleUrl(request, needs))) throw new Problem("invalid_api_key");
    const signedIn = await needs.console.find(cookie, request.remoteAddress);
    if (signedIn === null || !sameText(signedIn.session.csrfToken, token)) throw new Problem("invalid_api_key");
    return signedIn.principal;
  };
}

function mountFiles(server: FastifyInstance): void {
  for (const [name, type] of Object.entries(FILES)) {
    const content = readFileSync(path.join(import.meta.dirname, name));
    server.get(`/${name}`, async (_request, reply) => reply.header("cache-control", `max-age=${FILE_SECONDS}`).type(type).send(content));
  }
}

function mountSignIn(server: FastifyInstance, needs: ConsoleSurfaceNeeds): void {
  server.get("/sign-in", (request, reply) => {
    const query = request.query as Readonly<Record<string, unknown>>;
    return showSignIn(needs, request, reply, textOf(query["organization"]), textOf(query["return_to"]), null);
  });
  server.post("/sign-in/key", (request, reply) => signInWithKey(needs, request, reply));
  server.get("/sign-in/:organization", (request, reply) =>
    showSignIn(needs, request, reply, (request.params as { organization: string }).organization, null, null),
  );
  for (const { url, visitorOf } of VISITS) {
    server.get(`/start${url}`, (request, reply) => begin(needs, request, reply, visitorOf(request.params as Params)));
    server.get(`/callback${url}`, (request, reply) => finish(needs, request, reply, visitorOf(request.params as Params)));
  }
}

type Params = Readonly<Record<string, string>>;

/** The platform's providers, and a tenant's. */
const VISITS: readonly { readonly url: string; readonly visitorOf: (params: Params) => Visitor }[] = [
  { url: "/:provider", visitorOf: ({ provider = "" }) => ({ organization: null, provider }) },
  { url: "/:organization/:provider", visitorOf: ({ organization = "", provider = "" }) => ({ organization, provider }) },
];

function mountAccount(server: FastifyInstance, needs: ConsoleSurfaceNeeds): void {
  server.get("/", (request, reply) => onwards(needs, request, reply, "/account"));
  server.get("/account", async (request, reply) => {
    const signedIn = await current(needs, request);
    return signedIn === null ? toSignIn(needs, request, reply) : showAccount(needs, request, reply, signedIn);
  });
  server.post("/sign-out", (request, reply) => signOut(needs, request, reply));
  server.get("/signed-out", (request, reply) =>
    say(needs, request, reply, 200, { title: "Signed out", text: "You are signed out of Atrium.", action: "sign_in" }),
  );
}

function showSignIn(
  needs: ConsoleSurfaceNeeds,
  request: FastifyRequest,
  reply: FastifyReply,
  organization: string | null,
  returnTo: string | null,
  notice: string | null,
): FastifyReply {
  const { root, secure } = placeOf(needs, request);
  const back = returnPath(returnTo);
  const formToken = readCookie(request, "form", secure) ?? Buffer.from(needs.random(new Uint8Array(32))).toString("base64url");
  setCookie(reply, "form", formToken, null, secure);
  const providers = needs.console.providers(organization).map((provider) => ({
    label: provider.displayName ?? provider.name,
    href: `${root}/start/${visitPath({ organization, provider: provider.name })}?return_to=${encodeURIComponent(back)}`,
  }));
  return send(reply, notice === null ? 200 : 401, signInPage({ root, organization, providers, formToken, returnTo: back, notice }));
}

async function begin(needs: ConsoleSurfaceNeeds, request: FastifyRequest, reply: FastifyReply, visitor: Visitor): Promise<FastifyReply> {
  const provider = providerOf(needs, visitor);
  const { own, secure } = placeOf(needs, request);
  const query = request.query as Readonly<Record<string, unknown>>;
  const { location, cookie, cookieSeconds } = await needs.console.begin(provider, {
    redirectUri: redirectUri(own, visitor),
    returnTo: returnPath(textOf(query["return_to"])),
    invitation: textOf(query["invitation"]),
  });
  setCookie(reply, "sign_in", cookie, cookieSeconds, secure);
  return reply.redirect(location, 302);
}

/** The provider's answer. Whoever was signed in before is not any more, and the session is a new one: no id outlives a sign-in. */
async function finish(needs: ConsoleSurfaceNeeds, request: FastifyRequest, reply: FastifyReply, visitor: Visitor): Promise<FastifyReply> {
  const provider = providerOf(needs, visitor);
  const { own, root, secure } = placeOf(needs, request);
  const pending = readCookie(request, "sign_in", secure);
  setCookie(reply, "sign_in", "", 0, secure);
  const answer = new URL(redirectUri(own, visitor) + (/\?.*/.exec(request.url)?.[0] ?? ""));
  try {
    const { cookie, returnTo } = await needs.console.finish(provider, answer, pending, originOf(request));
    await endPresent(needs, request);
    setCookie(reply, "session", cookie, null, secure);
    return reply.redirect(root + returnTo, 303);
  } catch (error) {
    if (error instanceof SignInRefused && error.failure === "not_a_member") noteRefusal(needs, request, provider, error);
    throw error;
  }
}

async function signInWithKey(needs: ConsoleSurfaceNeeds, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { own, root, secure } = placeOf(needs, request);
  const form = formOf(request);
  const given = readCookie(request, "form", secure);
  if (given === null || !sameText(given, form.get("form_token") ?? "") || !isFromOwnPage(request, own)) throw new Forged();
  const key = form.get("key") ?? "";
  try {
    const cookie = await needs.console.signInWithKey(key, originOf(request));
    await endPresent(needs, request);
    setCookie(reply, "session", cookie, null, secure);
    return reply.redirect(root + returnPath(form.get("return_to")), 303);
  } catch (problem) {
    if (!(problem instanceof Problem) || problem.status >= 500) throw problem;
    needs.refused({ route: SIGN_IN, principal: null, credential: key, remoteAddress: request.remoteAddress, problem });
    const notice = problem.code === "expired_api_key" ? "This key has expired." : "This is not an administrator’s key, or not any more.";
    return showSignIn(needs, request, reply, null, form.get("return_to"), notice);
  }
}

async function showAccount(
  needs: ConsoleSurfaceNeeds,
  request: FastifyRequest,
  reply: FastifyReply,
  signedIn: ConsoleUser,
): Promise<FastifyReply> {
  const { own, root } = placeOf(needs, request);
  const { session } = signedIn;
  const { organization, name, email, through, permissions, projects } = await needs.console.account(signedIn);
  // The form's answer leads on to the provider, and a browser follows it only where the policy names the place.
  const provider = await needs.console.endSessionOrigin(signedIn, signedOutUrl(own));
  if (provider !== null) reply.header("content-security-policy", policy(` ${provider}`));
  return send(
    reply,
    200,
    accountPage({
      root,
      organization,
      name: name ?? email ?? "Your account",
      email,
      through: through ?? "an administrator’s key",
      expiresAt: new Date(session.expiresAt),
      rights: permissions.map(sentenceOf),
      projects: projects.map((project) => ({ name: project.name, rights: project.permissions.map(sentenceOf) })),
      csrfToken: session.csrfToken,
    }),
  );
}

async function signOut(needs: ConsoleSurfaceNeeds, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { own, root, secure } = placeOf(needs, request);
  const signedIn = await current(needs, request);
  if (signedIn === null) return reply.redirect(`${root}/signed-out`, 303);
  if (!sameText(signedIn.session.csrfToken, formOf(request).get("csrf_token") ?? "") || !isFromOwnPage(request, own)) throw new Forged();
  const onward = await needs.console.signOut(signedIn, signedOutUrl(own), originOf(request));
  setCookie(reply, "session", "", 0, secure);
  return reply.redirect(onward ?? `${root}/signed-out`, 303);
}

async function onwards(needs: ConsoleSurfaceNeeds, request: FastifyRequest, reply: FastifyReply, to: string): Promise<FastifyReply> {
  return (await current(needs, request)) === null
    ? toSignIn(needs, request, reply)
    : reply.redirect(placeOf(needs, request).root + to, 303);
}

function toSignIn(needs: ConsoleSurfaceNeeds, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { root, secure } = placeOf(needs, request);
  if (readCookie(request, "session", secure) === null) return reply.redirect(`${root}/sign-in`, 303);
  setCookie(reply, "session", "", 0, secure);
  return say(needs, request, reply, 401, {
    title: "Your session has ended",
    text: "You were signed out, or away for too long. Sign in again to go on.",
    action: "sign_in",
  });
}

async function current(needs: ConsoleSurfaceNeeds, request: FastifyRequest): Promise<ConsoleUser | null> {
  const cookie = readCookie(request, "session", isSecure(request, needs));
  return cookie === null ? null : needs.console.find(cookie, request.remoteAddress);
}

/** Whoever this browser was signed in as before. */
async function endPresent(needs: ConsoleSurfaceNeeds, request: FastifyRequest): Promise<void> {
  const before = await current(needs, request);
  if (before !== null) await needs.console.end(before, originOf(request));
}

function providerOf(needs: ConsoleSurfaceNeeds, visitor: Visitor): ProviderRecord {
  const provider = needs.console.provider(visitor);
  if (provider === undefined) throw new SignInRefused("not_configured");
  return provider;
}

/** In the trail of the provider's tenant, as the deed of somebody whom the provider, but not the tenant, knows. */
function noteRefusal(needs: ConsoleSurfaceNeeds, request: FastifyRequest, provider: ProviderRecord, cause: SignInRefused): void {
  const problem = new Problem("permission_denied", { cause });
  const principal = { id: provider.id, kind: "user", tenant: provider.tenant } as const;
  needs.refused({ route: SIGN_IN, principal, credential: null, remoteAddress: request.remoteAddress, problem });
}

const SIGN_IN = "console.sign_in";

/** A state-changing request that this console's own pages did not make. */
class Forged extends Error {
  override readonly name = "Forged";
}

type Message = Pick<MessagePage, "title" | "text"> & { readonly action: "home" | "sign_in" };

function failed(needs: ConsoleSurfaceNeeds, thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { status, message, isOurs } = messageFor(thrown);
  if (isOurs) needs.log.error({ cause: thrown, call: request.id, route: request.routeOptions.url }, "a page of the console failed");
  return say(needs, request, reply, status, message);
}

function messageFor(thrown: unknown): { readonly status: number; readonly message: Message; readonly isOurs: boolean } {
  if (thrown instanceof SignInRefused) return { ...SIGN_IN_FAILURES[thrown.failure], isOurs: false };
  if (thrown instanceof Forged) return { status: 403, message: FORGED, isOurs: false };
  const sent = (thrown as { readonly statusCode?: unknown }).statusCode;
  const status = thrown instanceof Problem || typeof sent !== "number" ? asProblem(thrown).status : sent;
  if (status === 503) return { status, message: AWAY, isOurs: false };
  return status < 500 ? { status, message: BAD_REQUEST, isOurs: false } : { status, message: BROKEN, isOurs: true };
}

const FORGED: Message = { title: "Not done", text: "That request did not come from this page, so nothing was changed.", action: "home" };
const AWAY: Message = { title: "Try again soon", text: "Atrium cannot look this up right now. Nothing was changed.", action: "home" };
const BAD_REQUEST: Message = { title: "Not understood", text: "The browser sent something that this page does not take.", action: "home" };
const BROKEN: Message = { title: "Something broke", text: "This is our fault. Give your administrator the number below.", action: "home" };

const SIGN_IN_FAILURES: Readonly<Record<SignInRefused["failure"], { readonly status: number; readonly message: Message }>> = {
  unreachable: {
    status: 502,
    message: {
      title: "Sign-in is not available",
      text: "Your identity provider did not answer as expected. Try again in a moment.",
      action: "sign_in",
    },
  },
  unfinished: {
    status: 400,
    message: {
      title: "Sign-in was not finished",
      text: "It took too long, was begun in another browser, or was already used. Start again.",
      action: "sign_in",
    },
  },
  declined: {
    status: 403,
    message: { title: "Sign-in was declined", text: "Your identity provider did not let you in, or you turned back.", action: "sign_in" },
  },
  not_a_member: {
    status: 403,
    message: {
      title: "You have no access yet",
      text: "Your identity provider knows you, but this organization does not. Ask its administrator for an invitation.",
      action: "sign_in",
    },
  },
  not_configured: {
    status: 404,
    message: { title: "No such sign-in", text: "Nobody signs in here. Check the address, or ask your administrator.", action: "sign_in" },
  },
};

function say(needs: ConsoleSurfaceNeeds, request: FastifyRequest, reply: FastifyReply, status: number, message: Message): FastifyReply {
  const { root } = placeOf(needs, request);
  const action = message.action === "home" ? { label: "To the start", href: root } : { label: "Sign in", href: `${root}/sign-in` };
  return send(reply, status, messagePage({ ...message, root, action, requestId: status >= 400 ? request.id : null }));
}

function send(reply: FastifyReply, status: number, page: Html): FastifyReply {
  return reply.code(status).type("text/html; charset=utf-8").send(page.text);
}

/** The console as this browser sees it. */
function placeOf(needs: OriginNeeds, request: FastifyRequest): { own: URL; root: string; secure: boolean } {
  const own = consoleUrl(request, needs);
  return { own, root: `${own.pathname.replace(/\/$/, "")}${ROOT}`, secure: own.protocol === "https:" };
}

function isSecure(request: FastifyRequest, needs: OriginNeeds): boolean {
  return consoleUrl(request, needs).protocol === "https:";
}

function redirectUri(own: URL, visitor: Visitor): string {
  return `${own.href.replace(/\/$/, "")}${callbackPath(visitor)}`;
}

function signedOutUrl(own: URL): string {
  return `${own.href.replace(/\/$/, "")}${ROOT}/signed-out`;
}

/** A path of the console below its root, whatever was asked for: nobody is sent elsewhere from here. */
function returnPath(wanted: string | null): string {
  return wanted !== null && /^(?:\/[a-z0-9_-]+){1,8}$/.test(wanted) ? wanted : "/account";
}

function originOf(request: FastifyRequest) {
  return { requestId: request.id, remoteAddress: request.remoteAddress };
}

function formOf(request: FastifyRequest): URLSearchParams {
  return request.body instanceof URLSearchParams ? request.body : new URLSearchParams();
}

function textOf(value: unknown): string | null {
  return typeof value === "string" && value !== "" && value.length <= MAX_FIELD_LENGTH ? value : null;
}

const MAX_FIELD_LENGTH = 500;

function sentenceOf(permission: Permission): string {
  return PERMISSIONS[permission];
}

function policy(formTargets = ""): string {
  return `default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'${formTargets}; base-uri 'none'; frame-ancestors 'none'`;
}

/** The referrer stays within the origin: none at all would make browsers hide the origin of our own forms too. */
const HEADERS = {
  "content-security-policy": policy(),
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cache-control": "no-store",
} as const;
