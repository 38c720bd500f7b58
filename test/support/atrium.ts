import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

const ROOT = path.join(import.meta.dirname, "..", "..");
/** What `npm start` runs: its variables, and the arguments of node. */
const START = startCommand();
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;

export const BOOTSTRAP_KEY = "bootstrap-key-of-the-tests-0123456789";

/** A server process as `npm start` runs it, on a free port, with a data directory of its own unless one is given. */
export interface AtriumProcess {
  readonly url: string;
  readonly pid: number;
  readonly dataDirectory: string;
  /** Everything it printed so far, standard output and standard error. */
  output(): string;
  /** Calls the platform's admin API with the bootstrap key; throws on any status but 200 and 201. */
  admin(method: string, path: string, body?: unknown): Promise<unknown>;
  /** SIGTERM, and waits for the drain. Resolves to the exit code. */
  stop(): Promise<number | null>;
  /** SIGKILL, and waits until it is gone. */
  kill(): Promise<void>;
}

export interface StartOptions {
  readonly dataDirectory?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly port?: number;
  /** Through `npm start`, as the README does; then `pid` is npm's. */
  readonly viaNpm?: boolean;
}

export async function startAtriumProcess(options: StartOptions = {}): Promise<AtriumProcess> {
  const dataDirectory = options.dataDirectory ?? (await mkdtemp(path.join(tmpdir(), "atrium-")));
  const [command, args] = options.viaNpm === true ? ["npm", ["start"]] : [process.execPath, START.args];
  const child = spawn(command, args, {
    cwd: ROOT,
    env: {
      ...process.env,
      ...START.environment,
      PORT: String(options.port ?? 0),
      ATRIUM_DATA_DIR: dataDirectory,
      ATRIUM_BOOTSTRAP_KEY: BOOTSTRAP_KEY,
      ATRIUM_LOG_LEVEL: "warn",
      ...options.environment,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
  const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  const url = await listening(child, () => output);
  return {
    url,
    pid: child.pid as number,
    dataDirectory,
    output: () => output,
    async admin(method, route, body) {
      const response = await fetch(`${url}/admin/v1/${route}`, {
        method,
        headers: { authorization: `Bearer ${BOOTSTRAP_KEY}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      if (!response.ok) throw new Error(`${method} ${route}: ${response.status} ${text}`);
      return JSON.parse(text) as unknown;
    },
    async stop() {
      child.kill("SIGTERM");
      const code = await Promise.race([
        exited,
        new Promise<never>((_, reject) => setTimeout(() => reject(new Error(`did not stop:\n${output}`)), STOP_TIMEOUT_MS).unref()),
      ]);
      return code;
    },
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

/** Without npm in between, so that the process started is the server. */
function startCommand(): { readonly environment: Readonly<Record<string, string>>; readonly args: readonly string[] } {
  const { scripts } = JSON.parse(readFileSync(path.join(ROOT, "package.json"), "utf8")) as { scripts: { start: string } };
  const [variables, args] = scripts.start.split("exec node ") as [string, string];
  const environment = Object.fromEntries(
    variables
      .trim()
      .split(" ")
      .map((each) => each.split("=") as [string, string]),
  );
  return { environment, args: args.split(" ") };
}

/** The address the server prints once it listens. */
function listening(child: ChildProcess, output: () => string): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(new Error(`did not start:\n${output()}`));
    }, START_TIMEOUT_MS);
    const look = () => {
      const url = /listens on (https?:\/\/\S+)\n/.exec(output())?.[1];
      if (url === undefined) return;
      clearTimeout(timer);
      resolve(url);
    };
    child.stdout?.on("data", look);
    child.once("exit", (code) => {
      clearTimeout(timer);
      reject(new Error(`exited with ${code}:\n${output()}`));
    });
  });
}

/** Removes a data directory once nothing uses it. */
export function removeData(dataDirectory: string): Promise<void> {
  return rm(dataDirectory, { recursive: true, force: true });
}

export interface Tenancy {
  readonly tenant: string;
  readonly project: string;
  readonly key: string;
}

/** A tenant with one project and one developer key that may call the model named. */
export async function createTenancy(atrium: Pick<AtriumProcess, "admin">, tenant: string, model: string): Promise<Tenancy> {
  await atrium.admin("PUT", `tenants/${tenant}`, {});
  await atrium.admin("PUT", `tenants/${tenant}/projects/main`, {});
  await atrium.admin("PUT", `tenants/${tenant}/grants/${model}`, {});
  const { key } = (await atrium.admin("POST", `tenants/${tenant}/projects/main/keys`, { name: "app" })) as { key: string };
  return { tenant, project: "main", key };
}

export interface ModelSetup {
  readonly model: string;
  readonly provider: string;
  readonly upstreamModel: string;
  readonly baseUrl?: string;
  readonly price?: unknown;
  readonly options?: unknown;
}

/** A model with one deployment; with a credential where a base URL is given. */
export async function createModel(atrium: Pick<AtriumProcess, "admin">, setup: ModelSetup): Promise<void> {
  const { model, provider, baseUrl } = setup;
  if (baseUrl !== undefined)
    await atrium.admin("PUT", `credentials/${model}-account`, { provider, base_url: baseUrl, api_key: "sk-upstream-canary-0123456789" });
  await atrium.admin("PUT", `models/${model}`, {});
  await atrium.admin("PUT", `models/${model}/deployments/main`, {
    provider,
    upstream_model: setup.upstreamModel,
    ...(baseUrl === undefined ? {} : { credential: `${model}-account` }),
    ...(setup.price === undefined ? {} : { price: setup.price }),
    ...(setup.options === undefined ? {} : { options: setup.options }),
  });
}
