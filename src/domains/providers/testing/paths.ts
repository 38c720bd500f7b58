import type { Json, JsonObject } from "../../../kernel/request.ts";

/** Whether a Problem's `param` (`messages[0].content[1].type`) is written in the caller's body. */
export function hasPath(body: Json, param: string): boolean {
  let value: Json | undefined = body;
  for (const [step] of param.matchAll(/[^.[\]]+/g)) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return false;
    value = (value as JsonObject)[step];
  }
  return true;
}
