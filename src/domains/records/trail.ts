import { z } from "zod";
import type { TenantId } from "../../kernel/ids.ts";
import type { Database } from "../../storage/database/index.ts";
import { headSchema, linkSchema } from "./chain.ts";
import { readHead, readLinks } from "./store.ts";

/** One line of an export, and what a verification reads: a trail begins, has rows, and ends with its head. */
export const trailEntry = z.union([
  z.strictObject({
    trail: z.strictObject({
      format: z.literal("atrium audit trail 1"),
      installation: z.string(),
      tenant: z.string(),
      /** Whether every trail of the installation is there: then one that is not is missing. */
      of: z.enum(["all", "one"]),
    }),
  }),
  z.strictObject({ row: linkSchema }),
  z.strictObject({ head: headSchema }),
]);
export type TrailEntry = z.infer<typeof trailEntry>;

type TrailDatabase = Pick<Database, "forTenant" | "installationId">;

/** The trails of these tenants as the database holds them, a page at a time. Rows added meanwhile are in it too. */
export async function* readTrails(database: TrailDatabase, tenants: readonly string[], of: "all" | "one"): AsyncGenerator<TrailEntry> {
  for (const tenant of tenants) {
    yield { trail: { format: "atrium audit trail 1", installation: database.installationId, tenant, of } };
    yield* readTrail(database, tenant as TenantId);
  }
}

/** The head is read after the rows, and the rows again where it is beyond them: what is missing then was taken away. */
async function* readTrail(database: TrailDatabase, tenant: TenantId): AsyncGenerator<TrailEntry> {
  let last = Number.MIN_SAFE_INTEGER;
  let awaited = 0;
  for (;;) {
    const { links, head } = await database.forTenant(tenant, async (tx) => {
      const page = await readLinks(tx, last, PAGE_ROWS);
      return { links: page, head: page.length > 0 ? null : await readHead(tx) };
    });
    for (const row of links) yield { row };
    last = links.at(-1)?.sequence ?? last;
    if (head === null) continue;
    if (head.sequence <= Math.max(last, awaited)) {
      yield { head };
      return;
    }
    awaited = head.sequence;
  }
}

const PAGE_ROWS = 500;
