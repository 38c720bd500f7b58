import type { IncomingHttpHeaders } from "node:http";
import { BOUNDS } from "../../kernel/bounds.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Attribution } from "../../kernel/request.ts";

/** Tags a call may carry beside feature, user and session. */
const MAX_TAGS = 16;
/** Characters of a tag's name, as in OpenAI's `metadata`. */
const MAX_TAG_NAME_LENGTH = 64;

/** Headers of other gateways that carry a JSON object of tags: their users keep their code. */
const FOREIGN_METADATA = ["x-portkey-metadata", "cf-aig-metadata"] as const;
const HELICONE_PREFIX = "helicone-property-";

/** Who the cost is for, as headers say. Our own header beats another gateway's. @throws Problem invalid_request */
export function attributionOf(headers: IncomingHttpHeaders): Attribution {
  if (!hasTags(headers)) return NOBODY;
  const tags = new Map<string, string>();
  for (const header of FOREIGN_METADATA) addJsonTags(tags, header, headers[header]);
  for (const header in headers)
    if (header.startsWith(HELICONE_PREFIX)) tags.set(header.slice(HELICONE_PREFIX.length), checked(header, String(headers[header])));
  addListedTags(tags, headers["x-atrium-tags"]);
  const take = (tag: "feature" | "user" | "session"): string | null => {
    const header = `x-atrium-${tag}`;
    const own = headers[header];
    const foreign = tags.get(tag) ?? tags.get(`_${tag}`) ?? null;
    tags.delete(tag);
    tags.delete(`_${tag}`);
    return typeof own === "string" && own !== "" ? checked(header, own) : foreign;
  };
  const [feature, user, session] = [take("feature"), take("user"), take("session")];
  if (tags.size > MAX_TAGS) throw invalid("x-atrium-tags", `A call may carry at most ${MAX_TAGS} tags.`);
  for (const name of tags.keys())
    if (name === "" || name.length > MAX_TAG_NAME_LENGTH)
      throw invalid("x-atrium-tags", `A tag's name has 1 to ${MAX_TAG_NAME_LENGTH} characters.`);
  return { feature, user, session, tags: Object.fromEntries(tags) };
}

/** Most calls carry none of these headers, and every call asks. */
function hasTags(headers: IncomingHttpHeaders): boolean {
  for (const header in headers)
    if (header.startsWith("x-atrium-") || header.startsWith(HELICONE_PREFIX) || header.endsWith("-metadata")) return true;
  return false;
}

const NOBODY: Attribution = { feature: null, user: null, session: null, tags: {} };

function checked(header: string, value: string): string {
  if (value.length > BOUNDS.tagLength) throw invalid(header, `'${header}' is longer than ${BOUNDS.tagLength} characters.`);
  return value;
}

/** `team=search, run=42`. */
function addListedTags(tags: Map<string, string>, header: string | string[] | undefined): void {
  if (typeof header !== "string") return;
  for (const pair of header.split(",")) {
    if (pair.trim() === "") continue;
    const separator = pair.indexOf("=");
    const name = pair.slice(0, separator).trim();
    if (separator === -1 || name === "") throw invalid("x-atrium-tags", "Write x-atrium-tags as name=value pairs separated by commas.");
    tags.set(name, checked("x-atrium-tags", pair.slice(separator + 1).trim()));
  }
}

function addJsonTags(tags: Map<string, string>, header: string, text: string | string[] | undefined): void {
  if (typeof text !== "string") return;
  for (const [name, value] of Object.entries(jsonObject(header, text))) {
    if (typeof value === "object") throw invalid(header, `'${header}' must be a JSON object of strings, numbers and booleans.`);
    tags.set(checked(header, name), checked(header, String(value)));
  }
}

function jsonObject(header: string, text: string): object {
  let value: unknown = null;
  try {
    value = JSON.parse(text);
  } catch {
    // One answer for anything that is not an object.
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw invalid(header, `'${header}' must be a JSON object.`);
  return value;
}

function invalid(param: string, message: string): Problem {
  return new Problem("invalid_request", { param, message });
}
