import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import fc from "fast-check";
import { parse } from "yaml";
import { readManifest } from "../../src/surfaces/cli/apply/file.ts";
import { type Kinds, kindsOf } from "../../src/surfaces/cli/apply/kinds.ts";
import { perform } from "../../src/surfaces/cli/apply/perform.ts";
import { makePlan } from "../../src/surfaces/cli/apply/plan.ts";
import { createReferences } from "../../src/surfaces/cli/apply/references.ts";
import { createAdminApi } from "../../src/surfaces/cli/apply/server.ts";
import { importLitellm } from "../../src/surfaces/cli/litellm/map.ts";
import { renderImported } from "../../src/surfaces/cli/litellm/render.ts";
import { leavesOf, type Path, render } from "../../src/surfaces/cli/litellm/source.ts";
import { perMillion } from "../../src/surfaces/cli/litellm/values.ts";
import { openApiDocument } from "../../src/surfaces/admin/openapi.ts";
import { routeTable } from "../../scripts/route-table.ts";
import { ADMIN_KEY, startInstallation } from "./installation.ts";
import { scaled } from "../support/scale.ts";

const CORPUS = path.join(import.meta.dirname, "litellm");
const LITERAL = /sk-literal-of-the-corpus/;

test("nothing is dropped in silence: each value of the corpus is reported by its path, or changes what is written when it changes", async (t) => {
  let mapped = 0;
  let reported = 0;
  for (const { name, config } of await corpus()) {
    const whole = importLitellm(config);
    for (const leaf of leavesOf(config)) {
      if (isReported(leaf, whole.unmapped)) {
        reported += 1;
        continue;
      }
      const texts = variantsOf(config, leaf).map((variant) => JSON.stringify(importLitellm(variant)));
      assert.ok(
        texts.some((text) => text !== JSON.stringify(whole)),
        `${name}: ${render(leaf)} is neither reported nor carried over`,
      );
      mapped += 1;
    }
  }
  t.diagnostic(`${mapped} values carried over, ${reported} reported`);
  assert.ok(mapped > 40 && reported > 80);
});

test("whatever else a configuration holds, anywhere, is reported by its path", async (t) => {
  const configs = await corpus();
  const runs = scaled(2_000);
  fc.assert(
    fc.property(
      fc.constantFrom(...configs),
      fc.nat(),
      fc.jsonValue({ maxDepth: 2 }),
      fc.string({ minLength: 1 }),
      ({ config }, at, value, name) => {
        const copy = structuredClone(config);
        const containers = containersOf(copy);
        const [place, container] = containers[at % containers.length] as (typeof containers)[number];
        const key = Array.isArray(container) ? container.length : `matrix ${name}`;
        (container as Record<string | number, unknown>)[key] = value;
        const { unmapped } = importLitellm(copy);
        for (const leaf of leavesOf(value, [...place, key])) assert.ok(isReported(leaf, unmapped), render(leaf));
      },
    ),
    { numRuns: runs },
  );
  t.diagnostic(`${runs} additions`);
});

test("any value at all is imported without a crash, and no secret of a file is written into another", async () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => void renderImported(importLitellm({ model_list: value, router_settings: value }), "x")));
  for (const { config } of await corpus()) {
    const text = renderImported(importLitellm(config), "config.yaml");
    assert.doesNotMatch(text, LITERAL);
  }
});

test("a cost per token becomes USD per million tokens, exactly", () => {
  const expected: readonly (readonly [unknown, string | null])[] = [
    [0.00000015, "0.15"],
    [6e-7, "0.6"],
    [1.1e-7, "0.11"],
    [0.000001375, "1.375"],
    [0, "0"],
    [1, "1000000"],
    [0.5, "500000"],
    ["3e-06", "3"],
    [1.5e-13, "0.00000015"],
    ["", null],
    ["free", null],
    [-1, null],
    [null, null],
  ];
  for (const [cost, rate] of expected) assert.equal(perMillion(cost), rate, String(cost));
});

test("what the corpus becomes is a file that `apply` carries out, and a second plan has nothing to do", async (t) => {
  const { url } = await startInstallation(t);
  const api = createAdminApi(url, ADMIN_KEY);
  const kinds = kindsOf((await api.get("openapi.json"))?.body);
  for (const { name, config } of await corpus()) {
    const imported = importLitellm(config);
    const text = renderImported(imported, name);
    const made = await planOf(t, api, kinds, text);
    await perform(api, made.plan, made.references, { done: () => {}, reveal: () => {} });
    const again = await planOf(t, api, kinds, text);
    assert.deepEqual(
      again.plan.actions.map(({ address }) => address),
      [],
      name,
    );
    t.diagnostic(`${name}: ${made.plan.actions.length} resources, ${imported.unmapped.length} lines of what is left`);
  }
});

test("what a known configuration becomes", async () => {
  const { config } = (await corpus()).find(({ name }) => name === "balanced.yaml") as Named;
  const { manifest, unmapped } = importLitellm(config);
  assert.deepEqual(manifest["credentials"], {
    openai: { provider: "openai", api_key: "${OPENAI_KEY_ONE}" },
    "openai-2": { provider: "openai", base_url: "https://eu.api.openai.com/v1", api_key: "${CHAT_API_KEY}" },
  });
  const { chat, "gpt-4": alias } = manifest["models"] as Record<string, Record<string, unknown>>;
  assert.deepEqual(chat, {
    visibility: "all",
    context_window: 128_000,
    max_output_tokens: 16_384,
    deployments: {
      "eu-1": {
        provider: "openai",
        credential: "openai",
        upstream_model: "gpt-4o",
        price: "dataset",
        total_timeout_ms: 300_000,
        position: 1,
      },
      "openai-2": {
        provider: "openai",
        credential: "openai-2",
        upstream_model: "gpt-4o",
        price: "dataset",
        region: "eu",
        total_timeout_ms: 30_000,
      },
    },
  });
  assert.deepEqual(alias, chat);
  assert.deepEqual((manifest["limits"] as Record<string, unknown>)["chat-eu-1-requests"], {
    scope: { kind: "deployment", model: "chat", deployment: "eu-1" },
    dimension: "requests",
    limit: 480,
  });
  assert.ok(unmapped.some((each) => each.path === "model_list[2]" && each.reason === "Atrium has no provider for 'azure'"));
  assert.ok(unmapped.some((each) => each.path === "router_settings.fallbacks"));
});

test("the file can be read wherever the routes of this release are", () => {
  const kinds = kindsOf(openApiDocument(routeTable()));
  for (const steps of ["credentials", "models", "models/deployments", "limits"]) assert.ok(kinds.has(steps), steps);
});

interface Named {
  readonly name: string;
  readonly config: unknown;
}

async function corpus(): Promise<Named[]> {
  const names = (await readdir(CORPUS)).filter((name) => name.endsWith(".yaml")).toSorted();
  assert.ok(names.length >= 5);
  return Promise.all(names.map(async (name) => ({ name, config: parse(await readFile(path.join(CORPUS, name), "utf8")) as unknown })));
}

async function planOf(t: TestContext, api: ReturnType<typeof createAdminApi>, kinds: Kinds, text: string) {
  const directory = await mkdtemp(path.join(tmpdir(), "atrium-import-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const file = path.join(directory, "atrium.yaml");
  await writeFile(file, text);
  const environment = Object.fromEntries(
    [...text.matchAll(/\$\{([A-Z0-9_]+)\}/g)].map((match) => [match[1] as string, "https://upstream.example/v1"]),
  );
  const references = createReferences(environment, () => null);
  const manifest = readManifest([file], kinds, references);
  return { references, plan: await makePlan(api, kinds, manifest, references, { prune: false, sendSecrets: false }) };
}

/** Whether a line stands for this value, or for something it is part of. */
function isReported(leaf: Path, unmapped: readonly { readonly path: string }[]): boolean {
  const prefixes = new Set(leaf.map((_, index) => render(leaf.slice(0, index + 1))));
  return unmapped.some((each) => prefixes.has(each.path));
}

/** The configuration with another value at the leaf, in each of several ways. */
function variantsOf(config: unknown, leaf: Path): unknown[] {
  const value = leaf.reduce<unknown>((node, step) => (node as Record<string | number, unknown>)[step], config);
  const others: unknown[] =
    typeof value === "number"
      ? [value + 1, value * 2]
      : [`${String(value)}x`, "os.environ/ANOTHER", "31d", "anthropic/claude-x", "https://other.example"];
  return others.map((other) => {
    const copy = structuredClone(config) as Record<string | number, unknown>;
    const parent = leaf
      .slice(0, -1)
      .reduce<Record<string | number, unknown>>((node, step) => node[step] as Record<string | number, unknown>, copy);
    parent[leaf.at(-1) as string] = other;
    return copy;
  });
}

function containersOf(value: unknown, at: Path = []): (readonly [Path, object])[] {
  if (typeof value !== "object" || value === null) return [];
  const children = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  return [[at, value], ...children.flatMap(([step, child]) => containersOf(child, [...at, step]))];
}
