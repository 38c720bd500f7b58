import { closeSync, fchmodSync, fsyncSync, openSync, writeSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { type Manifest, readManifest } from "./apply/file.ts";
import { kindsOf } from "./apply/kinds.ts";
import { perform, type Revealed, Stopped } from "./apply/perform.ts";
import { makePlan, type Plan } from "./apply/plan.ts";
import { headOf, renderDrift, renderPlan } from "./apply/print.ts";
import { createReferences, type References } from "./apply/references.ts";
import { createAdminApi } from "./apply/server.ts";
import { exitWith } from "./outside.ts";

// `npm run apply -- [plan|apply|drift] -f FILE…`: brings a running server to what files say (docs/guide/apply.md).
// `plan` changes nothing and is what happens unless told otherwise: it exits 0 where the server is as the files say, and 2 where not.
// The server is ATRIUM_URL, and the key ATRIUM_ADMIN_KEY: from the environment, so that no process list shows it.

await exitWith(async () => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      file: { type: "string", short: "f", multiple: true, default: [] },
      plan: { type: "boolean", default: false },
      prune: { type: "boolean", default: false },
      replace: { type: "boolean", default: false },
      "send-secrets": { type: "boolean", default: false },
      "secrets-out": { type: "string" },
    },
  });
  const verb = values.plan ? "plan" : (positionals[0] ?? "plan");
  if (!isVerb(verb) || positionals.length > 1 || values.file.length === 0)
    throw new Error("Say what and with which files: npm run apply -- [plan|apply|drift] -f FILE (docs/guide/apply.md).");
  const { api, kinds } = await connect();
  const references = createReferences(process.env, () => null);
  const manifest: Manifest = readManifest(values.file, kinds, references);
  const options = { prune: values.prune || verb === "drift", sendSecrets: values["send-secrets"] };
  const plan = await makePlan(api, kinds, manifest, references, options);
  if (verb === "drift") return say(renderDrift(plan, references), plan);
  const code = say(renderPlan(plan, references), plan);
  if (verb === "plan") return code;
  refuseReplacing(plan, values.replace);
  await carryOut(plan, references, api, values["secrets-out"] ?? null);
  return 0;
});

type Verb = "plan" | "apply" | "drift";

function isVerb(text: string): text is Verb {
  return text === "plan" || text === "apply" || text === "drift";
}

/** 0 where nothing is to be done, else 2. */
function say(text: string, plan: Plan): number {
  process.stdout.write(text);
  return plan.actions.length === 0 ? 0 : 2;
}

async function connect() {
  const { ATRIUM_URL: url = "http://127.0.0.1:4000", ATRIUM_ADMIN_KEY: key } = process.env;
  if (key === undefined || key === "") throw new Error("Set ATRIUM_ADMIN_KEY to a key that may administer the server.");
  if (!URL.canParse(url) || !/^https?:/.test(url)) throw new Error("ATRIUM_URL is no http or https address.");
  const api = createAdminApi(url, key);
  const document = await api.get("openapi.json");
  if (document === null) throw new Error(`${url} has no /admin/v1: is it the management address of an Atrium?`);
  return { api, kinds: kindsOf(document.body) };
}

function refuseReplacing(plan: Plan, isAllowed: boolean): void {
  const replaced = plan.actions.filter(({ act }) => act === "replace");
  if (replaced.length === 0 || isAllowed) return;
  const named = replaced.map(({ address }) => address).join(", ");
  throw new Error(
    `Nothing was done: ${named} cannot be changed in place. --replace ends the present one and makes another, with a new secret.`,
  );
}

/** Says what was done, also where it stops; what was not is done by the next run. */
async function carryOut(plan: Plan, references: References, api: Parameters<typeof perform>[0], secretsOut: string | null): Promise<void> {
  const reveal = revealer(plan, secretsOut);
  let done = 0;
  try {
    await perform(api, plan, references, { done: () => void (done += 1), reveal: reveal.reveal });
    process.stdout.write(`Done: ${done} of ${plan.actions.length}, in ${api.requests} requests.\n`);
  } catch (error) {
    if (!(error instanceof Stopped)) throw error;
    const rest = plan.actions.slice(done + 1).map((action) => `not done: ${headOf(action)}\n`);
    process.stdout.write(`Done: ${done} of ${plan.actions.length}.\nfailed:   ${headOf(error.action)}\n${rest.join("")}`);
    throw new Error(`${headOf(error.action)}: ${error.message}`, { cause: error });
  } finally {
    reveal.close();
  }
}

/** Secrets that are shown once are added to a file (0600, a JSON line each), or go to standard output. */
function revealer(plan: Plan, secretsOut: string | null): { reveal(revealed: Revealed): void; close(): void } {
  if (secretsOut === null || plan.actions.length === 0)
    return {
      reveal: ({ address, field, secret }) => void process.stdout.write(`${address} ${field}, shown this once: ${secret}\n`),
      close: () => {},
    };
  const file = openSync(path.resolve(secretsOut), "a", 0o600);
  fchmodSync(file, 0o600);
  return {
    reveal: (revealed) => {
      writeSync(file, `${JSON.stringify(revealed)}\n`);
      fsyncSync(file);
    },
    close: () => closeSync(file),
  };
}
