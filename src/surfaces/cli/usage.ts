import { once } from "node:events";
import path from "node:path";
import { parseArgs } from "node:util";
import { createCatalogSource } from "../../domains/catalog/index.ts";
import { createShippedReports, EXPORT_FORMATS, namesIn } from "../../domains/metering/index.ts";
import { createLocalProvider, createProviders } from "../../domains/providers/index.ts";
import { NAME_INDEX, readRevisions, tenantsSource } from "../../domains/tenants/index.ts";
import { systemClock as clock } from "../../kernel/clock.ts";
import { isUuid, type TenantId } from "../../kernel/ids.ts";
import { derive } from "../../storage/secrets/index.ts";
import { createSnapshot } from "../../storage/snapshot/index.ts";
import { type CommandContext, openInstalled, runCommand, UsageError } from "./command.ts";

// `npm run --silent usage -- export --format csv|jsonl|focus --from 2026-11-01 --to 2026-12-01 [--tenant acme] [--project search] > FILE`

const USAGE = "npm run --silent usage -- export --format csv|jsonl|focus --from DATE --to DATE [--tenant NAME] [--project NAME] > FILE";

/** Of the configuration, while the export runs. */
const POLL_MS = 5_000;

await runCommand(async (context) => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      format: { type: "string" },
      from: { type: "string" },
      to: { type: "string" },
      tenant: { type: "string" },
      project: { type: "string", multiple: true },
    },
  });
  const format = EXPORT_FORMATS.find((known) => known === values.format);
  if (positionals.join() !== "export" || format === undefined || values.from === undefined || values.to === undefined)
    throw new UsageError(`Write ${USAGE} (docs/guide/usage-export.md).`);
  const { tenant, project: projects } = values;
  if (projects !== undefined && tenant === undefined)
    throw new UsageError("--project takes --tenant too: names are unique in their tenant.");
  const span = { start_time: secondsOf(values.from), end_time: secondsOf(values.to) };
  await withUsage(context, ({ reports, projectOf }) => {
    const project_ids = projects?.map((nameOrId) => projectOf(tenant as string, nameOrId));
    return reports.exportAll({ format, ...span, tenant, project_ids }, writeOut);
  });
  return 0;
});

/** Waits for a reader that is slower than PostgreSQL: what is written is never more than a batch ahead. */
async function writeOut(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, "drain");
}

/** A day, or an instant with its offset. The beginning of a day is UTC's. */
function secondsOf(text: string): number {
  const at = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2}))?$/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at))
    throw new UsageError(`'${text}' is no time: write 2026-11-01 (from its beginning, UTC) or 2026-11-01T12:00:00+01:00.`);
  return Math.floor(at / 1000);
}

async function withUsage(
  context: CommandContext,
  work: (usage: {
    readonly reports: ReturnType<typeof createShippedReports>;
    readonly projectOf: (tenant: string, nameOrId: string) => string;
  }) => Promise<void>,
): Promise<void> {
  const { config, random, log } = context;
  await using started = new AsyncDisposableStack();
  const { database, masterKey } = await openInstalled(context);
  started.defer(() => database.close());
  const modelsDirectory = path.join(config.ATRIUM_DATA_DIR, "models");
  const providers = createProviders({ clock, more: [createLocalProvider({ modelsDirectory, clock, log })] });
  started.defer(() => providers.close());
  const snapshot = await createSnapshot({
    database,
    masterKey,
    clock,
    random,
    log,
    pollMs: POLL_MS,
    listTenants: readRevisions,
    sources: { tenants: tenantsSource, catalog: createCatalogSource({ providers }) },
    indexes: { [NAME_INDEX]: (parts) => [parts.tenants.tenant.name] },
  });
  started.defer(() => snapshot.close());
  const names = namesIn(snapshot, NAME_INDEX);
  const cursorSecret = derive(masterKey, "usage-cursor", 1);
  const reports = createShippedReports({ database, clock, random, tags: snapshot.keyringOf, names, cursorSecret });
  const projectOf = (tenant: string, nameOrId: string): string => {
    const parts = snapshot.current.tenants.get(names.tenantNamed(tenant) ?? (tenant as TenantId));
    const named = parts?.tenants.projects.values().find(({ name }) => name === nameOrId);
    // An archived project has no name any more, and still its rows.
    if (named === undefined && !isUuid(nameOrId)) throw new UsageError(`'${nameOrId}' names no project of this tenant.`);
    return named?.id ?? nameOrId;
  };
  await work({ reports, projectOf });
}
