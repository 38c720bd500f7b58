import { sql, type Transaction } from "kysely";
import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import type { SystemTransaction, TenantTransaction } from "./index.ts";
import type { Tables } from "./schema.ts";
import { type PredicateOmission, TenantPredicate } from "./tenant-predicate.ts";

/** The tenant whose rows this transaction sees. */
export function tenantOf(tx: TenantTransaction): TenantId {
  return bindingOf(tx).tenant;
}

/**
 * Within the platform's own transaction, does work as one of its tenants: a tenant, its first key and the audit row
 * are one step. Nothing else may run on `tx` meanwhile: it would see no rows. Throws from any other tenant's.
 */
export async function asTenant<T>(tx: TenantTransaction, tenant: TenantId, work: (tx: TenantTransaction) => Promise<T>): Promise<T> {
  const { tenant: outer, base, omits } = bindingOf(tx);
  if (outer !== PLATFORM_TENANT) throw new Error("only the platform's transaction may act for a tenant");
  let result: T;
  try {
    result = await work(await bindTenant(base, tenant, omits));
  } catch (error) {
    // In an aborted transaction this fails as well, and nothing more can be read in it.
    await setTenant(base, outer).catch(() => {});
    throw error;
  }
  await setTenant(base, outer);
  return result;
}

/** The one place that mints a TenantTransaction. */
export async function bindTenant(
  base: Transaction<Tables>,
  tenant: TenantId,
  omits: PredicateOmission | undefined,
): Promise<TenantTransaction> {
  await setTenant(base, tenant);
  const tx = base.withPlugin(new TenantPredicate(tenant, omits)) as TenantTransaction;
  // The way out that the query builder offers: the predicate stays for as long as the transaction.
  Object.defineProperty(tx, "withoutPlugins", { value: refuseWithoutPlugins });
  bindings.set(tx, { tenant, base, omits });
  return tx;
}

export function asSystem(tx: Transaction<Tables>): SystemTransaction {
  return tx as SystemTransaction;
}

interface Binding {
  readonly tenant: TenantId;
  readonly base: Transaction<Tables>;
  readonly omits: PredicateOmission | undefined;
}

const bindings = new WeakMap<TenantTransaction, Binding>();

function bindingOf(tx: TenantTransaction): Binding {
  const binding = bindings.get(tx);
  if (binding === undefined) throw new Error("not a tenant transaction, or one wrapped by something else");
  return binding;
}

function refuseWithoutPlugins(): never {
  throw new Error("a tenant transaction keeps its predicate");
}

async function setTenant(tx: Transaction<Tables>, tenant: TenantId): Promise<void> {
  await sql`SELECT set_config('app.tenant_id', ${tenant}, true)`.execute(tx);
}
