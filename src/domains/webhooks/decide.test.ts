import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Webhook, WebhookVerificationError } from "standardwebhooks";
import { systemRandom } from "../../kernel/random.ts";
import { judge, MAX_ATTEMPTS } from "./decide.ts";
import { newSecret, signedHeaders } from "./signature.ts";

test("any 2xx is success, 410 ends the webhook, and all else is tried again until it was tried eight times", () => {
  const cases: [number, string][] = [
    [200, "delivered"],
    [204, "delivered"],
    [299, "delivered"],
    [410, "gone"],
    [199, "retry"],
    [301, "retry"],
    [307, "retry"],
    [400, "retry"],
    [404, "retry"],
    [429, "retry"],
    [500, "retry"],
  ];
  for (const [status, kind] of cases) assert.equal(judge({ status }, 1, 0).kind, kind, String(status));
  assert.equal(MAX_ATTEMPTS, 8);
  for (const outcome of [{ status: 500 }, { error: "timeout" }]) {
    const kinds = Array.from({ length: 9 }, (_, index) => judge(outcome, index + 1, 0.5).kind);
    assert.deepEqual(kinds, [...Array.from({ length: 7 }, () => "retry"), "failed", "failed"]);
  }
});

test("delays grow from five seconds to eight hours, each spread by a fifth", () => {
  const middle = [5, 60, 300, 1_800, 7_200, 18_000, 28_800].map((seconds) => seconds * 1_000);
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.integer({ min: 1, max: 7 }), (chance, attempts) => {
      const verdict = judge({ status: 500 }, attempts, chance);
      const delay = middle[attempts - 1] as number;
      assert.ok(verdict.kind === "retry" && verdict.afterMs >= delay * 0.8 && verdict.afterMs <= delay * 1.2);
    }),
  );
  assert.deepEqual(judge({ status: 500 }, 1, 0), { kind: "retry", afterMs: 4_000 });
  assert.deepEqual(judge({ status: 500 }, 7, 0.5), { kind: "retry", afterMs: 28_800_000 });
});

test("the official verifier accepts what is signed here, by either secret, and refuses any change of it", () => {
  const timestamp = Math.floor(Date.now() / 1000);
  fc.assert(
    fc.property(fc.uuid(), fc.json(), fc.nat(), (id, body, at) => {
      const [secret, previous, foreign] = [newSecret(systemRandom), newSecret(systemRandom), newSecret(systemRandom)];
      const headers = signedHeaders([secret, previous], { id, timestamp, body });
      for (const known of [secret, previous]) assert.deepEqual(new Webhook(known).verify(body, headers), JSON.parse(body));
      const refuses = (changed: Record<string, string>, text = body, by = secret): void =>
        assert.throws(() => new Webhook(by).verify(text, { ...headers, ...changed }), WebhookVerificationError);
      refuses({}, `${body} `);
      refuses({}, body, foreign);
      refuses({ "webhook-id": `${id}0` });
      refuses({ "webhook-timestamp": String(timestamp - 1) });
      const signature = headers["webhook-signature"] as string;
      const position = 3 + (at % 40);
      const flipped = signature.slice(0, position) + (signature[position] === "A" ? "B" : "A") + signature.slice(position + 1);
      refuses({ "webhook-signature": flipped.split(" ")[0] as string });
    }),
    { numRuns: 50 },
  );
});
