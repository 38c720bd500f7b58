import fc from "fast-check";
import type { Json, JsonObject } from "../../../kernel/request.ts";

/** JSON objects with keys of every kind, `model` and `messages` likely among them. */
export const jsonObject: fc.Arbitrary<JsonObject> = fc
  .dictionary(
    fc.oneof(
      fc.constantFrom("model", "messages", "stream", "max_tokens", "user", "__proto__", 'é"\\', ""),
      fc.string({ unit: "binary", maxLength: 8 }),
    ),
    fc.jsonValue({ maxDepth: 4 }),
    { maxKeys: 8 },
  )
  // JSON has no -0.
  .map((object) => JSON.parse(JSON.stringify(object)) as JsonObject);

/** JSON text of a value, spelt oddly: white space anywhere, any character escaped. `choices` decides where. */
export function oddJson(value: Json, choices: readonly number[]): string {
  let at = 0;
  const pick = (): number => choices[at++ % choices.length] ?? 0;
  const space = (): string => SPACES[pick() % SPACES.length] ?? "";
  const text = (string: string): string =>
    `"${string
      .split("")
      .map((unit) => spell(unit, pick()))
      .join("")}"`;
  const write = (inner: Json | undefined): string => {
    if (typeof inner === "string") return text(inner);
    if (typeof inner !== "object" || inner === null) return JSON.stringify(inner);
    if (Array.isArray(inner)) return `[${space()}${(inner as readonly Json[]).map((item) => write(item) + space()).join(`,${space()}`)}]`;
    const members = Object.entries(inner).map(([key, child]) => `${space()}${text(key)}${space()}:${space()}${write(child)}${space()}`);
    return `{${members.join(",")}${members.length === 0 ? space() : ""}}`;
  };
  return space() + write(value) + space();
}

const SPACES = ["", "", "", " ", "\n", "\t", "\r\n", "   "];

function spell(unit: string, choice: number): string {
  const code = unit.charCodeAt(0);
  if (choice % 5 === 0 || code < 0x20 || (code >= 0xd800 && code <= 0xdfff)) return `\\u${code.toString(16).padStart(4, "0")}`;
  return unit === '"' || unit === "\\" ? `\\${unit}` : unit;
}

export const oddChoices: fc.Arbitrary<number[]> = fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 50 });
