import { isDeepStrictEqual } from "node:util";
import { PROBLEMS, type ProblemCode } from "../../src/kernel/problem.ts";
import { type AnyRoute, methodsAt, PREFIXES } from "../../src/surfaces/admin/route-table.ts";
import { type Caller, engage, isOutsider } from "./callers.ts";
import { type Cell, cell, comparable, envelopeOf, leaks, oneByOne, refusalFaults, together } from "./cells.ts";
import { badInputs } from "./inputs.ts";
import { modelCells } from "./model-cells.ts";
import { positionsOf, type Position, type Probe } from "./positions.ts";
import { pathFor, Stage, templatesOf, type MatrixWorld, type Received } from "./stage.ts";

/**
 * Every route × caller × case: who may call what, what bad input meets, and that nothing of tenant A can be reached, told
 * from what never existed, or changed by anybody of tenant B. Runs against an empty installation.
 */
export async function runMatrix(world: MatrixWorld): Promise<Cell[]> {
  const stage = await Stage.build(world);
  const callers = await engage(stage);
  const cells: Cell[] = [];
  for (const route of world.routes) {
    cells.push(
      ...(await upright(route.id, () => accessCells(stage, callers, route))),
      ...(await upright(route.id, () => inputCells(stage, route))),
    );
    if (route.method === "POST" && world.remembers) cells.push(...(await upright(route.id, () => repeatCells(stage, callers, route))));
    cells.push(...(await upright(route.id, () => identityCells(stage, callers, route))));
    cells.push(...(await upright(route.id, () => stage.mend(route).then(() => []))));
  }
  return [
    ...cells,
    ...(await upright("model endpoints", () => modelCells(stage, callers))),
    ...(await upright("every path", () => methodCells(stage))),
    ...(await upright("every path", () => strangerCells(stage, callers))),
  ];
}

/** A hole in the platform may take the stage away (its tenant deleted by a probe): that is a finding, not the end of the run. */
async function upright(route: string, work: () => Promise<Cell[]>): Promise<Cell[]> {
  try {
    return await work();
  } catch (error) {
    return [cell(route, "the stage", "all", [`fell: ${String(error)}`])];
  }
}

/** The permission table's word on a caller's valid call upon tenant A's things. */
function expectation(caller: Caller, route: AnyRoute, stage: Stage): { readonly status: number; readonly code: string | null } {
  const refusal = (code: ProblemCode) => ({ status: PROBLEMS[code].status, code });
  if (caller.refusedWith !== null) return refusal(caller.refusedWith as ProblemCode);
  const isForeign = caller.reaches === "B" || caller.reaches === "nothing";
  if (route.reach === "path" && isForeign) return refusal("not_found");
  if (route.reach === "organization" && caller.reaches === "everything") return refusal("permission_denied");
  if (caller.reaches === "nothing" && route.reach !== "platform") return refusal("tenant_suspended");
  if (!caller.permissions.has(route.permission)) return refusal("permission_denied");
  return isForeign && templatesOf(route.path).some((template) => stage.isTenants(template))
    ? refusal("not_found")
    : { status: 200, code: null };
}

async function accessCells(stage: Stage, callers: readonly Caller[], route: AnyRoute): Promise<Cell[]> {
  const isGranted = (caller: Caller) => expectation(caller, route, stage).status === 200;
  const refusedOnes = callers.filter((caller) => !isGranted(caller));
  const unharmed = await unchanged(stage, async () => oneByOne(refusedOnes, (caller) => refusedCell(stage, caller, route)));
  const cells = unharmed ?? (await oneByOne(refusedOnes, (caller) => harmfulCell(stage, caller, route)));
  for (const caller of callers.filter(isGranted)) {
    const params = await stage.freshParams(route, isOutsider(caller) ? "B" : "A");
    const audited = await stage.world.auditRows();
    const answer = await stage.call(route, caller.key, params, "A");
    const left = (await stage.world.auditRows()) - audited;
    const faults = successFaults(answer, route);
    if (left !== (route.audit === null ? 0 : 1)) faults.push(`left ${left} audit rows`);
    if (isOutsider(caller)) faults.push(...leaks(stage, answer, [JSON.stringify(stage.body(route, "A"))]));
    cells.push(cell(route.id, caller.name, "valid example", faults));
  }
  return cells;
}

/** What the work gives where it changed no row of A and left no audit row; else null. */
async function unchanged<T>(stage: Stage, work: () => Promise<T>): Promise<T | null> {
  const [before, audited] = [await stage.checksum("A"), await stage.world.auditRows()];
  const result = await work();
  return (await stage.checksum("A")) === before && (await stage.world.auditRows()) === audited ? result : null;
}

async function refusedCell(stage: Stage, caller: Caller, route: AnyRoute): Promise<Cell> {
  const { status, code } = expectation(caller, route, stage);
  const params = stage.params(route, "A");
  const answer = await stage.call(route, caller.key, params, "A");
  const faults = refusalFaults(answer, status, code);
  if (isOutsider(caller)) faults.push(...leaks(stage, answer, [...Object.values(params), JSON.stringify(stage.body(route, "A"))]));
  return cell(route.id, caller.name, "valid example", faults);
}

/** Somebody changed something: who. */
async function harmfulCell(stage: Stage, caller: Caller, route: AnyRoute): Promise<Cell> {
  let one: Cell | null = null;
  const unharmed = await unchanged(stage, async () => (one = await refusedCell(stage, caller, route)));
  return (
    unharmed ?? {
      ...(one ?? cell(route.id, caller.name, "valid example", [])),
      verdict: "failed",
      why: "rows of A changed, or an audit row was left",
    }
  );
}

async function inputCells(stage: Stage, route: AnyRoute): Promise<Cell[]> {
  const cells: Cell[] = [];
  const params = stage.params(route, "B");
  const before = await stage.checksum("B");
  for (const bad of badInputs(route, stage.body(route, "B"))) {
    const query =
      bad.query === undefined
        ? {}
        : { path: `${pathFor(route, params)}?${new URLSearchParams(stage.query(route)).toString()}&${bad.query}` };
    const answer = await stage.call(route, stage.adminKey(route, "B"), params, "B", { ...bad.change, ...query });
    const faults = refusalFaults(answer, bad.status, null);
    if (bad.param !== null && !String(envelopeOf(answer)?.param).startsWith(bad.param))
      faults.push(`param is ${envelopeOf(answer)?.param}, not ${bad.param}`);
    cells.push(cell(route.id, "platform admin", bad.what, faults));
  }
  const untouched = (await stage.checksum("B")) === before;
  return untouched ? cells : [...cells, cell(route.id, "platform admin", "all bad input", ["rows of B changed"])];
}

/** What a repeat leaves out. */
const SHOWN_ONCE: ReadonlySet<string> = new Set(["key", "secret", "value", "token", "api_key"]);

/** An Idempotency-Key: the same request again, another body under it, and the same key in another tenant's hands. */
async function repeatCells(stage: Stage, callers: readonly Caller[], route: AnyRoute): Promise<Cell[]> {
  const params = await stage.freshParams(route, "A");
  const raw = JSON.stringify(stage.body(route, "A"));
  const ask = (key: string | null, text = raw) =>
    stage.call(route, key, params, "A", {
      raw: text,
      headers: { "content-type": "application/json", "idempotency-key": `matrix-${route.id}` },
    });
  const admin = stage.adminKey(route, "A");
  const first = await ask(admin);
  const before = await stage.checksum("A");
  const [again, other] = [await ask(admin), await ask(admin, ` ${raw}`)];
  const faults = successFaults(first, route);
  const told = JSON.parse(again.text) as Record<string, unknown>;
  const once = Object.entries(JSON.parse(first.text) as Record<string, unknown>).filter(
    ([name, value]) => !isDeepStrictEqual(told[name], value),
  );
  if (again.status !== first.status || again.headers["idempotent-replayed"] !== "true")
    faults.push(`the repeat answered ${again.status} ${again.text}`);
  if (once.some(([name]) => !SHOWN_ONCE.has(name) || name in told)) faults.push(`the repeat differs: ${again.text}`);
  const cells = [cell(route.id, "platform admin", "the same request again", faults)];
  cells.push(cell(route.id, "platform admin", "another body under one Idempotency-Key", refusalFaults(other, 409, "idempotency_mismatch")));
  for (const caller of callers.filter(isOutsider)) {
    const { status, code } = expectation(caller, route, stage);
    const answer = await ask(caller.key);
    const faults = status === 200 ? successFaults(answer, route) : refusalFaults(answer, status, code);
    if ("idempotent-replayed" in answer.headers) faults.push("it was told A's answer");
    cells.push(cell(route.id, caller.name, "A's Idempotency-Key", [...faults, ...leaks(stage, answer, [...Object.values(params), raw])]));
  }
  if ((await stage.checksum("A")) !== before) cells.push(cell(route.id, "platform admin", "repeats", ["rows of A changed"]));
  return cells;
}

/** Each place of the route that names something, × each thing that may not be found there, × each caller. */
async function identityCells(stage: Stage, callers: readonly Caller[], route: AnyRoute): Promise<Cell[]> {
  const before = await stage.checksum("A");
  const owner = callers.find((caller) => caller.name === "tenant admin of B" && mayAtAll(caller, route));
  const control = await stage.call(route, owner?.key ?? stage.adminKey(route, "B"), await stage.freshParams(route, "B"));
  const positions = await oneByOne(positionsOf(route, stage), async (position) => ({
    position,
    fault: await position.fault(stage, route),
  }));
  const refusal = control.status < 300 ? null : `the owner's same call answered ${control.status} ${control.text}`;
  const cells: Cell[] = [];
  for (const { position, fault } of positions) {
    // To A's own, nothing of these is foreign.
    for (const caller of callers.filter(({ reaches }) => reaches !== "A")) {
      const probed = await probe(stage, caller, route, position);
      const why = refusal ?? fault;
      cells.push(...(why === null ? probed : probed.map((each): Cell => ({ ...each, verdict: "void", why }))));
    }
  }
  const after = await stage.checksum("A");
  if (after !== before) cells.push(cell(route.id, "any of them", "all foreign ids", [`rows of A changed: ${before} / ${after}`]));
  return cells;
}

async function probe(stage: Stage, caller: Caller, route: AnyRoute, position: Position): Promise<Cell[]> {
  const may = mayAtAll(caller, route);
  const ask = (value: string) => position.call(stage, route, caller.key, value);
  const strangers = new Map<string, Promise<string>>();
  // Who gets no further than the router is answered alike, in whatever form it asks.
  const askForStranger = (form: string, value: string) => {
    const stranger = position.stranger(value);
    const known = may ? form : "";
    const answer = strangers.get(known) ?? ask(stranger).then((each) => told(each, stranger, route));
    strangers.set(known, answer);
    return answer;
  };
  const test = async ({ what, value, form, expect }: Probe): Promise<Cell> => {
    const answer = await ask(value);
    const faults = answer.status >= 500 ? [`answered ${answer.status} ${answer.text}`] : [];
    if (isOutsider(caller)) faults.push(...leaks(stage, answer, [value]));
    if (caller.refusedWith !== null)
      faults.push(...refusalFaults(answer, PROBLEMS[caller.refusedWith as ProblemCode].status, caller.refusedWith));
    if ((expect === "refused" || !may) && answer.status < 300) faults.push(`answered ${answer.status} ${answer.text}`);
    if (expect === "as if it never existed") {
      const baseline = await askForStranger(form, value);
      if (told(answer, value, route) !== baseline)
        faults.push(`told apart from what never existed: ${told(answer, value, route)} / ${baseline}`);
    }
    return cell(route.id, caller.name, `${position.name}: ${what}`, faults);
  };
  const probes = await position.values(stage, caller.reaches === "everything");
  return (route.method === "GET" && route.downloads === undefined) || !may ? together(probes, test) : oneByOne(probes, test);
}

/** Whether the caller gets beyond the router at this route, with whatever ids. */
function mayAtAll(caller: Caller, route: AnyRoute): boolean {
  if (caller.refusedWith !== null || caller.reaches === "nothing") return false;
  if (route.reach === "organization" && caller.reaches === "everything") return false;
  return caller.permissions.has(route.permission);
}

/** A method that a known path does not take. */
async function methodCells(stage: Stage): Promise<Cell[]> {
  const cells: Cell[] = [];
  for (const path of new Set(stage.world.routes.map((route) => route.path))) {
    const route = stage.world.routes.find((each) => each.path === path) as AnyRoute;
    const concrete = pathFor(route, stage.params(route, "B"));
    const known = methodsAt(stage.world.routes, concrete);
    for (const method of ["GET", "PUT", "POST", "DELETE", "PATCH"].filter((each) => !known.includes(each))) {
      const answer = await stage.world.ask({ method, path: concrete, key: stage.world.adminKey });
      const faults = refusalFaults(answer, 405, "method_not_allowed");
      if (answer.headers["allow"] !== known.toSorted().join(", ")) faults.push(`allow is ${answer.headers["allow"]}`);
      cells.push(cell(path, "platform admin", `method ${method}`, faults));
    }
  }
  return cells;
}

/** Without a valid key, every address answers the same bytes, whether or not there is anything, and whatever is wrong with the key. */
async function strangerCells(stage: Stage, callers: readonly Caller[]): Promise<Cell[]> {
  const strangers = callers.filter((each) => each.refusedWith === "invalid_api_key");
  const answers = new Set<string>();
  for (const { key } of strangers) {
    for (const route of stage.world.routes) answers.add(comparable(await stage.call(route, key, stage.params(route, "A"), "A"), ""));
    for (const path of nowhere(stage.world.routes)) answers.add(comparable(await stage.world.ask({ method: "GET", path, key }), ""));
  }
  return [
    cell(
      "every path",
      strangers.map(({ name }) => name).join(", "),
      "one answer for all",
      answers.size === 1 ? [] : [`${answers.size} different answers: ${[...answers].join(" / ")}`],
    ),
  ];
}

/** Addresses with nothing at them, below each prefix that the table uses. */
function nowhere(routes: readonly AnyRoute[]): string[] {
  const used = PREFIXES.filter((prefix) => routes.some(({ path }) => path.startsWith(`${prefix}/`)));
  return used.flatMap((prefix) => [prefix, `${prefix}/nothing`, `${prefix}/nothing/nothing/nothing`]);
}

function successFaults(answer: Received, route: AnyRoute): string[] {
  if (answer.status !== 200 && answer.status !== 201) return [`answered ${answer.status} ${answer.text}`];
  const body: unknown = route.downloads === undefined ? JSON.parse(answer.text) : answer.text;
  const parsed = route.result.safeParse(body);
  if (!parsed.success) return [`the answer is not what its schema says: ${parsed.error.message}`];
  return isDeepStrictEqual(parsed.data, body)
    ? []
    : [`the answer is not what its schema says: ${JSON.stringify(body)} holds more than ${JSON.stringify(parsed.data)}`];
}

/** As `comparable`; what a write makes is new each time. */
function told(answer: Received, asked: string, route: AnyRoute): string {
  const text = comparable(answer, asked);
  return route.method === "GET" || answer.status >= 300 ? text : text.replaceAll(MADE, "«made»");
}

const MADE = /\\"(id|key|secret|token|value|name|email|created_at|updated_at|added_at|invited_at|expires_at)\\":(\\"[^"]*\\"|\d+)/g;
