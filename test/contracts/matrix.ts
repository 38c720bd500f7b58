import { isDeepStrictEqual } from "node:util";
import { ROLES, type Permission } from "../../src/domains/identity/index.ts";
import { methodsAt, type AnyRoute } from "../../src/surfaces/admin/route-table.ts";
import { badInputs } from "./inputs.ts";
import { positionsOf, type Position } from "./positions.ts";
import { handleOf, pathFor, Stage, type MatrixWorld, type Received } from "./stage.ts";

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
    for (const caller of callers.filter(({ name }) => name === "tenant admin of B" || name === "platform admin"))
      cells.push(...(await upright(route.id, () => identityCells(stage, caller, route))));
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
  readonly reaches: "A" | "B" | "everything";
  readonly permissions: ReadonlySet<string>;
}

async function engage(stage: Stage): Promise<Caller[]> {
  const { world } = stage;
  const tenant = (owner: "A" | "B") => handleOf(stage.thing("/admin/v1/tenants/{tenant}", owner));
  const expired = await world.mint(tenant("A"), "tenant_admin", world.shortLifeMs);
  const expires = Date.now() + world.shortLifeMs;
  const revoked = await world.mint(tenant("A"), "tenant_admin");
  await world.revoke(tenant("A"), revoked.id);
  const refused = (name: string, key: string | null, refusedWith = "invalid_api_key"): Caller => ({
    name,
    key,
    refusedWith,
    reaches: "A",
    permissions: new Set(),
  });
  const held = (name: string, key: string, reaches: Caller["reaches"], permissions: readonly Permission[]): Caller => ({
    name,
    key,
    refusedWith: null,
    reaches,
    permissions: new Set(permissions),
  });
  const callers = [
    refused("no key", null),
    refused("malformed key", "atr_malformed"),
    refused("unknown key", world.unknownKey),
    refused("revoked key", revoked.key),
    refused("expired key", expired.key, "expired_api_key"),
    held("developer of A", (await world.mint(tenant("A"), "developer")).key, "A", ROLES.developer),
    held("tenant admin of A", (await world.mint(tenant("A"), "tenant_admin")).key, "A", ROLES.tenant_admin),
    held("tenant admin of B", (await world.mint(tenant("B"), "tenant_admin")).key, "B", ROLES.tenant_admin),
    held("platform admin", world.adminKey, "everything", ROLES.platform_admin),
  ];
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, expires - Date.now()) + 50));
  return callers;
}

/** The permission table's word on a caller's valid call upon tenant A's things. */
function expectation(caller: Caller, route: AnyRoute): { readonly status: number; readonly code: string | null } {
  if (caller.refusedWith !== null) return { status: 401, code: caller.refusedWith };
  if (route.reach === "path" && caller.reaches === "B") return { status: 404, code: "not_found" };
  return caller.permissions.has(route.permission) ? { status: 200, code: null } : { status: 403, code: "permission_denied" };
}

async function accessCells(stage: Stage, callers: readonly Caller[], route: AnyRoute): Promise<Cell[]> {
  const cells: Cell[] = [];
  for (const caller of callers) {
    const expected = expectation(caller, route);
    const params = expected.status === 200 ? await stage.freshParams(route, "A") : stage.params(route, "A");
    const before = await checksumOf(stage, "A");
    const audited = await stage.world.auditRows();
    const answer = await stage.call(route, caller.key, params, "A");
    const faults = expected.status === 200 ? successFaults(answer, route) : refusalFaults(answer, expected.status, expected.code);
    if (expected.status !== 200 && (await checksumOf(stage, "A")) !== before) faults.push("rows of A changed");
    const left = (await stage.world.auditRows()) - audited;
    if (left !== (expected.status === 200 && route.audit !== null ? 1 : 0)) faults.push(`left ${left} audit rows`);
    if (caller.reaches === "B") faults.push(...leaks(stage, answer, [...Object.values(params), JSON.stringify(stage.body(route, "A"))]));
    cells.push(cell(route.id, caller.name, "valid example", faults));
  }
  return cells;
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
    const answer = await stage.call(route, stage.world.adminKey, params, "B", { ...bad.change, ...query });
    const faults = refusalFaults(answer, bad.status, null);
    if (bad.param !== null && !String(envelopeOf(answer)?.param).startsWith(bad.param))
      faults.push(`param is ${envelopeOf(answer)?.param}, not ${bad.param}`);
    cells.push(cell(route.id, "platform admin", bad.what, faults));
  }
  const untouched = (await checksumOf(stage, "B")) === before;
  return untouched ? cells : [...cells, cell(route.id, "platform admin", "all bad input", ["rows of B changed"])];
}

/** An Idempotency-Key: the same request again, another body under it, and the same key in another tenant's hands. */
async function repeatCells(stage: Stage, callers: readonly Caller[], route: AnyRoute): Promise<Cell[]> {
  const params = await stage.freshParams(route, "A");
  const raw = JSON.stringify(stage.body(route, "A"));
  const ask = (key: string | null, text = raw) =>
    stage.call(route, key, params, "A", {
      raw: text,
      headers: { "content-type": "application/json", "idempotency-key": `matrix-${route.id}` },
    });
  const first = await ask(stage.world.adminKey);
  const before = await checksumOf(stage, "A");
  const [again, other] = [await ask(stage.world.adminKey), await ask(stage.world.adminKey, ` ${raw}`)];
  const faults = successFaults(first, route);
  const told = JSON.parse(again.text) as Record<string, unknown>;
  const once = Object.entries(JSON.parse(first.text) as Record<string, unknown>).filter(
    ([name, value]) => !isDeepStrictEqual(told[name], value),
  );
  if (again.status !== first.status || again.headers["idempotent-replayed"] !== "true")
    faults.push(`the repeat answered ${again.status} ${again.text}`);
  if (once.some(([name]) => name !== "key" || name in told)) faults.push(`the repeat differs: ${again.text}`);
  const cells = [cell(route.id, "platform admin", "the same request again", faults)];
  cells.push(cell(route.id, "platform admin", "another body under one Idempotency-Key", refusalFaults(other, 409, "idempotency_mismatch")));
  for (const caller of callers.filter(({ reaches }) => reaches === "B")) {
    const { status, code } = expectation(caller, route);
    const answer = await ask(caller.key);
    cells.push(
      cell(route.id, caller.name, "A's Idempotency-Key", [
        ...refusalFaults(answer, status, code),
        ...leaks(stage, answer, [...Object.values(params), raw]),
      ]),
    );
  }
  if ((await checksumOf(stage, "A")) !== before) cells.push(cell(route.id, "platform admin", "repeats", ["rows of A changed"]));
  return cells;
}

/** Each place of the route that names something, × each thing that the caller may not find there. */
async function identityCells(stage: Stage, caller: Caller, route: AnyRoute): Promise<Cell[]> {
  if (!caller.permissions.has(route.permission)) return [];
  const control = await stage.call(route, caller.key, await stage.freshParams(route, "B"));
  const before = await checksumOf(stage, "A");
  const cells: Cell[] = [];
  for (const position of positionsOf(route, stage)) cells.push(...(await probe(stage, caller, route, position)));
  if ((await checksumOf(stage, "A")) !== before) cells.push(cell(route.id, caller.name, "all foreign ids", ["rows of A changed"]));
  return control.status < 300
    ? cells
    : cells.map((each): Cell => ({ ...each, verdict: "void", why: `the owner's same call answered ${control.status} ${control.text}` }));
}

async function probe(stage: Stage, caller: Caller, route: AnyRoute, position: Position): Promise<Cell[]> {
  const ask = (value: string) => position.call(stage, route, caller.key, value);
  const strangers = new Map<string, Promise<string>>();
  const askForStranger = (form: string, value: string) => {
    const stranger = position.stranger(value);
    const answer = strangers.get(form) ?? ask(stranger).then((each) => comparable(each, stranger));
    strangers.set(form, answer);
    return answer;
  };
  const cells: Cell[] = [];
  for (const { what, value, form, expect } of await position.values(stage, caller.reaches === "everything")) {
    const answer = await ask(value);
    const faults = answer.status >= 500 ? [`answered ${answer.status} ${answer.text}`] : [];
    if (caller.reaches === "B") faults.push(...leaks(stage, answer, [value]));
    if (expect === "refused" && answer.status < 300) faults.push(`answered ${answer.status} ${answer.text}`);
    if (expect === "as if it never existed") {
      const baseline = await askForStranger(form, value);
      if (comparable(answer, value) !== baseline)
        faults.push(`told apart from what never existed: ${comparable(answer, value)} / ${baseline}`);
    }
    cells.push(cell(route.id, caller.name, `${position.name}: ${what}`, faults));
  }
  return cells;
}

/** A method that a known path does not take. */
async function methodCells(stage: Stage): Promise<Cell[]> {
  const cells: Cell[] = [];
  for (const path of new Set(stage.world.routes.map((route) => route.path))) {
    const route = stage.world.routes.find((each) => each.path === path) as AnyRoute;
    const concrete = pathFor(route, stage.params(route, "B"));
    const known = methodsAt(stage.world.routes, concrete);
    for (const method of ["GET", "PUT", "POST", "DELETE", "PATCH"].filter((each) => !known.includes(each))) {
      const answer = await stage.world.send({ method, path: concrete, key: stage.world.adminKey });
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
    for (const path of NOWHERE) answers.add(comparable(await stage.world.send({ method: "GET", path, key }), ""));
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
  const body: unknown = JSON.parse(answer.text);
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
  return stage.world.checksum(stage.thing("/admin/v1/tenants/{tenant}", owner).id as string);
}
