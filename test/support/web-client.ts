/** A browser as far as cookies and redirects go: for what no page would do. One jar for all ports of a host, as browsers have it. */
export class WebClient {
  readonly #cookies = new Map<string, string>();

  get cookies(): ReadonlyMap<string, string> {
    return this.#cookies;
  }

  setCookie(name: string, value: string): void {
    this.#cookies.set(name, value);
  }

  /** One request; its cookies are kept. */
  async send(url: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.#cookies.size > 0) headers.set("cookie", [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; "));
    const response = await fetch(url, { ...init, headers, redirect: "manual" });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
      if (value === "" || /max-age=0|expires=thu, 01 jan 1970/i.test(cookie)) this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
    return response;
  }

  /** Follows redirects for as long as they stay clear of `until`. Resolves to the last answer and its URL. */
  async follow(start: string, until: (url: string) => boolean = () => false): Promise<{ url: string; response: Response }> {
    let url = start;
    for (let hop = 0; hop < MAX_HOPS; hop++) {
      const response = await this.send(url);
      const location = response.headers.get("location");
      if (location === null) return { url, response };
      url = new URL(location, url).href;
      if (until(url)) return { url, response };
    }
    throw new Error(`more than ${MAX_HOPS} redirects from ${start}`);
  }

  /** Sends the form of a page that leads to `path`, or its only one, with these fields over its own hidden ones. */
  async submit(page: { url: string; response: Response }, fields: Readonly<Record<string, string>>, path = ""): Promise<Response> {
    const whole = await page.response.text();
    const text = whole.split("<form").find((each) => new RegExp(`^[^>]*action="[^"]*${path}"`).test(each)) ?? "";
    const action = /action="([^"]*)"/.exec(text)?.[1] ?? page.url;
    const body = new URLSearchParams();
    for (const [tag] of text.matchAll(/<input[^>]*type="hidden"[^>]*>/g))
      body.set(/name="([^"]*)"/.exec(tag)?.[1] ?? "", /value="([^"]*)"/.exec(tag)?.[1] ?? "");
    for (const [name, value] of Object.entries(fields)) body.set(name, value);
    const url = new URL(action.replaceAll("&amp;", "&"), page.url).href;
    return this.send(url, { method: "POST", body, headers: { origin: new URL(page.url).origin } });
  }
}

const MAX_HOPS = 12;
