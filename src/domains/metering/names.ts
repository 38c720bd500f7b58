import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import type { SnapshotStore } from "../../storage/snapshot/index.ts";
import type { CatalogPart } from "../catalog/index.ts";
import type { TenantPart } from "../tenants/index.ts";
import type { Names } from "./hop-view.ts";

interface NamedParts {
  readonly tenants: TenantPart;
  readonly catalog: CatalogPart;
}

/** Names as a snapshot has them; `nameIndex` is its index of tenants' names. */
export function namesIn(snapshot: Pick<SnapshotStore<NamedParts>, "current" | "ownerOf">, nameIndex: string): Names {
  const partsOf = (tenant: TenantId) => snapshot.current.tenants.get(tenant);
  return {
    tenant: (id) => partsOf(id)?.tenants.tenant.name ?? null,
    project: (tenant, id) => partsOf(tenant)?.tenants.projects.get(id)?.name ?? null,
    deployment: (id) =>
      partsOf(PLATFORM_TENANT)
        ?.catalog.models.values()
        .flatMap((model) => model.deployments)
        .find((deployment) => deployment.id === id)?.name ?? null,
    tenantNamed: (nameOrId) =>
      snapshot.ownerOf(nameIndex, nameOrId) ?? (snapshot.current.tenants.has(nameOrId as TenantId) ? (nameOrId as TenantId) : null),
  };
}
