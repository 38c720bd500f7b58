import { GENESIS, type Head, type Link, linkHash, sha256 } from "./chain.ts";
import { type Checkpoint, isSigned } from "./checkpoint.ts";
import type { TrailEntry } from "./trail.ts";

export interface VerifyOptions {
  readonly checkpoints: readonly Checkpoint[];
  /** Whose checkpoints count, as `public_key`. */
  readonly publicKeys: readonly string[];
  /** Tenants that were erased lack the contents of their rows: then that is no finding. */
  readonly erased: boolean;
}

export interface Verdict {
  /** A sentence for each thing that is not as it was written, at most 1,000. None: every trail is whole. */
  readonly findings: readonly string[];
  /** What was looked at, and what was not. */
  readonly notes: readonly string[];
}

/**
 * Follows each trail from its first row to its head and past the checkpoints that saw it. Needs nothing but its arguments: no
 * database, no secret.
 */
export async function verifyTrails(entries: AsyncIterable<TrailEntry>, options: VerifyOptions): Promise<Verdict> {
  const report = new Report();
  const seen = sightings(options, report);
  let trail: TrailWalk | null = null;
  let rows = 0;
  const walked = new Set<string>();
  let all = false;
  for await (const entry of entries) {
    if ("trail" in entry) {
      trail?.cutOff();
      const { tenant, installation, of } = entry.trail;
      trail = new TrailWalk(tenant, seen.of(installation, tenant), options.erased, report);
      if (walked.has(tenant)) report.find(`The trail of ${tenant} comes twice.`);
      walked.add(tenant);
      all ||= of === "all";
    } else if (trail === null) {
      report.find("Rows come before the line that says whose they are.");
    } else if ("row" in entry) {
      rows += 1;
      trail.row(entry.row);
    } else {
      trail.end(entry.head);
      trail = null;
    }
  }
  trail?.cutOff();
  seen.missed(walked, all);
  return { findings: report.findings, notes: [`${walked.size} trails, ${rows} rows, ${seen.trusted} checkpoints.`, ...report.notes] };
}

class Report {
  readonly findings: string[] = [];
  readonly notes: string[] = [];

  find(sentence: string): void {
    if (this.findings.length < MAX_FINDINGS) this.findings.push(sentence);
  }
}

/** What checkpoints saw of one trail: the hash of a row by its sequence, and when. */
type Sightings = ReadonlyMap<number, readonly { readonly hash: string; readonly at: string }[]>;

function sightings({ checkpoints, publicKeys }: VerifyOptions, report: Report) {
  const known = new Map<string, Map<number, { hash: string; at: string }[]>>();
  const tenants = new Set<string>();
  let trusted = 0;
  for (const checkpoint of checkpoints) {
    const { installation, at, heads, public_key: key } = checkpoint;
    if (!isSigned(checkpoint)) report.find(`The checkpoint of ${at} is not signed by the key that it names: it was changed or made up.`);
    else if (!publicKeys.includes(key)) report.find(`The checkpoint of ${at} is signed by another key, ${key}.`);
    else {
      trusted += 1;
      for (const { tenant, sequence, hash } of heads) {
        const name = `${installation}/${tenant}`;
        const trail = known.get(name) ?? new Map<number, { hash: string; at: string }[]>();
        known.set(name, trail);
        trail.set(sequence, [...(trail.get(sequence) ?? []), { hash, at }]);
        tenants.add(tenant);
      }
    }
  }
  return {
    trusted,
    of: (installation: string, tenant: string): Sightings => known.get(`${installation}/${tenant}`) ?? new Map(),
    missed(walked: ReadonlySet<string>, all: boolean): void {
      const missing = [...tenants].filter((tenant) => !walked.has(tenant)).sort();
      if (all) for (const tenant of missing) report.find(`Checkpoints saw a trail of ${tenant}, and it is gone.`);
      else if (missing.length > 0) report.notes.push(`Checkpoints know ${missing.length} trails that were not looked at.`);
    },
  };
}

/** One trail, row after row. After a finding it goes on from what the row itself says, so that one deed is one finding. */
class TrailWalk {
  readonly #tenant: string;
  readonly #seen: Sightings;
  readonly #erased: boolean;
  readonly #report: Report;
  #last: Head = { sequence: 0, hash: GENESIS };
  /** The hash before the next row is not known where rows are missing. */
  #linked = true;

  constructor(tenant: string, seen: Sightings, erased: boolean, report: Report) {
    this.#tenant = tenant;
    this.#seen = seen;
    this.#erased = erased;
    this.#report = report;
  }

  row(link: Link): void {
    this.#place(link.sequence);
    if (this.#linked && linkHash(this.#last.hash, this.#tenant, link) !== link.hash)
      this.#find(
        `row ${link.sequence} (${link.action}, ${link.at}) was changed, or follows another row than the one it was written after.`,
      );
    this.#contents(link, "before");
    this.#contents(link, "after");
    for (const { hash, at } of this.#seen.get(link.sequence) ?? [])
      if (hash !== link.hash)
        this.#find(`row ${link.sequence} is not the one that the checkpoint of ${at} saw: the trail was written anew.`);
    this.#last = link;
    this.#linked = true;
  }

  end(head: Head): void {
    const { sequence, hash } = this.#last;
    if (head.sequence > sequence) this.#find(`rows ${sequence + 1} to ${head.sequence} are missing at its end.`);
    else if (head.sequence < sequence) this.#find(`it ends at row ${head.sequence}, and rows beyond that were put in.`);
    else if (head.hash !== hash) this.#find(`its last row, ${sequence}, is not the one that was written last.`);
    this.#beyond();
  }

  /** The source ended before the trail did. */
  cutOff(): void {
    this.#find(`it breaks off after row ${this.#last.sequence}: the export is not whole.`);
    this.#beyond();
  }

  #place(sequence: number): void {
    const expected = this.#last.sequence + 1;
    if (sequence === expected) return;
    this.#linked = false;
    if (sequence < expected) this.#find(`row ${sequence} comes after row ${this.#last.sequence}.`);
    else if (sequence === expected + 1) this.#find(`row ${expected} is missing.`);
    else this.#find(`rows ${expected} to ${sequence - 1} are missing.`);
  }

  #contents(link: Link, side: "before" | "after"): void {
    const [text, digest] = [link[side], link[`${side}_digest`]];
    if (text === null && digest !== null) {
      if (!this.#erased) this.#find(`what row ${link.sequence} says of ${side} is gone (an erased tenant: verify with --erased).`);
    } else if (text !== null && sha256(text) !== digest) this.#find(`what row ${link.sequence} says of ${side} was changed.`);
  }

  /** The truncation that the database itself cannot show. */
  #beyond(): void {
    const [latest] = [...this.#seen].filter(([sequence]) => sequence > this.#last.sequence).sort(([a], [b]) => b - a);
    if (latest !== undefined)
      this.#find(
        `the checkpoint of ${latest[1][0]?.at} saw ${latest[0]} rows, and there are ${this.#last.sequence}: rows were taken from its end.`,
      );
  }

  #find(what: string): void {
    this.#report.find(`Trail of ${this.#tenant}: ${what}`);
  }
}

const MAX_FINDINGS = 1_000;
