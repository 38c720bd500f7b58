import { isSame, type View } from "./compare.ts";
import { type Action, bodyOf, type Change, type Create, type Difference, knowing, type Plan, type Remove, type Replace } from "./plan.ts";
import type { References } from "./references.ts";
import { type AdminApi, type Answer, ServerProblem } from "./server.ts";
import { pathOf } from "./state.ts";

/** Something that the server shows this once. */
export interface Revealed {
  readonly address: string;
  readonly field: string;
  readonly id: string;
  readonly secret: string;
}

export interface PerformHooks {
  readonly done: (action: Action) => void;
  /** Called before anything else is done, so that no secret is lost to a later failure. */
  readonly reveal: (revealed: Revealed) => void;
}

/** What stopped the work, with what it stopped at; everything before it in the plan is done, it and everything after it is not. */
export class Stopped extends Error {
  override readonly name = "Stopped";
  readonly action: Action;
  constructor(action: Action, cause: unknown) {
    super(reasonOf(cause), { cause });
    this.action = action;
  }
}

/** Carries a plan out, in its order. Throws Stopped at the first action that fails. */
export async function perform(api: AdminApi, plan: Plan, references: References, hooks: PerformHooks): Promise<void> {
  const known = knowing(references, plan.state);
  for (const action of plan.actions) {
    try {
      const made = await carryOut(api, action, known, hooks);
      if (made !== null) plan.state.views.set(action.address, made);
    } catch (error) {
      throw new Stopped(action, error);
    }
    hooks.done(action);
  }
}

async function carryOut(api: AdminApi, action: Action, references: References, hooks: PerformHooks): Promise<View | null> {
  switch (action.act) {
    case "create":
      return create(api, action, references, hooks);
    case "change":
      return change(api, action, references, hooks);
    case "replace":
      await api.delete(itemPath(action, action.before), null);
      return create(api, action, references, hooks);
    case "remove":
      await remove(api, action);
      return null;
    default:
      return action satisfies never;
  }
}

/** `If-Match: "0"`: what somebody else makes meanwhile is theirs, and not overwritten. */
async function create(api: AdminApi, action: Create | Replace, references: References, hooks: PerformHooks): Promise<View> {
  const { kind, names, wanted } = action;
  const body = bodyOf(wanted, [...wanted.fields.keys()], references);
  if (kind.write === "put") return revealed(await meanwhile(api.put(pathOf(kind, names), body, '"0"')), action, hooks);
  const collection = pathOf(kind, names.slice(0, -1));
  const ask = () => api.post(collection, { ...body, name: names.at(-1) });
  const made = await ask();
  if (!isReplayWithoutSecret(made, action)) return revealed(made, action, hooks);
  // The answer that held its secret was lost, and the same request again is told without it.
  await api.delete(`${collection}/${encodeURIComponent(String(made.body["id"]))}`, null);
  return revealed(await ask(), action, hooks);
}

function isReplayWithoutSecret({ body }: Answer, { kind }: Create | Replace): boolean {
  return kind.revealed.some((field) => !(field in body));
}

async function change(api: AdminApi, action: Change, references: References, hooks: PerformHooks): Promise<View> {
  const { kind, names, wanted, fields, before } = action;
  const path = pathOf(kind, names);
  const present = await api.get(path);
  if (present === null) throw new ServerProblem("It is gone since the plan was made. Run it again.", 404);
  const moved = fields.filter(({ field }) => field in before && !isSame(before[field], present.body[field]));
  if (moved.length > 0) throw new ServerProblem(`Somebody changed ${namesOf(moved)} since the plan was made. Run it again.`, 412);
  const body = bodyOf(
    wanted,
    fields.map(({ field }) => field),
    references,
  );
  return revealed(await meanwhile(api.put(path, body, present.etag)), action, hooks);
}

async function remove(api: AdminApi, action: Remove): Promise<void> {
  const { before } = action;
  const path = itemPath(action, before);
  const present = await api.get(path);
  if (present === null) return;
  if (present.body["updated_at"] !== before["updated_at"] || present.body["id"] !== before["id"])
    throw new ServerProblem("Somebody changed it since the plan was made. Run it again.", 412);
  await meanwhile(api.delete(path, present.etag));
}

/** What is named in its body is addressed by its id. */
function itemPath({ kind, names }: Replace | Remove, before: View): string {
  return kind.write === "put" ? pathOf(kind, names) : pathOf(kind, [...names.slice(0, -1), String(before["id"])]);
}

async function meanwhile<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof ServerProblem && error.status === 412)
      throw new ServerProblem("Somebody changed it meanwhile. Run it again.", 412);
    throw error;
  }
}

function revealed({ body }: Answer, { address, kind }: Action, hooks: PerformHooks): View {
  for (const field of kind.revealed) {
    const secret = body[field];
    if (typeof secret === "string") hooks.reveal({ address, field, id: String(body["id"]), secret });
  }
  return body;
}

function namesOf(differences: readonly Difference[]): string {
  return differences.map(({ field }) => `'${field}'`).join(", ");
}

function reasonOf(cause: unknown): string {
  if (cause instanceof ServerProblem) {
    const status = cause.status === null ? "" : ` (${cause.status}${cause.param === null ? "" : `, ${cause.param}`})`;
    return `${cause.message}${status}`;
  }
  return cause instanceof Error ? cause.message : String(cause);
}
