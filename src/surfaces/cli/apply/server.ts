/** The administrative API of one server. */
export interface AdminApi {
  /** Null where the answer is 404. */
  get(path: string): Promise<Answer | null>;
  /** Every member of a list, whatever its length; null where the answer is 404. */
  list(path: string): Promise<readonly Readonly<Record<string, unknown>>[] | null>;
  put(path: string, body: unknown, ifMatch: string | null): Promise<Answer>;
  /** Sent again when its answer is lost, under one Idempotency-Key. */
  post(path: string, body: unknown): Promise<Answer>;
  delete(path: string, ifMatch: string | null): Promise<void>;
  /** How many requests were sent. */
  readonly requests: number;
}

export interface Answer {
  readonly body: Readonly<Record<string, unknown>>;
  readonly etag: string | null;
}

/** What the server said no to, or that it could not be reached; `status` is null there. */
export class ServerProblem extends Error {
  override readonly name = "ServerProblem";
  readonly status: number | null;
  readonly param: string | null;
  constructor(message: string, status: number | null = null, param: string | null = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

/** Page length of lists: the most that the API gives. */
const PAGE = 100;
const TRIES_OF_A_POST = 3;
const TIMEOUT_MS = 60_000;

/** `base` is the server's URL, with its base path where it has one. `key` is sent to that server only. */
export function createAdminApi(base: string, key: string): AdminApi {
  const root = `${base.replace(/\/+$/, "")}/admin/v1/`;
  let requests = 0;
  const ask = async (method: string, path: string, more: Asked = {}): Promise<Answer> => {
    requests += 1;
    return send(root + path, key, method, more);
  };
  const orNull = (error: unknown): null => {
    if (error instanceof ServerProblem && error.status === 404) return null;
    throw error;
  };
  return {
    get requests() {
      return requests;
    },
    get: (path) => ask("GET", path).catch(orNull),
    async list(path) {
      const members: Readonly<Record<string, unknown>>[] = [];
      for (let after = ""; ;) {
        const page = await ask("GET", `${path}?limit=${PAGE}${after === "" ? "" : `&after=${encodeURIComponent(after)}`}`).catch(orNull);
        if (page === null) return null;
        members.push(...(page.body["data"] as Readonly<Record<string, unknown>>[]));
        const last = page.body["last_id"];
        if (page.body["has_more"] !== true || typeof last !== "string") return members;
        after = last;
      }
    },
    put: (path, body, ifMatch) => ask("PUT", path, { body, headers: ifMatch === null ? {} : { "if-match": ifMatch } }),
    async post(path, body) {
      const headers = { "idempotency-key": crypto.randomUUID() };
      for (let tries = 1; ; tries++) {
        try {
          return await ask("POST", path, { body, headers });
        } catch (error) {
          if (!(error instanceof ServerProblem) || error.status !== null || tries === TRIES_OF_A_POST) throw error;
        }
      }
    },
    async delete(path, ifMatch) {
      await ask("DELETE", path, { headers: ifMatch === null ? {} : { "if-match": ifMatch } });
    },
  };
}

interface Asked {
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Throws ServerProblem. A redirect is not followed: the key is for the server that was named. */
async function send(url: string, key: string, method: string, { body, headers = {} }: Asked): Promise<Answer> {
  let response: Response;
  let text: string;
  try {
    response = await fetch(url, {
      method,
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    text = await response.text();
  } catch (error) {
    throw new ServerProblem(`${new URL(url).origin} cannot be reached: ${reasonOf(error)}.`);
  }
  const parsed = parsedOf(text);
  if (!response.ok) throw problemOf(response.status, parsed, url);
  if (parsed === null) throw new ServerProblem(`${new URL(url).origin} does not answer like Atrium.`, response.status);
  return { body: parsed, etag: response.headers.get("etag") };
}

function reasonOf(error: unknown): string {
  const { cause, message } = error as Error & { cause?: { code?: string; message?: string } };
  return cause?.code ?? cause?.message ?? message;
}

function parsedOf(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : null;
  } catch {
    return null;
  }
}

function problemOf(status: number, body: Readonly<Record<string, unknown>> | null, url: string): ServerProblem {
  const { message, param } = (body?.["error"] ?? {}) as { message?: string; param?: string | null };
  return new ServerProblem(message ?? `${new URL(url).origin} answered ${status}, and not like Atrium.`, status, param ?? null);
}
