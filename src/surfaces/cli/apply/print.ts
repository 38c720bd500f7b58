import { isComparable } from "./compare.ts";
import type { Wanted } from "./file.ts";
import type { Action, Difference, Plan } from "./plan.ts";
import { type References, substitute } from "./references.ts";

const SIGNS = { create: "+", change: "~", replace: "±", remove: "-" } as const;

/** The plan, field by field. Secrets are never in it; what comes from outside the file is shown as the file writes it. */
export function renderPlan(plan: Plan, references: References): string {
  const lines = plan.actions.flatMap((action) => [headOf(action), ...detailsOf(action, references)]);
  return [...lines, summaryOf(plan)].map((line) => `${line}\n`).join("");
}

/** How the server differs from the files. */
export function renderDrift(plan: Plan, references: References): string {
  const lines = plan.actions.flatMap((action) => {
    switch (action.act) {
      case "create":
        return [`missing  ${printable(action.address)}  (${action.place})`];
      case "remove":
        return [`extra    ${printable(action.address)}`];
      case "change":
      case "replace":
        return [
          `differs  ${printable(action.address)}  (${action.place})`,
          ...action.fields
            .filter(({ before }) => before !== undefined)
            .map(
              ({ field, before }) =>
                `           ${field}: the file says ${written(action.wanted, field, references)}, the server has ${shown(before)}`,
            ),
        ];
      default:
        return action satisfies never;
    }
  });
  const verdict = plan.actions.length === 0 ? "The server is as the files say." : `${plan.actions.length} differences.`;
  return [...lines, verdict].map((line) => `${line}\n`).join("");
}

/** `+ tenants/acme`, as plans and reports name an action. */
export function headOf(action: Action): string {
  const place = "place" in action ? `  (${action.place})` : "";
  return `${SIGNS[action.act]} ${printable(action.address)}${place}`;
}

function detailsOf(action: Action, references: References): string[] {
  switch (action.act) {
    case "create":
      return [...action.wanted.fields.keys()].map((field) => `    ${field}: ${written(action.wanted, field, references)}`);
    case "change":
    case "replace":
      return action.fields.map((difference) => changeOf(action.wanted, difference, references));
    case "remove":
      return [];
    default:
      return action satisfies never;
  }
}

function changeOf(wanted: Wanted, { field, before }: Difference, references: References): string {
  const after = written(wanted, field, references);
  return before === undefined ? `    ${field}: ${after}` : `    ${field}: ${shown(before)} → ${after}`;
}

function written(wanted: Wanted, field: string, references: References): string {
  const raw = wanted.fields.get(field)?.raw;
  const { isReferring, value } = substitute(raw, references);
  if (isReferring) return printable(typeof raw === "string" ? raw : JSON.stringify(raw));
  return isComparable(wanted.kind, field, value) || value === null ? shown(value) : "(secret)";
}

function summaryOf({ actions, unchanged, uncompared }: Plan): string {
  const count = (...acts: Action["act"][]) => actions.filter(({ act }) => acts.includes(act)).length;
  const secrets =
    uncompared.length === 0
      ? ""
      : `\n${uncompared.length} with secrets, which the server does not show: they were not compared, and --send-secrets sends them.`;
  if (actions.length === 0) return `No changes: ${unchanged} as they are.${secrets}`;
  return `${count("create")} to create, ${count("change")} to change, ${count("replace")} to replace, ${count("remove")} to archive; ${unchanged} as they are.${secrets}`;
}

/** Longer values are cut: a plan is to be read. */
const MAX_SHOWN = 200;

function shown(value: unknown): string {
  const text = printable(JSON.stringify(value) ?? "(absent)");
  return text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN)}…`;
}

/** Tenants write names, and a terminal must not act on what they write. */
function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (letter) => `\\u{${letter.codePointAt(0)?.toString(16)}}`);
}
