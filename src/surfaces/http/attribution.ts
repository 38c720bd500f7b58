import type { IncomingHttpHeaders } from "node:http";
import { BOUNDS } from "../../kernel/bounds.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Attribution } from "../../kernel/request.ts";

/** Tags a call may carry beside feature, user and session. */
const MAX_TAGS = 16;

/** Headers of other gateways that carry a JSON object of tags: their users keep their code. */
const FOREIGN_METADATA = ["x-portkey-metadata", "cf-aig-metadata"] as const;
const HELICONE_PREFIX = "helicone-property-";

/** Who the cost is for, as headers say. Our own header beats another gateway's. @throws Problem invalid_request */
export function attributionOf(headers: IncomingHttpHeaders): Attribution {
  const tags: Record<string, string> = {};
  for (const name of FOREIGN_METADATA) Object.assign(tags, jsonTags(name, headers[name]));
  for (const name in headers) if (name.startsWith(HELICONE_PREFIX)) tags[name.slice(HELICONE_PREFIX.length)] = String(headers[name]);
  Object.assign(tags, listTags(headers["x-atrium-tags"]));
  const take = (tag: "feature" | "user" | "session"): string | null => {
    const own = headers[`x-atrium-${tag}`];
    const value = typeof own === "string" && own !== "" ? own : (tags[tag] ?? tags[`_${tag}`] ?? null);
    delete tags[tag];
    delete tags[`_${tag}`];
    return value === null ? null : bounded(`x-atrium-${tag}`, value);
  };
  const attribution = { feature: take("feature"), user: take("user"), session: take("session"), tags };
  if (Object.keys(tags).length > MAX_TAGS) throw new Problem("invalid_request", { param: "x-atrium-tags", message: `A call may carry at most ${MAX_TAGS} tags.` });
  for (const [name, value] of Object.entries(tags)) bounded(name, value);
  return attribution;
}

function bounded(name: string, value: string): string {
  if (value.length > BOUNDS.tagLength) throw new Problem("invalid_request", { param: name, message: `'${name}' is longer than ${BOUNDS.tagLength} characters.` });
  return value;
}

/** `team=search, run=42`. */
function listTags(header: string | string[] | undefined): Record<string, string> {
  if (typeof header !== "string") return {};
  const pairs = header.split(",").map((pair) => pair.trim()).filter((pair) => pair !== "");
  return Object.fromEntries(pairs.map((pair) => {
    const [name = "", ...value] = pair.split("=");
    if (name.trim() === "" || value.length === 0) throw new Problem("invalid_request", { param: "x-atrium-tags", message: "Write x-atrium-tags as name=value pairs separated by commas." });
    return [name.trim(), value.join("=").trim()];
  }));
}

function jsonTags(name: string, header: string | string[] | undefined): Record<string, string> {
  if (typeof header !== "string") return {};
  try {
    const value: unknown = JSON.parse(header);
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return Object.fromEntries(Object.entries(value).map(([tag, each]) => [tag, String(each)]));
  } catch {
    // Falls through to the one answer for anything that is not an object.
  }
  throw new Problem("invalid_request", { param: name, message: `'${name}' must be a JSON object.` });
}
