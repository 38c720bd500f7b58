import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { LLMock } from "@copilotkit/aimock";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess } from "../../support/atrium.ts";
import { CALLERS } from "./callers.ts";

// The same pairs against an upstream that is not ours: aimock speaks both wires on one port. Its usage is 0 unless a fixture says it.

const USAGE = { input_tokens: 12, output_tokens: 5, prompt_tokens: 12, completion_tokens: 5, total_tokens: 17 };
const CALLS = [
  { name: "weather", arguments: '{"city":"Paris"}', id: "call_1" },
  { name: "weather", arguments: '{"city":"Rome"}', id: "call_2" },
];

let atrium: AtriumProcess;
let key: string;
const mock = new LLMock({ port: 0, logLevel: "silent" });

before(async () => {
  mock.addFixture({ match: { userMessage: /hello/ }, response: { content: "Hi there, wörld!", usage: USAGE } });
  mock.addFixture({ match: { userMessage: /weather/, hasToolResult: false }, response: { toolCalls: CALLS, usage: USAGE } });
  mock.addFixture({ match: { userMessage: /weather/, hasToolResult: true }, response: { content: "Sunny and rainy.", usage: USAGE } });
  await mock.start();
  atrium = await startAtriumProcess();
  for (const provider of ["openai", "anthropic"])
    await createModel(atrium, {
      model: provider,
      provider,
      upstreamModel: UPSTREAM_MODELS[provider as keyof typeof UPSTREAM_MODELS],
      baseUrl: `${mock.url}/v1`,
      price: { input: "1", output: "2" },
    });
  ({ key } = await createTenancy(atrium, "aimock", "openai"));
  await atrium.admin("PUT", "tenants/aimock/grants/anthropic", {});
});
after(async () => {
  await atrium.stop();
  await mock.stop();
  await removeData(atrium.dataDirectory);
});

const UPSTREAM_MODELS = { openai: "gpt-4o", anthropic: "claude-sonnet-4-5" } as const;

for (const caller of ["openai", "anthropic"] as const)
  for (const model of ["openai", "anthropic"] as const)
    test(`${caller} → ${model}: text, two tools at once and the turn after them, plain and streamed`, async () => {
      for (const stream of [false, true]) {
        const access = { url: atrium.url, key, model };
        const hello = await CALLERS[caller](access).say({ text: "hello" }, { stream });
        assert.equal(hello.text, "Hi there, wörld!");
        assert.deepEqual([hello.usage.input, hello.usage.output], [12, 5]);
        const conversation = CALLERS[caller](access);
        const asked = await conversation.say({ text: "weather?" }, { stream, tools: true });
        assert.deepEqual(
          asked.calls.map(({ name, input }) => ({ name, input })),
          CALLS.map((call) => ({ name: call.name, input: JSON.parse(call.arguments) as unknown })),
        );
        assert.equal(asked.end, caller === "openai" ? "tool_calls" : "tool_use");
        const told = await conversation.say({ results: ["sunny", "rainy"] }, { stream, tools: true });
        assert.equal(told.text, "Sunny and rainy.");
      }
    });
