import { after, test } from "node:test";
import assert from "node:assert/strict";
import { systemClock } from "../../kernel/clock.ts";
import { Problem } from "../../kernel/problem.ts";
import type { JsonObject, ModelRequest } from "../../kernel/request.ts";
import { DispatchError, type Provider } from "./contract.ts";
import { parseMessages } from "./dialects/anthropic/request.ts";
import { createProviders } from "./service.ts";
import { deploymentOf, dispatchOf } from "./testing/dispatching.ts";
import { JSON_HEADERS, completionOf, scriptedUpstream } from "./testing/scripted-upstream.ts";

const providers = createProviders({ clock: systemClock });
after(() => providers.close());

const MINIMAL: JsonObject = { model: "demo", messages: [{ role: "user", content: "hi" }] };

test("every provider of the table has an id of its own, and an https base URL unless it runs on this machine or must be told", () => {
  const ids = providers.list().map((provider) => provider.id);
  assert.deepEqual(ids, [...new Set(ids)].toSorted());
  for (const id of [
    "openai",
    "groq",
    "mistral",
    "deepseek",
    "openrouter",
    "together",
    "fireworks",
    "xai",
    "vllm",
    "sglang",
    "ollama",
    "lmstudio",
    "llamacpp",
    "simulated",
  ])
    assert.ok(providers.get(id), id);
  for (const { id, defaultBaseUrl } of providers.list())
    if (defaultBaseUrl !== null) assert.match(defaultBaseUrl, /^(https:|http:\/\/127\.0\.0\.1)/, id);
  assert.equal(providers.get("constructor"), undefined);
});

test("an engine gets the tenant's cache salt and refuses unknown fields; a vendor gets no salt and has them forwarded", async (t) => {
  const upstream = await scriptedUpstream((exchange) => {
    exchange.head(200, JSON_HEADERS);
    exchange.end(JSON.stringify(completionOf("a")));
  });
  t.after(() => upstream.close());
  const send = async (id: string, fields: JsonObject): Promise<JsonObject> => {
    const provider = named(id);
    await provider.dispatch(dispatchOf(deploymentOf({ provider: id, baseUrl: upstream.baseUrl }), { ...MINIMAL, ...fields }));
    return JSON.parse(upstream.exchanges.at(-1)?.body.toString() ?? "") as JsonObject;
  };
  assert.equal((await send("vllm", {}))["cache_salt"], "salt-of-tenant");
  assert.notEqual((await send("vllm", { cache_salt: "mine" }))["cache_salt"], "mine");
  assert.equal((await send("vllm", { user: "alice" }))["user"], undefined);
  assert.equal((await send("openai", { cache_salt: "mine" }))["cache_salt"], undefined);
  assert.match(JSON.stringify((await send("openai", { user: "alice" }))["user"]), /^"[0-9a-f]{64}"$/);
  assert.equal((await send("groq", { max_completion_tokens: 5 }))["max_completion_tokens"], 5);
  assert.equal((await send("ollama", { max_completion_tokens: 5 }))["max_tokens"], 5);
  assert.equal(upstream.exchanges[0]?.headers.authorization, undefined);
  assert.equal(refusal("vllm", { color: "blue" }), "color");
  assert.equal(refusal("vllm", { color: "blue" }, "forward"), null);
  assert.equal(refusal("openai", { color: "blue" }), null);
  assert.equal(refusal("openai", { color: "blue" }, "refuse"), "color");
});

test("an engine is never made to fetch: media must come as data URLs", () => {
  const image = (url: string): JsonObject => ({
    messages: [
      {
        role: "user",
        content: [
          { type: "text", text: "look" },
          { type: "image_url", image_url: { url } },
        ],
      },
    ],
  });
  for (const url of ["http://169.254.169.254/latest/meta-data", "https://example.com/a.png", "file:///etc/passwd", ""])
    assert.equal(refusal("vllm", image(url)), "messages[0].content[1].image_url", url);
  assert.equal(
    refusal("sglang", { messages: [{ role: "user", content: [{ type: "video_url", video_url: { url: "http://a/b" } }] }] }),
    "messages[0].content[0].video_url",
  );
  assert.equal(refusal("vllm", image("data:image/png;base64,AAAA")), null);
  assert.equal(refusal("openai", image("https://example.com/a.png")), null);
});

test("what an upstream cannot be told is refused in the words of an Anthropic caller, before anything is held", () => {
  const refused = (id: string, fields: JsonObject): string | null => {
    const request = parseMessages(Buffer.from(JSON.stringify({ ...MINIMAL, max_tokens: 5, ...fields })));
    return refusalOf(() => named(id).accept(request, deploymentOf({ provider: id })));
  };
  const image = (url: string): JsonObject => ({
    messages: [{ role: "user", content: [{ type: "image", source: { type: "url", url } }] }],
  });
  assert.equal(refused("openai", { top_k: 5 }), "top_k");
  assert.equal(refused("vllm", { top_k: 5 }), null);
  assert.equal(refused("openai", { thinking: { type: "enabled", budget_tokens: 2000 } }), "thinking");
  assert.equal(refused("openai", image("https://example.com/a.png")), null);
  assert.equal(refused("vllm", image("https://example.com/a.png")), "messages[0].content[0]");
  assert.equal(
    refused("openai", {
      messages: [
        {
          role: "user",
          content: [
            {
              type: "tool_result",
              tool_use_id: "c",
              content: [{ type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } }],
            },
          ],
        },
      ],
    }),
    "messages[0].content[0].content[0]",
  );
});

test("a base URL's own query stays, and its trailing slash does not double", async (t) => {
  const upstream = await scriptedUpstream((exchange) => {
    exchange.head(200, JSON_HEADERS);
    exchange.end(JSON.stringify(completionOf("a")));
  });
  t.after(() => upstream.close());
  await named("openai_compatible").dispatch(
    dispatchOf(deploymentOf({ provider: "openai_compatible", baseUrl: `${upstream.baseUrl}/?api-version=1` }), MINIMAL),
  );
  assert.equal(upstream.exchanges[0]?.path, "/v1/chat/completions?api-version=1");
});

function named(id: string): Provider {
  const provider = providers.get(id);
  assert.ok(provider);
  return provider;
}

/** The param of the refusal; null where the request is accepted. */
function refusal(id: string, fields: JsonObject, unknownFields: "forward" | "refuse" | null = null): string | null {
  const { request, deployment } = dispatchOf(deploymentOf({ provider: id, options: { unknownFields } }), { ...MINIMAL, ...fields });
  return refusalOf(() => named(id).accept(request, deployment));
}

function refusalOf(accept: () => void): string | null {
  try {
    accept();
    return null;
  } catch (thrown) {
    assert.ok(thrown instanceof Problem && thrown.code === "unsupported_field");
    return thrown.param;
  }
}

test("an upstream's refusal names its field to a caller of its dialect, and to no other", async (t) => {
  const upstream = await scriptedUpstream((exchange) => {
    exchange.head(400, JSON_HEADERS);
    exchange.end(JSON.stringify({ error: { message: "too large", param: "max_completion_tokens", code: "invalid" } }));
  });
  t.after(() => upstream.close());
  const deployment = deploymentOf({ provider: "openai", baseUrl: upstream.baseUrl });
  const told = async (request?: ModelRequest): Promise<unknown> => {
    const failed = named("openai").dispatch(dispatchOf(deployment, MINIMAL, request === undefined ? {} : { request }));
    const thrown: unknown = await failed.then(
      () => assert.fail("nothing was thrown"),
      (error: unknown) => error,
    );
    assert.ok(thrown instanceof DispatchError && thrown.failure.kind === "status");
    return [thrown.failure.message, thrown.failure.param];
  };
  assert.deepEqual(await told(), ["too large", "max_completion_tokens"]);
  assert.deepEqual(await told(parseMessages(Buffer.from(JSON.stringify({ ...MINIMAL, max_tokens: 5 })))), ["too large", null]);
});
