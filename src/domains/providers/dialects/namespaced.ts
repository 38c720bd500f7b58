import { createHmac } from "node:crypto";

/** HMAC of a caller's value under the tenant-derived salt: equal values of two tenants differ upstream. 64 hex digits. */
export function namespaced(field: string, value: string, cacheSalt: string): string {
  return createHmac("sha256", cacheSalt).update(`${field.length}:${field}${value}`).digest("hex");
}
