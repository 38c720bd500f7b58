import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { pageAmong } from "./list-object.ts";

const lists = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 3 }), { maxLength: 20 }).map((ids) => ids.map((id) => ({ id })));

test("whoever follows the pages of a whole list, forwards or backwards, in either order, meets each item once and in order", () => {
  fc.assert(
    fc.property(lists, fc.integer({ min: 1, max: 5 }), fc.constantFrom("asc", "desc"), (items, limit, order) => {
      const forwards: string[] = [];
      for (let after: string | undefined, more = true; more; after = forwards.at(-1)) {
        const page = pageAmong(items, { limit, after }, order);
        forwards.push(...page.data.map(({ id }) => id));
        assert.equal(page.last_id, page.data.at(-1)?.id ?? null);
        more = page.has_more;
      }
      const ascending = items.map(({ id }) => id).toSorted((one, other) => (one < other ? -1 : 1));
      assert.deepEqual(forwards, order === "asc" ? ascending : ascending.toReversed());
      const backwards = forwards.slice(-1);
      for (let more = backwards.length > 0; more;) {
        const page = pageAmong(items, { limit, before: backwards[0] }, order);
        backwards.unshift(...page.data.map(({ id }) => id));
        more = page.has_more;
      }
      assert.deepEqual(backwards, forwards);
    }),
  );
});
