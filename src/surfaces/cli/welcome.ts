import { readFile } from "node:fs/promises";
import path from "node:path";
import { type Demo, writeSecretFile } from "./first-start.ts";

export interface Welcome {
  /** Where it listens, and where callers reach it. */
  readonly url: string;
  readonly publicUrl: string;
  /** Where administration and metrics listen, when that is an address of their own. */
  readonly managementUrl: string | null;
  readonly dataDirectory: string;
  /** A key minted by this start; null when one exists already. */
  readonly adminKey: string | null;
  /** The demo tenant, when this start made it. */
  readonly demo: Demo | null;
  /** Whether a person reads: only then is a secret printed. */
  readonly terminal: boolean;
}

/**
 * Says where the server is and how to begin. Secrets are printed on a terminal only; elsewhere they go to files that only
 * this user reads, and their paths are printed.
 */
export async function welcome(facts: Welcome): Promise<string> {
  const lines = [`Atrium listens on ${facts.url}`];
  if (facts.managementUrl !== null) lines.push(`Administration and metrics listen on ${facts.managementUrl}`);
  lines.push("");
  lines.push(...(await adminLines(facts)), ...(await demoLines(facts)));
  return `${lines.join("\n")}\n`;
}

async function adminLines({ adminKey, terminal, dataDirectory }: Welcome): Promise<string[]> {
  if (adminKey === null) return [];
  if (terminal) return ["Platform-admin key (shown this once; `npm run admin-key` mints another):", `  ${adminKey}`, ""];
  const file = path.join(dataDirectory, "admin.key");
  await writeSecretFile(file, adminKey);
  return [`The platform-admin key is in ${file}`, ""];
}

async function demoLines({ demo, terminal, dataDirectory, publicUrl }: Welcome): Promise<string[]> {
  const file = path.join(dataDirectory, "demo.json");
  if (demo !== null) await writeSecretFile(file, JSON.stringify(demo));
  const known = demo ?? (await readDemo(file));
  if (known === null) return [];
  if (!terminal) return demo === null ? [] : [`The demo tenant's key is in ${file} (${demo.remark})`, ""];
  return [
    `Try it as the demo tenant (${known.remark}):`,
    `  curl ${publicUrl}/v1/chat/completions \\`,
    `    -H 'authorization: Bearer ${known.key}' -H 'content-type: application/json' \\`,
    `    -d '{"model":"${known.model}","messages":[{"role":"user","content":"Hello!"}]}'`,
    "",
  ];
}

async function readDemo(file: string): Promise<Demo | null> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as Demo;
  } catch {
    return null;
  }
}
