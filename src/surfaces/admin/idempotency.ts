import { createHash } from "node:crypto";
import { Problem } from "../../kernel/problem.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import type { SealedPlace, TenantKeyring } from "../../storage/secrets/index.ts";
import type { Action, Done, RunnerNeeds } from "./runner.ts";

/**
 * Does the action once for one Idempotency-Key of one principal, in the action's own transaction: a repeat within 24 hours
 * gets the first answer without what is shown once, and a concurrent duplicate waits for the first to commit (the primary
 * key's lock) and then is a repeat. An action that fails rolls back, so it is not remembered. Throws `idempotency_mismatch` when the
 * key came with another request.
 */
export async function once(
  transaction: TenantTransaction,
  { route, allowed, request, input }: Action,
  needs: Pick<RunnerNeeds, "clock" | "keyringOf">,
  act: () => Promise<Done>,
): Promise<Done> {
  if (input.idempotencyKey === null) return act();
  const slot: Slot = { principal: allowed.principal.id, key_hash: digest(input.idempotencyKey) };
  const keyring = needs.keyringOf(allowed.tenant);
  const bodyHash = digest(route.id, request.url, input.bytes);
  if (!(await claim(transaction, slot, route.id, bodyHash, needs.clock.now()))) return recall(transaction, slot, bodyHash, keyring);
  const done = await act();
  await remember(transaction, slot, done, keyring);
  return done;
}

interface Slot {
  readonly principal: string;
  readonly key_hash: Buffer;
}

const REMEMBERED_MS = 24 * 60 * 60 * 1000;

async function claim(transaction: TenantTransaction, slot: Slot, route: string, bodyHash: Buffer, now: number): Promise<boolean> {
  await transaction.deleteFrom("idempotency_keys").where("expires_at", "<=", new Date(now)).execute();
  const claimed = await transaction
    .insertInto("idempotency_keys")
    .values({ ...slot, route, body_hash: bodyHash, created_at: new Date(now), expires_at: new Date(now + REMEMBERED_MS) })
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst();
  return claimed.numInsertedOrUpdatedRows === 1n;
}

async function remember(transaction: TenantTransaction, slot: Slot, done: Done, keyring: TenantKeyring): Promise<void> {
  const kept = { body: without(done.body, done.shownOnce), revision: done.revision };
  const response = keyring.seal(JSON.stringify(kept), placeOf(slot));
  await transaction
    .updateTable("idempotency_keys")
    .set({ status: done.status, response })
    .where("principal", "=", slot.principal)
    .where("key_hash", "=", slot.key_hash)
    .execute();
}

async function recall(transaction: TenantTransaction, slot: Slot, bodyHash: Buffer, keyring: TenantKeyring): Promise<Done> {
  const row = await transaction
    .selectFrom("idempotency_keys")
    .select(["body_hash", "status", "response"])
    .where("principal", "=", slot.principal)
    .where("key_hash", "=", slot.key_hash)
    .executeTakeFirstOrThrow();
  if (!row.body_hash.equals(bodyHash)) throw new Problem("idempotency_mismatch", { param: "idempotency-key" });
  if (row.status === null || row.response === null) throw new Error("an action committed without its answer");
  const kept = JSON.parse(keyring.open(row.response, placeOf(slot)).toString("utf8")) as Pick<Done, "body" | "revision">;
  return { ...kept, status: row.status, shownOnce: [], configVersion: null, replayed: true, download: null };
}

function placeOf(slot: Slot): SealedPlace {
  return { table: "idempotency_keys", column: "response", row: `${slot.principal}/${slot.key_hash.toString("hex")}` };
}

function without(body: unknown, fields: readonly string[]): unknown {
  if (typeof body !== "object" || body === null) return body;
  return Object.fromEntries(Object.entries(body).filter(([name]) => !fields.includes(name)));
}

/** Length-prefixed, so that no two lists of parts collide. */
function digest(...parts: readonly (string | Buffer)[]): Buffer {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${Buffer.byteLength(part)}:`).update(part);
  return hash.digest();
}
