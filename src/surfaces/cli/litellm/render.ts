import { stringify } from "yaml";
import type { Imported } from "./map.ts";

/** The file for `apply`: what it does not hold stands at its head. */
export function renderImported({ manifest, unmapped, notes }: Imported, from: string): string {
  const head = [
    `Imported from ${from}. See what it would change: npm run apply -- -f THIS_FILE`,
    "Every model is visible to every tenant, as LiteLLM has it; tenants, projects and keys are yours to add.",
    ...notes,
    ...(unmapped.length === 0 ? [] : ["", "Not carried over:"]),
    ...reportLines({ unmapped }),
  ];
  const body = Object.keys(manifest).length === 0 ? "" : stringify(manifest, { aliasDuplicateObjects: false, lineWidth: 0 });
  return `${head.map((line) => `# ${oneLine(line)}`.trimEnd()).join("\n")}\n\n${body}`;
}

/** `router_settings.fallbacks: a call does not go on to another model` */
export function reportLines({ unmapped }: Pick<Imported, "unmapped">): string[] {
  return unmapped.map(({ path, reason }) => oneLine(`${path}: ${reason}`));
}

/** A line break in a key would end the comment. */
function oneLine(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]/gu, " ");
}
