import type { Endpoint } from "./endpoint.ts";

/**
 * Request line and headers of a POST, up to the digits of its content-length. `headers`: names and values in turn.
 * Null where a name, value or path would not be one line of HTTP.
 */
export function requestHead(endpoint: Endpoint, path: string, headers: readonly string[]): Buffer | null {
  const given = [
    "host",
    endpoint.authority,
    "connection",
    "keep-alive",
    ...(endpoint.proxyAuthorization === null ? [] : ["proxy-authorization", endpoint.proxyAuthorization]),
    ...headers,
  ];
  const lines = [`POST ${endpoint.targetPrefix}${path} HTTP/1.1`];
  for (let at = 0; at + 1 < given.length; at += 2) lines.push(`${given[at]}: ${given[at + 1]}`);
  const isPlain = PATH.test(path) && given.every((text, index) => (index % 2 === 0 ? NAME : VALUE).test(text));
  return isPlain ? Buffer.from(`${lines.join("\r\n")}\r\ncontent-length: `, "latin1") : null;
}

const PATH = /^\/[\x21-\x7e]*$/;
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
