import { createReadStream, existsSync, globSync } from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import {
  type Checkpoint,
  CHECKPOINT_FILE,
  checkpointSchema,
  createCheckpointSigner,
  readTrails,
  tenantsWithTrails,
  type TrailEntry,
  trailEntry,
  type Verdict,
  verifyTrails,
} from "../../domains/records/index.ts";
import { systemClock as clock } from "../../kernel/clock.ts";
import { isUuid, PLATFORM_TENANT } from "../../kernel/ids.ts";
import type { Database } from "../../storage/database/index.ts";
import { type CommandContext, openInstalled, runCommand, UsageError } from "./command.ts";

// `npm run audit -- export [--tenant ID|platform] --to FILE`: the trails as they are stored, one JSON line a row.
// `npm run audit -- verify FILE… --public-key KEY [--checkpoints FILE]… [--erased]`: needs no database and no secret.
// `npm run audit -- verify`: the trails of this installation's database, with the checkpoints in its data directory.
// `npm run audit -- public-key`: what its checkpoints are signed with; for auditors, to be kept from the beginning.
// `verify` exits 0 where every trail is whole, and 1 with a sentence for each thing that is not as it was written.

await runCommand(async (context) => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      tenant: { type: "string" },
      to: { type: "string" },
      checkpoints: { type: "string", multiple: true, default: [] },
      "public-key": { type: "string", multiple: true, default: [] },
      erased: { type: "boolean", default: false },
    },
  });
  const [verb, ...files] = positionals;
  const { checkpoints, "public-key": publicKeys, erased, tenant, to } = values;
  if (verb === "export" && files.length === 0) return exportTrails(context, tenant, to);
  if (verb === "verify" && files.length > 0) return report(await verifyFiles(files, { checkpoints, publicKeys, erased }));
  if (verb === "verify") return report(await verifyDatabase(context, { checkpoints, publicKeys, erased }));
  if (verb !== "public-key" || files.length > 0)
    throw new UsageError("Say what: npm run audit -- export --to FILE, verify [FILE…] or public-key (docs/guide/audit.md).");
  return withDatabase(context, async (_database, publicKey) => {
    process.stdout.write(`${publicKey}\n`);
    return 0;
  });
});

interface VerifyArguments {
  readonly checkpoints: readonly string[];
  readonly publicKeys: readonly string[];
  readonly erased: boolean;
}

function exportTrails(context: CommandContext, tenant: string | undefined, to: string | undefined): Promise<number> {
  if (to === undefined) throw new UsageError("Say where to: npm run audit -- export --to FILE.");
  const one = tenant === "platform" ? PLATFORM_TENANT : tenant;
  if (one !== undefined && !isUuid(one)) throw new UsageError("--tenant takes a tenant's id, which its GET shows, or `platform`.");
  return withDatabase(context, async (database) => {
    const tenants = one === undefined ? await database.forSystem("report", tenantsWithTrails) : [one];
    const file = await open(path.resolve(to), "wx", 0o600);
    let rows = 0;
    try {
      for await (const entry of readTrails(database, tenants, one === undefined ? "all" : "one")) {
        await file.write(`${JSON.stringify(entry)}\n`);
        if ("row" in entry) rows += 1;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    process.stdout.write(`${path.resolve(to)}: ${tenants.length} trails, ${rows} rows\n`);
    return 0;
  });
}

async function verifyFiles(files: readonly string[], { checkpoints, publicKeys, erased }: VerifyArguments): Promise<Verdict> {
  if (checkpoints.length > 0 && publicKeys.length === 0)
    throw new UsageError("Checkpoints count only where you know whose they are: --public-key KEY (npm run audit -- public-key).");
  const read = await readCheckpoints(checkpoints);
  const verdict = await verifyTrails(entriesOf(files), { checkpoints: read.checkpoints, publicKeys, erased });
  const note = checkpoints.length === 0 ? ["Without --checkpoints, rows that were taken from a trail's end are not missed."] : [];
  return { findings: [...read.findings, ...verdict.findings], notes: [...verdict.notes, ...read.notes, ...note] };
}

function verifyDatabase(context: CommandContext, { checkpoints, publicKeys, erased }: VerifyArguments): Promise<Verdict> {
  const own = globSync(path.join(context.config.ATRIUM_DATA_DIR, "audit", CHECKPOINT_FILE.replace(".", "*.")));
  return withDatabase(context, async (database, publicKey) => {
    const read = await readCheckpoints(checkpoints.length > 0 ? checkpoints : own.sort());
    const tenants = await database.forSystem("report", tenantsWithTrails);
    const keys = publicKeys.length > 0 ? publicKeys : [publicKey];
    const options = { checkpoints: read.checkpoints, publicKeys: keys, erased };
    const { findings, notes } = await verifyTrails(readTrails(database, tenants, "all"), options);
    return { findings: [...read.findings, ...findings], notes: [...notes, ...read.notes] };
  });
}

async function withDatabase<T>(context: CommandContext, work: (database: Database, publicKey: string) => Promise<T>): Promise<T> {
  const { database, masterKey } = await openInstalled(context);
  try {
    return await work(database, createCheckpointSigner(masterKey, database.installationId, clock).publicKey);
  } finally {
    await database.close();
  }
}

async function* entriesOf(files: readonly string[]): AsyncGenerator<TrailEntry> {
  for (const file of files) {
    let number = 0;
    for await (const line of linesOf(file)) {
      number += 1;
      const entry = trailEntry.safeParse(parsed(line));
      if (!entry.success) throw new Error(`${file}, line ${number}: not a line of an export of audit trails.`);
      yield entry.data;
    }
  }
}

interface ReadCheckpoints {
  readonly checkpoints: Checkpoint[];
  readonly findings: string[];
  readonly notes: string[];
}

async function readCheckpoints(files: readonly string[]): Promise<ReadCheckpoints> {
  const read: ReadCheckpoints = { checkpoints: [], findings: [], notes: [] };
  for (const file of files) {
    let number = 0;
    for await (const line of linesOf(file)) {
      number += 1;
      const checkpoint = checkpointSchema.safeParse(parsed(line));
      if (checkpoint.success) read.checkpoints.push(checkpoint.data);
      else read.findings.push(`${file}, line ${number}: not a checkpoint.`);
    }
  }
  if (files.length > 0) read.notes.push(`Checkpoints from ${files.join(", ")}.`);
  return read;
}

async function* linesOf(file: string): AsyncGenerator<string> {
  if (!existsSync(file)) throw new Error(`There is no ${file}.`);
  for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Number.POSITIVE_INFINITY }))
    if (line !== "") yield line;
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return null;
  }
}

function report({ findings, notes }: Verdict): number {
  const verdict = findings.length === 0 ? "Every trail is whole." : `${findings.length} findings.`;
  process.stdout.write(`${[...findings, ...notes, verdict].join("\n")}\n`);
  return findings.length === 0 ? 0 : 1;
}
