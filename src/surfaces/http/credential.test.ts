import assert from "node:assert/strict";
import { test } from "node:test";
import { credentialOf } from "./credential.ts";

test("a credential is a bearer token, or the header of another vendor's SDK", () => {
  assert.equal(credentialOf({ authorization: "Bearer k" }), "k");
  assert.equal(credentialOf({ authorization: "bearer   k  " }), "k");
  assert.equal(credentialOf({ "x-api-key": "k" }), "k");
  assert.equal(credentialOf({ "api-key": "k" }), "k");
});

test("what is malformed is no credential, and no other header stands in for it", () => {
  for (const authorization of ["", "k", "Bearer", "Bearer ", "Basic azpr", "Bearer a b", "Bearerk"]) {
    assert.equal(credentialOf({ authorization, "x-api-key": "k" }), null, authorization);
  }
  assert.equal(credentialOf({}), null);
  assert.equal(credentialOf({ "x-api-key": "" }), null);
});

test("a hostile header is judged in time that grows with its length only", () => {
  const began = performance.now();
  for (let turn = 0; turn < 20; turn++) credentialOf({ authorization: `Bearer${" ".repeat(15_000)}${"a".repeat(15_000)} a` });
  const tookMs = performance.now() - began;
  assert.ok(tookMs < 5_000, `${tookMs} ms`);
});
