import { type Html, html } from "./html.ts";

/** Where pages are, as browsers see them: `/ai/console`. */
export interface Place {
  readonly root: string;
}

/** The organization's name, and where its people sign in. */
export interface SignInPage extends Place {
  /** Null until it is known; the providers are then the platform's. */
  readonly organization: string | null;
  readonly providers: readonly { readonly label: string; readonly href: string }[];
  readonly formToken: string;
  readonly returnTo: string;
  readonly notice: string | null;
}

export function signInPage(page: SignInPage): Html {
  const title = page.organization === null ? "Sign in" : `Sign in to ${page.organization}`;
  return layout(
    page,
    title,
    null,
    html` <main class="narrow">
      <h1>${title}</h1>
      ${page.notice === null ? null : html`<p class="notice" role="alert">${page.notice}</p>`}
      ${page.organization === null ? organizationForm(page) : organizationProviders(page)}
      ${page.organization === null ? platformSignIn(page) : html`<p class="aside"><a href="${page.root}/sign-in">Another organization</a></p>`}
    </main>`,
  );
}

function organizationForm({ root, returnTo }: SignInPage): Html {
  return html` <form class="card" method="get" action="${root}/sign-in">
    <label for="organization">Organization</label>
    <input
      id="organization"
      name="organization"
      required
      maxlength="100"
      autocomplete="organization"
      autocapitalize="none"
      spellcheck="false"
      aria-describedby="organization-hint"
    />
    <p id="organization-hint" class="hint">The short name your administrator gave you, such as <code>acme</code>.</p>
    <input type="hidden" name="return_to" value="${returnTo}" />
    <button type="submit">Continue</button>
  </form>`;
}

function organizationProviders({ organization, providers }: SignInPage): Html {
  if (providers.length === 0)
    return html` <div class="card">
      <p>There is no sign-in for <strong>${organization}</strong> here. Check the name, or ask your administrator.</p>
    </div>`;
  return html`<div class="card">
    ${providers.map(({ label, href }) => html`<a class="button" href="${href}">Continue with ${label}</a>`)}
  </div>`;
}

function platformSignIn({ root, providers, formToken, returnTo, notice }: SignInPage): Html {
  return html` <details class="platform" ${notice === null ? null : html`open`}>
    <summary>Other ways to sign in</summary>
    <div class="card">
      ${providers.map(({ label, href }) => html`<a class="button quiet" href="${href}">Continue with ${label}</a>`)}
      <form method="post" action="${root}/sign-in/key" autocomplete="off">
        <label for="key">Administrator’s key</label>
        <input
          id="key"
          name="key"
          type="password"
          required
          maxlength="1024"
          autocomplete="off"
          spellcheck="false"
          aria-describedby="key-hint"
        />
        <p id="key-hint" class="hint">A platform key, or a key above a tenant’s projects.</p>
        <input type="hidden" name="form_token" value="${formToken}" />
        <input type="hidden" name="return_to" value="${returnTo}" />
        <button type="submit" class="quiet">Sign in with the key</button>
      </form>
    </div>
  </details>`;
}

export interface AccountPage extends Place {
  readonly organization: string | null;
  readonly name: string;
  readonly email: string | null;
  /** How they came in. */
  readonly through: string;
  readonly expiresAt: Date;
  /** Sentences. */
  readonly rights: readonly string[];
  readonly projects: readonly { readonly name: string; readonly rights: readonly string[] }[];
  readonly csrfToken: string;
}

export function accountPage(page: AccountPage): Html {
  const whose = page.organization ?? "Platform";
  return layout(
    page,
    "Your account",
    signOutForm(page),
    html` <main>
      <h1>${page.name}</h1>
      <dl class="card facts">
        <div>
          <dt>Organization</dt>
          <dd>${whose}</dd>
        </div>
        ${
          page.email === null
            ? null
            : html`<div>
                <dt>Email</dt>
                <dd>${page.email}</dd>
              </div>`
        }
        <div>
          <dt>Signed in with</dt>
          <dd>${page.through}</dd>
        </div>
        <div>
          <dt>Until</dt>
          <dd><time datetime="${page.expiresAt.toISOString()}">${readable(page.expiresAt)}</time></dd>
        </div>
      </dl>
      <section aria-labelledby="rights">
        <h2 id="rights">What you may do</h2>
        ${
          page.rights.length + page.projects.length === 0
            ? html`<p class="card">Nothing yet. An administrator of ${whose} gives roles to members and groups.</p>`
            : null
        }
        ${page.rights.length === 0 ? null : listOf(page.rights)}
        ${page.projects.map(
          ({ name, rights }) =>
            html`<h3>In the project ${name}</h3>
              ${listOf(rights)}`,
        )}
      </section>
    </main>`,
  );
}

function listOf(rights: readonly string[]): Html {
  return html`<ul class="card rights">
    ${rights.map((right) => html`<li>${right}</li>`)}
  </ul>`;
}

function signOutForm({ root, csrfToken }: AccountPage): Html {
  return html` <form method="post" action="${root}/sign-out">
    <input type="hidden" name="csrf_token" value="${csrfToken}" />
    <button type="submit" class="quiet small">Sign out</button>
  </form>`;
}

/** A page that only says something, with one way on. */
export interface MessagePage extends Place {
  readonly title: string;
  readonly text: string;
  readonly action: { readonly label: string; readonly href: string };
  /** For the administrator. */
  readonly requestId: string | null;
}

export function messagePage(page: MessagePage): Html {
  return layout(
    page,
    page.title,
    null,
    html` <main class="narrow">
      <h1>${page.title}</h1>
      <div class="card">
        <p>${page.text}</p>
        <a class="button" href="${page.action.href}">${page.action.label}</a>
      </div>
      ${page.requestId === null ? null : html`<p class="aside">Request <code>${page.requestId}</code></p>`}
    </main>`,
  );
}

function layout({ root }: Place, title: string, menu: Html | null, body: Html): Html {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <title>${title} · Atrium</title>
        <link rel="icon" href="${root}/mark.svg" type="image/svg+xml" />
        <link rel="stylesheet" href="${root}/style.css" />
      </head>
      <body>
        <header>
          <a class="brand" href="${root}"><img src="${root}/mark.svg" alt="" width="28" height="28" />Atrium</a>
          ${menu}
        </header>
        ${body}
      </body>
    </html> `;
}

/** `22 November 2026, 18:04 UTC`: without a script, the reader's own zone is not known. */
function readable(time: Date): string {
  return `${DATE.format(time)} UTC`;
}

const DATE = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "short", timeZone: "UTC" });
