import assert from "node:assert/strict";
import { test } from "node:test";
import { routeTable } from "../../scripts/route-table.ts";
import { ADMIN_KEY, startInstallation } from "./installation.ts";
import { worldAt } from "./real-world.ts";
import { leafOf, Stage } from "./stage.ts";

const AT_ONCE = 6;

test("every PUT: equal upserts of a new name at once all succeed and make one thing; of two with one If-Match, one is 412", async (t) => {
  const raced: string[] = [];
  const installation = await startInstallation(t);
  await installation.database.asSuperuser(async (superuser) => {
    const stage = await Stage.build(worldAt(installation, routeTable(), superuser));
    for (const route of routeTable().filter(({ method }) => method === "PUT")) {
      const params = stage.isShared(route.path)
        ? stage.params(route, "A")
        : {
            ...stage.params(route, "A"),
            [leafOf(route.path)]: (route.example.params[leafOf(route.path)] ?? "").includes("@") ? "once@example.com" : "made-at-once",
          };
      const answers = await Promise.all(Array.from({ length: AT_ONCE }, () => stage.call(route, ADMIN_KEY, params, "A")));
      assert.deepEqual(
        answers.filter(({ status }) => status >= 300),
        [],
        route.id,
      );
      assert.equal(new Set(answers.map(({ text }) => (JSON.parse(text) as { id: string }).id)).size, 1, route.id);

      const { headers } = await stage.call(route, ADMIN_KEY, params, "A");
      if (headers["etag"] === undefined) continue;
      const change = (display_name: string) => ({
        headers: { "content-type": "application/json", "if-match": headers["etag"] as string },
        body: { ...stage.body(route, "A"), display_name },
      });
      const racing = await Promise.all(["one", "two"].map((name) => stage.call(route, ADMIN_KEY, params, "A", change(name))));
      assert.deepEqual(
        racing.map(({ status }) => status).toSorted((left, right) => left - right),
        [200, 412],
        route.id,
      );
      raced.push(route.id);
    }
  });
  t.diagnostic(`raced with If-Match: ${raced.join(", ")}`);
  assert.ok(raced.length > 0);
});
