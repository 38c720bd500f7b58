import { constants } from "node:fs";
import { access, copyFile, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Config } from "../../config.ts";

/** The admin API of this very process: the first start uses what everybody uses. */
export type AdminCall = (method: "PUT" | "POST", path: string, body: object) => Promise<Record<string, unknown>>;

export interface Demo {
  readonly key: string;
  readonly model: string;
  /** What to tell the user about the model that answers. */
  readonly remark: string;
}

const DEMO_TENANT = "demo";
const SIMULATED = "simulated";

/**
 * Makes the demo tenant: one project, one key, the `simulated` model and, with ATRIUM_DEMO_MODEL, a real one. A real model
 * that cannot be registered does not stop the first start, which has minted a key to hand over: the remark says why.
 */
export async function createDemo(config: Config, modelsDirectory: string, admin: AdminCall): Promise<Demo> {
  await admin("PUT", `models/${SIMULATED}`, {});
  await admin("PUT", `models/${SIMULATED}/deployments/inside`, { provider: "simulated", upstream_model: SIMULATED, price: "free" });
  await admin("PUT", `tenants/${DEMO_TENANT}`, { display_name: "Demo" });
  await admin("PUT", `tenants/${DEMO_TENANT}/projects/demo`, { display_name: "Demo project" });
  await admin("PUT", `tenants/${DEMO_TENANT}/grants/${SIMULATED}`, {});
  const { key } = await admin("POST", `tenants/${DEMO_TENANT}/projects/demo/keys`, { name: "demo" });
  return { key: String(key), ...(await answeringModel(config, modelsDirectory, admin)) };
}

async function answeringModel(config: Config, modelsDirectory: string, admin: AdminCall): Promise<Omit<Demo, "key">> {
  const simulated = { model: SIMULATED, remark: "answered by `simulated`: seeded text, no real model" };
  if (config.ATRIUM_DEMO_MODEL === null) return simulated;
  try {
    return await registerReal(config, config.ATRIUM_DEMO_MODEL, modelsDirectory, admin);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { ...simulated, remark: `${simulated.remark}, because ATRIUM_DEMO_MODEL could not be added: ${reason}` };
  }
}

async function registerReal(config: Config, wanted: string, modelsDirectory: string, admin: AdminCall): Promise<Omit<Demo, "key">> {
  const demo = wanted.endsWith(".gguf")
    ? await registerFile(wanted, modelsDirectory, admin)
    : await registerUpstream(config, wanted, admin);
  await admin("PUT", `tenants/${DEMO_TENANT}/grants/${encodeURIComponent(demo.model)}`, {});
  return demo;
}

/** GGUF files are opened from one folder only, so a file from elsewhere is copied there. */
async function registerFile(wanted: string, modelsDirectory: string, admin: AdminCall): Promise<Omit<Demo, "key">> {
  const file = path.basename(wanted);
  const model = file.slice(0, -".gguf".length).toLowerCase();
  const target = path.join(modelsDirectory, file);
  if (!(await exists(target))) {
    await mkdir(modelsDirectory, { recursive: true, mode: 0o700 });
    await copyFile(path.resolve(wanted), target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  }
  await admin("PUT", `models/${encodeURIComponent(model)}`, {});
  await admin("PUT", `models/${encodeURIComponent(model)}/deployments/here`, { provider: "local", upstream_model: file, price: "free" });
  return { model, remark: `answered by ${file}, on this machine` };
}

async function registerUpstream(config: Config, model: string, admin: AdminCall): Promise<Omit<Demo, "key">> {
  if (config.OPENAI_API_KEY === null) throw new Error("ATRIUM_DEMO_MODEL names an upstream model: set OPENAI_API_KEY beside it.");
  await admin("PUT", "credentials/openai", { provider: "openai", base_url: config.OPENAI_BASE_URL, api_key: config.OPENAI_API_KEY });
  await admin("PUT", `models/${encodeURIComponent(model)}`, {});
  await admin("PUT", `models/${encodeURIComponent(model)}/deployments/openai`, {
    provider: "openai",
    credential: "openai",
    upstream_model: model,
    price: "free",
  });
  return { model, remark: `answered by ${config.OPENAI_BASE_URL}; recorded as free until you PUT a price on its deployment` };
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

/** Writes a secret where only this user reads it. */
export async function writeSecretFile(file: string, secret: string): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
  await writeFile(file, `${secret}\n`, { mode: 0o600 });
}
