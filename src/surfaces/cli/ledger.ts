import { parseArgs } from "node:util";
import {
  announceRepair,
  type BalanceDifference,
  formatAmount,
  type Keeper,
  readKeeper,
  releaseBudgets,
  verifyBalances,
  type VerifyReport,
} from "../../domains/metering/index.ts";
import { writeAudit } from "../../domains/records/index.ts";
import { systemClock as clock } from "../../kernel/clock.ts";
import { createIdMaker, isUuid, PLATFORM_TENANT } from "../../kernel/ids.ts";
import { formatUsd } from "../../kernel/money.ts";
import { makeTenantKey } from "../../storage/snapshot/index.ts";
import { type CommandContext, openInstalled, runCommand, UsageError } from "./command.ts";

// `npm run ledger -- verify [--repair]`: makes every budget's balances again from the rows and compares. Exits 0 where they are what is
// kept, and each attempt's row has its entry; 1 with a line for each thing that is not. `--repair` puts balances right.
// `npm run ledger -- keeper`: which server process keeps the budgets, by the id of its journal.
// `npm run ledger -- release REPLICA`: has a process that will not come back keep them no longer, for another to.

/** A process that was frozen for as long looks who keeps the budgets before it grants much. */
const SIGN_OF_LIFE_MS = 60_000;

await runCommand(async (context) => {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { repair: { type: "boolean", default: false } } });
  const [verb, replica, ...more] = positionals;
  if (verb === "verify" && replica === undefined) return verify(context, values.repair);
  if (verb === "keeper" && replica === undefined && !values.repair) return keeper(context);
  if (verb === "release" && replica !== undefined && more.length === 0 && !values.repair) return release(context, replica);
  throw new UsageError("Say what: npm run ledger -- verify [--repair], keeper, or release REPLICA (docs/guide/budgets.md).");
});

type Installed = Awaited<ReturnType<typeof openInstalled>>;

async function verify(context: CommandContext, repairs: boolean): Promise<number> {
  const installed = await openInstalled(context);
  const { database } = installed;
  try {
    const report = await verifyBalances({ database, clock }, repairs);
    const { differences } = report;
    if (repairs && differences.length > 0) {
      await announceRepair({ database, clock }, differences);
      const budgets = [...new Set(differences.map(({ budget }) => budget))];
      await audit(context, installed, "ledger.repair", "budgets", differences.map(plain), { budgets });
    }
    process.stdout.write(`${linesOf(report, repairs).join("\n")}\n`);
    return report.unmatched === 0n && report.debit === report.credit && (repairs || differences.length === 0) ? 0 : 1;
  } finally {
    await database.close();
  }
}

function linesOf(report: VerifyReport, repairs: boolean): string[] {
  const { rows, entries, adjustments, unmatched, debit, credit, budgets, balances, unopened, differences } = report;
  const lines = differences.map(
    ({ owner, budget, unit, subject, windowStart, kept, rebuilt }) =>
      `tenant ${owner}, budget ${budget}, ${subject === "" ? "no subject" : subject}, window of ${windowStart.toISOString()}: ${(
        ["posted", "adjusted", "overage"] as const
      )
        .filter((sum) => kept[sum] !== rebuilt[sum])
        .map((sum) => `${sum} ${formatAmount(unit, kept[sum])}, by the rows ${formatAmount(unit, rebuilt[sum])}`)
        .join("; ")}`,
  );
  if (unmatched > 0n)
    lines.push(`${unmatched} attempts whose usage row and ledger entry are not of one charge, or of which one is missing.`);
  if (debit !== credit) lines.push(`The ledger does not balance: debits ${formatUsd(debit)}, credits ${formatUsd(credit)}.`);
  if (unopened > 0) lines.push(`${unopened} budgets are new or changed: the server makes their balances when it is next asked for them.`);
  lines.push(
    `${rows} usage rows, ${entries} ledger entries, ${adjustments} adjustments: debits ${formatUsd(debit)}, credits ${formatUsd(credit)}.`,
  );
  lines.push(
    `${budgets} budgets, ${balances} balances: ${differences.length} differ${repairs && differences.length > 0 ? ", and were put right" : ""}.`,
  );
  return lines;
}

/** As JSON has it. */
function plain({ kept, rebuilt, windowStart, ...of }: BalanceDifference) {
  const texts = (sums: BalanceDifference["kept"]) => Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, String(sum)]));
  return { ...of, windowStart: windowStart.toISOString(), kept: texts(kept), rebuilt: texts(rebuilt) };
}

async function keeper(context: CommandContext): Promise<number> {
  const { database } = await openInstalled(context);
  try {
    process.stdout.write(`${keeperLine(await database.forSystem("ship", readKeeper))}\n`);
    return 0;
  } finally {
    await database.close();
  }
}

function keeperLine(found: Keeper | null): string {
  if (found === null || found.releasedAt !== null) return "No process keeps the budgets now: the first that is asked will.";
  return `${found.journal} keeps the budgets since ${found.takenAt.toISOString()}.`;
}

async function release(context: CommandContext, replica: string): Promise<number> {
  if (!isUuid(replica)) throw new UsageError("REPLICA is the id that `npm run ledger -- keeper` says.");
  const installed = await openInstalled(context);
  const { database } = installed;
  try {
    const found = await database.forSystem("ship", readKeeper);
    if (found?.journal !== replica || found.releasedAt !== null) {
      process.stdout.write(`Nothing was released. ${keeperLine(found)}\n`);
      return 1;
    }
    if (found.shippedAt !== null && clock.now() - found.shippedAt.getTime() < SIGN_OF_LIFE_MS) {
      process.stdout.write(
        `Nothing was released. ${replica} was alive at ${found.shippedAt.toISOString()}: while it lives it grants calls from memory, and two would ` +
          "spend the same money. End it, and release it a minute after that.\n",
      );
      return 1;
    }
    await database.forSystem("ship", (tx) => releaseBudgets(tx, replica, new Date(clock.now())));
    await audit(context, installed, "ledger.release", replica, { keeper: replica }, null);
    process.stdout.write(
      `The next process that is asked keeps the budgets. What ${replica} has not shipped counts only when it comes back.\n`,
    );
    return 0;
  } finally {
    await database.close();
  }
}

function audit(
  { random }: CommandContext,
  { database, masterKey }: Installed,
  action: string,
  target: string,
  before: unknown,
  after: unknown,
): Promise<void> {
  const makeId = createIdMaker(clock, random);
  return database.forTenant(PLATFORM_TENANT, async (tx) => {
    const keyring = await makeTenantKey({ masterKey, clock, random }, tx);
    const who = { actor: "command line", actorKind: "machine", requestId: null, remoteAddress: null } as const;
    await writeAudit(tx, keyring, { id: makeId(), ...who, action, target, before, after, status: 200, at: clock.now() });
  });
}
