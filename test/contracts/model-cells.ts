import { PROBLEMS, type ProblemCode } from "../../src/kernel/problem.ts";
import { type Caller, isOutsider } from "./callers.ts";
import { type Cell, cell, comparable, leaks, oneByOne, together } from "./cells.ts";
import { flipCase, lookalike, TENANT_HEADERS } from "./positions.ts";
import type { Owner, Received, Sent, Stage, StagedModels } from "./stage.ts";

/**
 * The endpoints that models are called at × what a call can name there × each thing that may not be found by it × each caller, over
 * real connections. None where the world has no such endpoints.
 */
export async function modelCells(stage: Stage, callers: readonly Caller[]): Promise<Cell[]> {
  const { world } = stage;
  if (world.models === undefined) return [];
  const models = await world.models(stage.tenantNames());
  const limited: Caller = { ...developer(callers, "B"), name: "key of B for another model", key: models.keyForAnother };
  const before = await stage.checksum("A");
  const cells: Cell[] = [];
  for (const endpoint of ENDPOINTS) {
    const named = await endpointCells(stage, models, endpoint, [...callers.filter(({ reaches }) => reaches !== "A"), limited]);
    const fault = await controlFault(stage, models, endpoint, callers);
    cells.push(...(fault === null ? named : named.map((each): Cell => ({ ...each, verdict: "void", why: fault }))));
  }
  if ((await stage.checksum("A")) !== before) cells.push(cell("model endpoints", "any of them", "all foreign ids", ["rows of A changed"]));
  return [...cells, ...(await ownerCells(stage, models, callers))];
}

/** How a model is asked for: `stream` answers in events. */
interface Endpoint {
  readonly name: string;
  readonly family: "chat.completions" | "messages" | "models";
  /** The request that names this model; `fields` are added to its body. */
  readonly request: (model: unknown, fields?: object) => Omit<Sent, "key">;
  /** The fields of the body that hold a word of the caller's. */
  readonly fields: Readonly<Record<string, (value: string) => object>>;
}

const MESSAGES = [{ role: "user", content: "Hello." }];

const CHAT_FIELDS: Endpoint["fields"] = {
  "body metadata": (value) => ({ metadata: { feature: value, session: value, tenant: value, project: value } }),
  "body user": (user) => ({ user }),
  "body safety_identifier": (value) => ({ safety_identifier: value }),
  "body prompt_cache_key": (value) => ({ prompt_cache_key: value }),
};

const MESSAGE_FIELDS: Endpoint["fields"] = {
  "body metadata": (value) => ({ metadata: { feature: value, session: value, tenant: value, project: value } }),
  "body metadata.user_id": (value) => ({ metadata: { user_id: value } }),
};

const ENDPOINTS: readonly Endpoint[] = [
  ...[false, true].map((stream) => calling("/v1/chat/completions", "chat.completions", { max_tokens: 3, stream }, CHAT_FIELDS)),
  ...[false, true].map((stream) => calling("/v1/messages", "messages", { max_tokens: 3, stream }, MESSAGE_FIELDS)),
  calling("/v1/messages/count_tokens", "messages", {}, {}),
  {
    name: "GET /v1/models/{model}",
    family: "models",
    request: (model) => ({ method: "GET", path: `/v1/models/${encodeURIComponent(String(model))}` }),
    fields: {},
  },
];

function calling(
  path: string,
  family: Endpoint["family"],
  fixed: { readonly stream?: boolean; readonly max_tokens?: number },
  fields: Endpoint["fields"],
): Endpoint {
  return {
    name: `POST ${path}${fixed.stream === true ? ", streamed" : ""}`,
    family,
    request: (model, more) => ({ method: "POST", path, body: { model, messages: MESSAGES, ...fixed, ...more } }),
    fields,
  };
}

/** One request that names something, and what it is compared with. */
interface Naming {
  readonly what: string;
  readonly request: Omit<Sent, "key">;
  /** The same with a value that was never given to anything; null where any refusal will do. */
  readonly never: Omit<Sent, "key"> | null;
  readonly expect: "no model" | "refused" | "answered";
}

async function endpointCells(stage: Stage, models: StagedModels, endpoint: Endpoint, callers: readonly Caller[]): Promise<Cell[]> {
  const namings = [...modelNamings(models, endpoint), ...attributionNamings(stage, models, endpoint)];
  const byCaller = await oneByOne(callers, async (caller) => {
    const baselines = new Map<string, Promise<string>>();
    const own = caller.key === models.keyForAnother ? [ownNaming(models, endpoint)] : [];
    return together([...namings, ...own], (naming) => namingCell(stage, models, endpoint, caller, naming, baselines));
  });
  return byCaller.flat();
}

function modelNamings({ own, ids, ungranted, withdrawn, deleted }: StagedModels, endpoint: Endpoint): Naming[] {
  const named = (what: string, value: string): Naming => absentModel(endpoint, `model: ${what}`, value);
  return [
    named("foreign name", own.A),
    named("foreign id", ids.A),
    named("own id", ids.B),
    named("granted to nobody", ungranted),
    named("no longer granted", withdrawn),
    named("deleted", deleted),
    named("never existed", lookalike(own.B)),
    named("other case", flipCase(own.B)),
    named("*", "*"),
    named("%", "%"),
    named("'null'", "null"),
    ...(endpoint.family === "models"
      ? []
      : [null, [own.A], { name: own.A }].map((value): Naming => ({
          what: `model: ${value === null ? "null" : Array.isArray(value) ? "a list" : "an object"}`,
          request: endpoint.request(value),
          never: null,
          expect: "refused",
        }))),
  ];
}

/** What is the tenant's own, asked for with a key that is not for it. */
function ownNaming({ own }: StagedModels, endpoint: Endpoint): Naming {
  return absentModel(endpoint, "model: own, that the key is not for", own.B);
}

function absentModel(endpoint: Endpoint, what: string, value: string): Naming {
  const never = "Matrix-Cell-never";
  return { what, request: endpoint.request(value), never: endpoint.request(never), expect: "no model" };
}

/** Words of the caller's own that are about its call: there, what is another's is a word like any other. */
function attributionNamings(stage: Stage, models: StagedModels, endpoint: Endpoint): Naming[] {
  const told = (what: string, value: string, never = lookalike(value)) =>
    Object.entries(placesOf(endpoint, models.own.B)).map(([place, request]): Naming => ({
      what: `${place}: ${what}`,
      request: request(value),
      never: request(never),
      expect: "answered",
    }));
  const foreign = stage.things("A").filter(({ kind, template }) => OWNED.has(kind) && stage.isTenants(template));
  const named = new Map([[models.own.A, "foreign model"]]);
  for (const { kind, id, name } of foreign) {
    if (id !== null) named.set(id, `foreign ${kind}'s id`);
    if (name !== null) named.set(name, `foreign ${kind}'s name`);
  }
  return [
    ...[...named].flatMap(([value, what]) => told(what, value)),
    ...["null", "*", "%"].flatMap((value) => told(`'${value}'`, value, "0")),
  ];
}

const OWNED: ReadonlySet<string> = new Set(["tenant", "project", "key", "member"]);

/** Where a call of this model can hold a word: its request, by where the word is. */
function placesOf(endpoint: Endpoint, model: string): Record<string, (value: string) => Omit<Sent, "key">> {
  const withHeaders = (named: (value: string) => Readonly<Record<string, string>>) => (value: string) => ({
    ...endpoint.request(model),
    headers: named(value),
  });
  const ofTenants = withHeaders((value) => Object.fromEntries(TENANT_HEADERS.map((name) => [name, value])));
  const attributed = ["feature", "user", "session", "tags"].map((tag) => {
    const header = `x-atrium-${tag}`;
    return [`header ${header}`, withHeaders((value) => ({ [header]: tag === "tags" ? `project=${value}` : value }))] as const;
  });
  const fields = Object.entries(endpoint.fields).map(
    ([field, holding]) => [field, (value: string) => endpoint.request(model, holding(value))] as const,
  );
  return Object.fromEntries([["headers of tenants", ofTenants] as const, ...(endpoint.family === "models" ? [] : attributed), ...fields]);
}

async function namingCell(
  stage: Stage,
  models: StagedModels,
  endpoint: Endpoint,
  caller: Caller,
  naming: Naming,
  baselines: Map<string, Promise<string>>,
): Promise<Cell> {
  const ask = (request: Omit<Sent, "key">) => stage.world.send({ ...request, key: caller.key });
  const { never } = naming;
  const answer = await ask(naming.request);
  const faults = answerFaults(
    answer,
    caller,
    endpoint,
    caller.key === models.keyForAnother && naming.expect === "answered" ? "no model" : naming.expect,
  );
  if (isOutsider(caller)) faults.push(...leaks(stage, answer, [JSON.stringify(naming.request)]));
  if (never !== null) {
    // Who is refused, or asks for a model that is none, is answered alike whatever it is.
    const form = naming.expect === "answered" && answer.status < 300 ? naming.what : "";
    const baseline = baselines.get(form) ?? ask(never).then(told);
    baselines.set(form, baseline);
    if (told(answer) !== (await baseline)) faults.push(`told apart from what never existed: ${told(answer)} / ${await baseline}`);
  }
  return cell(endpoint.name, caller.name, naming.what, faults);
}

function answerFaults(answer: Received, caller: Caller, endpoint: Endpoint, expect: Naming["expect"]): string[] {
  const refusal = refusalOf(caller, endpoint) ?? (expect === "no model" ? "model_not_found" : null);
  if (refusal !== null) {
    const { status } = PROBLEMS[refusal];
    const code = codeOf(answer);
    return answer.status === status && code === refusal
      ? []
      : [`answered ${answer.status} ${code} instead of ${status} ${refusal}: ${answer.text}`];
  }
  const right = expect === "answered" ? answer.status === 200 : answer.status >= 400 && answer.status < 500;
  return right ? [] : [`answered ${answer.status}: ${answer.text}`];
}

/** What the caller is refused with whatever it names; null for one that may call models. */
function refusalOf(caller: Caller, { family }: Endpoint): ProblemCode | null {
  if (caller.isFor === family) return "model_not_found";
  if (caller.refusedWith !== null) return caller.refusedWith as ProblemCode;
  if (caller.reaches === "nothing") return "tenant_suspended";
  return caller.permissions.has("models:call") && caller.reaches === "B" ? null : "permission_denied";
}

/** Of either dialect's envelope. */
function codeOf({ text }: Received): string | null {
  try {
    const { error } = JSON.parse(text) as { error?: { code?: string; details?: { error_code?: string } } };
    return error?.code ?? error?.details?.error_code ?? null;
  } catch {
    return null;
  }
}

/** An answer without what differs between any two calls; none says what was asked for. */
function told(answer: Received): string {
  const headers = Object.fromEntries(Object.entries(answer.headers).filter(([name]) => !OF_THE_CALL.test(name)));
  return comparable({ ...answer, headers }, "").replaceAll(MADE, "«made»");
}

const OF_THE_CALL = /^(traceparent|request-id|x-atrium-overhead-ms|(x-|anthropic-)ratelimit-.*)$/;
const MADE = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\\"created\\":\d+/g;

/** Why what B's caller was refused proves nothing: with its own model there the call fails. Null where it does not. */
async function controlFault(stage: Stage, { own }: StagedModels, endpoint: Endpoint, callers: readonly Caller[]): Promise<string | null> {
  const { status, text } = await stage.world.send({ ...endpoint.request(own.B), key: developer(callers, "B").key });
  return status === 200 ? null : `with B's own model there the call answered ${status} ${text}`;
}

/** What nobody of B could reach is there, for A. */
async function ownerCells(stage: Stage, { own }: StagedModels, callers: readonly Caller[]): Promise<Cell[]> {
  const { name, key } = developer(callers, "A");
  return oneByOne(ENDPOINTS, async (endpoint) => {
    const { status, text } = await stage.world.send({ ...endpoint.request(own.A), key });
    return cell(endpoint.name, name, "model: own", status === 200 ? [] : [`answered ${status} ${text}`]);
  });
}

function developer(callers: readonly Caller[], owner: Owner): Caller {
  const found = callers.find(({ name }) => name === `developer of ${owner}`);
  if (found === undefined) throw new Error(`no developer of ${owner} is there`);
  return found;
}
