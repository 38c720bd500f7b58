import type { Received, Stage } from "./stage.ts";

/** One square of the matrix. `void`: what it was to be compared with did not succeed, so it proves nothing; it counts as a failure. */
export interface Cell {
  readonly route: string;
  readonly caller: string;
  readonly what: string;
  readonly verdict: "covered" | "void" | "failed";
  readonly why: string;
}

export function cell(route: string, caller: string, what: string, faults: readonly string[]): Cell {
  return { route, caller, what, verdict: faults.length === 0 ? "covered" : "failed", why: faults.join("; ") };
}

/** `covered 10 · void 0 · failed 0`, then each cell that is not covered. */
export function summary(cells: readonly Cell[]): string {
  const count = (verdict: Cell["verdict"]) => cells.filter((cell) => cell.verdict === verdict).length;
  const rest = cells
    .filter((cell) => cell.verdict !== "covered")
    .map((cell) => `${cell.verdict}: ${cell.route} × ${cell.caller} × ${cell.what}: ${cell.why.slice(0, WHY_LENGTH)}`);
  return [`matrix: ${cells.length} cells: ${count("covered")} covered, ${count("void")} void, ${count("failed")} failed`, ...rest].join(
    "\n",
  );
}

const WHY_LENGTH = 600;

export function refusalFaults(answer: Received, status: number, code: string | null): string[] {
  const faults = answer.status === status ? [] : [`answered ${answer.status} instead of ${status}: ${answer.text}`];
  const envelope = envelopeOf(answer);
  if (envelope === null) faults.push(`no error envelope: ${answer.text}`);
  else if (code !== null && envelope.code !== code) faults.push(`code is ${envelope.code}, not ${code}`);
  return faults;
}

export function envelopeOf(answer: Received): { readonly code: string; readonly param: string | null } | null {
  try {
    return (JSON.parse(answer.text) as { error?: { code: string; param: string | null } }).error ?? null;
  } catch {
    return null;
  }
}

/** What of A's an answer to somebody of B holds, beside what the caller itself had sent. */
export function leaks(stage: Stage, answer: Received, sent: readonly string[]): string[] {
  const told = `${answer.text}\n${JSON.stringify(answer.headers)}`;
  return stage
    .secrets("A")
    .filter((secret) => told.includes(secret) && !sent.some((each) => each.includes(secret)))
    .map((secret) => `'${secret}' of A was told`);
}

/** An answer without what differs between any two answers, and with the value that was asked for blotted out. */
export function comparable({ status, headers, text }: Received, asked: string): string {
  const kept = Object.entries(headers)
    .filter(([name]) => !VARYING.has(name))
    .toSorted(([left], [right]) => (left < right ? -1 : 1));
  const body = asked === "" ? text : text.replaceAll(JSON.stringify(asked).slice(1, -1), "«asked»");
  return JSON.stringify([status, kept, body.replace(SIGNED_NOW, "«signed now»")]);
}

/** What a checkpoint says of its tenant's trail at this moment. */
const SIGNED_NOW = /"at":"[^"]+".*"sequence":\d+,"hash":"\w+"|"signature":"[^"]+"/g;

const VARYING: ReadonlySet<string> = new Set(["x-request-id", "date", "content-length", "etag", "connection", "keep-alive"]);

/** What changes nothing can be asked at once; the server's database is another process. */
const AT_ONCE = 8;

export async function together<From, To>(items: readonly From[], work: (item: From) => Promise<To>): Promise<To[]> {
  const done: To[] = [];
  for (let index = 0; index < items.length; index += AT_ONCE)
    done.push(...(await Promise.all(items.slice(index, index + AT_ONCE).map(work))));
  return done;
}

export async function oneByOne<From, To>(items: readonly From[], work: (item: From) => Promise<To>): Promise<To[]> {
  const done: To[] = [];
  for (const item of items) done.push(await work(item));
  return done;
}
