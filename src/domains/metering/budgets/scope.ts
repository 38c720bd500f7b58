import { type KeyId, PLATFORM_TENANT, type ProjectId } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import { type TenantTransaction, tenantOf } from "../../../storage/database/index.ts";
import { INDEXED_AS, type ScopeKind } from "./model.ts";
import type { BudgetVerbsNeeds } from "./needs.ts";
import type { BudgetRow, Fresh } from "./store.ts";

/** A project by name or id, a key by id, a user or feature as calls name them; what is left out is each one. */
export interface ScopeFields {
  readonly kind: ScopeKind;
  readonly project?: string | undefined;
  readonly key?: string | undefined;
  readonly user?: string | undefined;
  readonly feature?: string | undefined;
}

export type ScopeColumns = Pick<BudgetRow, "scope" | "project_id" | "key_id" | "subject_sealed" | "subject_index">;

const NAMED = ["project", "key", "user", "feature"] as const;

/** What the scope names, which must be there. Throws Problem. */
export async function columnsOf(needs: BudgetVerbsNeeds, tx: TenantTransaction, id: string, fields: ScopeFields): Promise<ScopeColumns> {
  const { kind: scope } = fields;
  const isPlatform = tenantOf(tx) === PLATFORM_TENANT;
  if (isPlatform !== (scope === "platform"))
    refuse(
      "scope.kind",
      isPlatform
        ? "A budget of the platform has scope 'platform': all tenants together."
        : "A tenant's budget cannot be of scope 'platform'.",
    );
  for (const name of NAMED)
    if (fields[name] !== undefined && scope !== name) refuse(`scope.${name}`, `Only scope '${name}' names a ${name}.`);
  return {
    scope,
    project_id: fields.project === undefined ? null : await projectOf(needs, tx, fields.project, "scope.project"),
    key_id: fields.key === undefined ? null : await keyOf(needs, tx, fields.key, "scope.key"),
    ...subjectColumns(needs, tx, id, fields),
  };
}

function subjectColumns(needs: BudgetVerbsNeeds, tx: TenantTransaction, id: string, fields: ScopeFields) {
  const { kind, user, feature } = fields;
  const value = user ?? feature;
  if ((kind !== "user" && kind !== "feature") || value === undefined) return { subject_sealed: null, subject_index: null };
  const keyring = needs.keyring(tenantOf(tx));
  return { subject_sealed: keyring.seal(value, placeOf(id)), subject_index: keyring.blindIndex(INDEXED_AS[kind], value) };
}

function placeOf(id: string) {
  return { table: "budgets", column: "subject_sealed", row: id };
}

/** Projects by name; one that has been archived since, by id. */
export function scopeView(
  needs: BudgetVerbsNeeds,
  tx: TenantTransaction,
  row: Pick<Fresh<BudgetRow>, keyof ScopeColumns | "id">,
): ScopeFields {
  const { scope: kind, project_id: project, key_id: key, subject_sealed: sealed } = row;
  const tenant = tenantOf(tx);
  return {
    kind,
    ...(project === null ? {} : { project: needs.projectName(tenant, project) ?? project }),
    ...(key === null ? {} : { key }),
    ...(sealed === null ? {} : { [kind]: needs.keyring(tenant).open(sealed, placeOf(row.id)).toString() }),
  };
}

export async function keyOf(needs: BudgetVerbsNeeds, tx: TenantTransaction, id: string, param: string): Promise<KeyId> {
  if (!(await needs.hasKey(tenantOf(tx), id as KeyId))) refuse(param, "There is no key of this id.");
  return id as KeyId;
}

export async function projectOf(needs: BudgetVerbsNeeds, tx: TenantTransaction, nameOrId: string, param: string): Promise<ProjectId> {
  try {
    return await needs.projectOf(tx, nameOrId);
  } catch (thrown) {
    if (!(thrown instanceof Problem) || thrown.code !== "not_found") throw thrown;
    return refuse(param, "There is no project of this name.");
  }
}

export function refuse(param: string, message: string): never {
  throw new Problem("invalid_request", { param, message });
}
