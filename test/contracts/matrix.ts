import { isDeepStrictEqual } from "node:util";
import { permissionsInPlace } from "../../src/domains/identity/decide.ts";
import { ROLES, type Permission, type Role } from "../../src/domains/identity/index.ts";
import { PROBLEMS, type ProblemCode } from "../../src/kernel/problem.ts";
import { methodsAt, type AnyRoute } from "../../src/surfaces/admin/route-table.ts";
import { badInputs } from "./inputs.ts";
import { positionsOf, type Position, type Probe } from "./positions.ts";
import { handleOf, pathFor, Stage, TENANT, templatesOf, type MatrixWorld, type Received } from "./stage.ts";

/** One square of the matrix. `void`: what it was to be compared with did not succeed, so it proves nothing; it counts as a failure. */
export interface Cell {
  readonly route: string;
  readonly caller: string;
  readonly what: string;
  readonly verdict: "covered" | "void" | "failed";
  readonly why: string;
}

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
  }
  return [
    ...cells,
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

interface Caller {
  readonly name: string;
  readonly key: string | null;
  /** The code it is refused with whatever it asks for; null for a key that is valid. */
  readonly refusedWith: string | null;
  /** `nothing`: a key of a tenant that is suspended. */
  readonly reaches: "A" | "B" | "everything" | "nothing";
  readonly permissions: ReadonlySet<string>;
}

async function engage(stage: Stage): Promise<Caller[]> {
  const { world } = stage;
  const tenant = (owner: "A" | "B") => handleOf(stage.thing(TENANT, owner));
  const admin = async (owner: "A" | "B", expiresInMs?: number) => {
    const minted = await world.mint(tenant(owner), "tenant_admin", "tenant", expiresInMs);
    if (minted === null) throw new Error("no tenant admin could be made");
    return minted;
  };
  const expired = await admin("A", world.shortLifeMs);
  const expires = Date.now() + world.shortLifeMs;
  const revoked = await admin("A");
  await world.revoke(tenant("A"), revoked.id);
  const outcasts = (await world.outcasts?.()) ?? [];
  const callers = [
    refused("no key", null),
    refused("malformed key", "atr_malformed"),
    refused("unknown key", world.unknownKey),
    refused("revoked key", revoked.key),
    refused("expired key", expired.key, "expired_api_key"),
    ...outcasts.map(({ name, key, refusedWith }) =>
      refusedWith === null ? held(name, key, "nothing", ROLES.tenant_admin) : refused(name, key, refusedWith),
    ),
    ...(await membersOf(world, "A", tenant("A"), ["developer", "tenant_admin"])),
    ...(await membersOf(world, "B", tenant("B"), Object.keys(ROLES) as Role[])),
    ...((await world.platformKeys?.()) ?? []).map(({ name, key, permissions }) => held(name, key, "everything", permissions)),
    held("platform admin", world.adminKey, "everything", ROLES.platform_admin),
  ];
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, expires - Date.now()) + 50));
  return callers;
}

function refused(name: string, key: string | null, refusedWith = "invalid_api_key"): Caller {
  return { name, key, refusedWith, reaches: "nothing", permissions: new Set() };
}

function held(name: string, key: string, reaches: Caller["reaches"], permissions: Iterable<Permission>): Caller {
  return { name, key, refusedWith: null, reaches, permissions: new Set(permissions) };
}

/** A key of each role that can stand above the tenant's projects, and of each that can stand in one. */
async function membersOf(world: MatrixWorld, owner: "A" | "B", tenant: string, roles: readonly Role[]): Promise<Caller[]> {
  const members: Caller[] = [];
  for (const role of roles) {
    for (const place of ["tenant", "project"] as const) {
      const minted = await world.mint(tenant, role, place);
      const name = `${role.replaceAll("_", " ")} of ${place === "project" ? "a project of " : ""}${owner}`;
      if (minted !== null) members.push(held(name, minted.key, owner, permissionsInPlace([role], place)));
    }
  }
  return members;
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
    const params = await stage.freshParams(route, "A");
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
  const [before, audited] = [await checksumOf(stage, "A"), await stage.world.auditRows()];
  const result = await work();
  return (await checksumOf(stage, "A")) === before && (await stage.world.auditRows()) === audited ? result : null;
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
  const before = await checksumOf(stage, "B");
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
  const untouched = (await checksumOf(stage, "B")) === before;
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
  const before = await checksumOf(stage, "A");
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
  if ((await checksumOf(stage, "A")) !== before) cells.push(cell(route.id, "platform admin", "repeats", ["rows of A changed"]));
  return cells;
}

/** Each place of the route that names something, × each thing that may not be found there, × each caller. */
async function identityCells(stage: Stage, callers: readonly Caller[], route: AnyRoute): Promise<Cell[]> {
  const before = await checksumOf(stage, "A");
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
  const after = await checksumOf(stage, "A");
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

/** Everybody who must learn nothing of A. */
function isOutsider(caller: Caller): boolean {
  return caller.reaches === "B" || caller.reaches === "nothing";
}

/** What changes nothing can be asked at once; the server's database is another process. */
const AT_ONCE = 8;

async function together<From, To>(items: readonly From[], work: (item: From) => Promise<To>): Promise<To[]> {
  const done: To[] = [];
  for (let index = 0; index < items.length; index += AT_ONCE)
    done.push(...(await Promise.all(items.slice(index, index + AT_ONCE).map(work))));
  return done;
}

async function oneByOne<From, To>(items: readonly From[], work: (item: From) => Promise<To>): Promise<To[]> {
  const done: To[] = [];
  for (const item of items) done.push(await work(item));
  return done;
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
    for (const path of NOWHERE) answers.add(comparable(await stage.world.ask({ method: "GET", path, key }), ""));
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

const NOWHERE = ["/admin/v1", "/admin/v1/nothing", "/admin/v1/tenants/nothing/nothing", "/v1/organization/nothing"];

function cell(route: string, caller: string, what: string, faults: readonly string[]): Cell {
  return { route, caller, what, verdict: faults.length === 0 ? "covered" : "failed", why: faults.join("; ") };
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

function refusalFaults(answer: Received, status: number, code: string | null): string[] {
  const faults = answer.status === status ? [] : [`answered ${answer.status} instead of ${status}: ${answer.text}`];
  const envelope = envelopeOf(answer);
  if (envelope === null) faults.push(`no error envelope: ${answer.text}`);
  else if (code !== null && envelope.code !== code) faults.push(`code is ${envelope.code}, not ${code}`);
  return faults;
}

function envelopeOf(answer: Received): { readonly code: string; readonly param: string | null } | null {
  try {
    return (JSON.parse(answer.text) as { error?: { code: string; param: string | null } }).error ?? null;
  } catch {
    return null;
  }
}

/** What of A's an answer to somebody of B holds, beside what the caller itself had sent. */
function leaks(stage: Stage, answer: Received, sent: readonly string[]): string[] {
  const told = `${answer.text}\n${JSON.stringify(answer.headers)}`;
  return stage
    .secrets("A")
    .filter((secret) => told.includes(secret) && !sent.some((each) => each.includes(secret)))
    .map((secret) => `'${secret}' of A was told`);
}

/** As `comparable`; what a write makes is new each time. */
function told(answer: Received, asked: string, route: AnyRoute): string {
  const text = comparable(answer, asked);
  return route.method === "GET" || answer.status >= 300 ? text : text.replaceAll(MADE, "«made»");
}

const MADE = /\\"(id|key|secret|token|value|name|email|created_at|updated_at|added_at|invited_at|expires_at)\\":(\\"[^"]*\\"|\d+)/g;

/** An answer without what differs between any two answers, and with the value that was asked for blotted out. */
function comparable({ status, headers, text }: Received, asked: string): string {
  const kept = Object.entries(headers)
    .filter(([name]) => !VARYING.has(name))
    .toSorted(([left], [right]) => (left < right ? -1 : 1));
  const body = asked === "" ? text : text.replaceAll(JSON.stringify(asked).slice(1, -1), "«asked»");
  return JSON.stringify([status, kept, body.replace(SIGNED_NOW, "«signed now»")]);
}

/** What a checkpoint says of its tenant's trail at this moment. */
const SIGNED_NOW = /"at":"[^"]+".*"sequence":\d+,"hash":"\w+"|"signature":"[^"]+"/g;

const VARYING: ReadonlySet<string> = new Set(["x-request-id", "date", "content-length", "etag", "connection", "keep-alive"]);

async function checksumOf(stage: Stage, owner: "A" | "B"): Promise<string> {
  return stage.world.checksum(stage.thing(TENANT, owner).id as string);
}
