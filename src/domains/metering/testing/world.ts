import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { systemClock } from "../../../kernel/clock.ts";
import type { TenantId } from "../../../kernel/ids.ts";
import { systemRandom } from "../../../kernel/random.ts";
import { NO_TOKENS, type TokenCounts } from "../../../kernel/tokens.ts";
import type { Database } from "../../../storage/database/index.ts";
import { type Journal, openJournal } from "../../../storage/journal/index.ts";
import { createTenantKey, createTenantKeyring, type TenantKeyring } from "../../../storage/secrets/index.ts";
import type { Budget } from "../budgets/model.ts";
import type { WriteEvent } from "../budgets/needs.ts";
import { createMetering } from "../index.ts";
import type { AttemptFacts } from "../model.ts";
import { factsOf, newId, PRICE, silent } from "./facts.ts";
import { whole } from "./scripted-stream.ts";

/** A directory that is gone after the test. */
export async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "atrium-metering-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

export async function openTestJournal(directory: string): Promise<Journal> {
  const { journal } = await openJournal({ directory, durability: "process", clock: systemClock, makeId: newId, log: silent });
  return journal;
}

/** Tenants with keys of their own; `destroy` is what erasing a tenant does to them. */
export class TestKeyrings {
  readonly #keyrings = new Map<TenantId, TenantKeyring | null>();

  readonly of = (tenant: TenantId): TenantKeyring | null => {
    if (!this.#keyrings.has(tenant)) this.#keyrings.set(tenant, createTenantKeyring(tenant, new Map([[1, createTenantKey()]])));
    return this.#keyrings.get(tenant) ?? null;
  };

  destroy(tenant: TenantId): void {
    this.#keyrings.set(tenant, null);
  }
}

/** Metering on a real journal and database. */
export function meteringOn(
  journal: Journal,
  database: Pick<Database, "forSystem">,
  keyrings: TestKeyrings,
  writeEvent: WriteEvent = async () => true,
  budgetsOf: (owner: TenantId) => readonly Budget[] = () => [],
) {
  const metering = createMetering({
    journal,
    database,
    clock: systemClock,
    random: systemRandom,
    log: silent,
    tags: keyrings.of,
    writeEvent,
    budgetsOf,
    refresh: async () => {},
    names: {
      tenant: (id) => `tenant-${id.slice(-4)}`,
      project: (tenant, id) => `project-${tenant.slice(-4)}-${id.slice(-4)}`,
      deployment: () => null,
      tenantNamed: () => null,
    },
    cursorSecret: Buffer.alloc(32, 7),
  });
  return {
    ...metering,
    /** One whole answer, from hold to settlement. */
    async call(changes: Partial<AttemptFacts> = {}, used: Partial<TokenCounts> = { input_uncached: 10, output: 5 }) {
      const hold = await metering.hold(factsOf({ stream: false, ...changes }), PRICE);
      metering.sent(hold);
      const tokens = { ...NO_TOKENS, ...used };
      const metered = await metering.meter(
        whole([{ type: "usage", usage: { tokens, source: "reported" } }, { type: "response-end" }]),
        hold,
      );
      return (await metered.settled).settlement;
    },
  };
}
