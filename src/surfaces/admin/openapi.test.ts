import assert from "node:assert/strict";
import { test } from "node:test";
import { startToyPlatform } from "../../../test/contracts/toy-platform.ts";
import { openApiDocument } from "./openapi.ts";

interface Operation {
  readonly operationId: string;
  readonly parameters: readonly { readonly name: string; readonly in: string }[];
  readonly requestBody?: {
    readonly content: Record<string, { readonly example?: unknown; readonly schema: { readonly additionalProperties?: unknown } }>;
  };
  readonly responses: Record<string, { readonly $ref?: string }>;
}

test("every route is in the document once, with its parameters, its strict body, its example and its problems", async (t) => {
  const { server, routes } = await startToyPlatform();
  t.after(() => server.close());
  const document = openApiDocument(routes) as {
    paths: Record<string, Record<string, Operation>>;
    components: { responses: Record<string, unknown> };
  };
  for (const route of routes) {
    const operation = document.paths[route.path]?.[route.method.toLowerCase()];
    assert.ok(operation, `${route.id} is missing`);
    assert.equal(operation.operationId, route.id);
    assert.deepEqual(
      operation.parameters.filter((each) => each.in === "path").map(({ name }) => name),
      Object.keys(route.example.params),
    );
    const body = operation.requestBody?.content["application/json"];
    assert.deepEqual(
      [body?.example, body?.schema.additionalProperties],
      route.body === null ? [undefined, undefined] : [route.example.body, false],
    );
    for (const status of ["400", "401", "403"]) assert.ok(operation.responses[status], `${route.id} says nothing of ${status}`);
  }
  assert.equal(Object.values(document.paths).flatMap(Object.values).length, routes.length);
});

test("every reference in the document leads somewhere", async (t) => {
  const { server, routes } = await startToyPlatform();
  t.after(() => server.close());
  const document = openApiDocument(routes);
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map((match) => match[1] as string);
  assert.ok(references.length > 0);
  for (const reference of new Set(references)) {
    const target = reference.split("/").reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], document);
    assert.ok(target, reference);
  }
});

test("the server serves the document of the routes it mounted", async (t) => {
  const { server, routes, adminKey } = await startToyPlatform();
  t.after(() => server.close());
  const answer = await server.inject({ url: "/admin/v1/openapi.json", headers: { authorization: `Bearer ${adminKey}` } });
  assert.deepEqual(answer.json(), JSON.parse(JSON.stringify(openApiDocument(routes))));
});
