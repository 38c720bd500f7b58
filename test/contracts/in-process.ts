import type { FastifyInstance } from "fastify";
import type { Received, Sent } from "./stage.ts";

/** A request through the whole server but its socket: a fraction of the cost, for what is asked thousands of times. */
export async function askInProcess(server: FastifyInstance, { method, path, key, headers, body, raw }: Sent): Promise<Received> {
  const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body));
  const answer = await server.inject({
    method: method as "GET",
    url: path,
    headers: {
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    ...(payload === undefined || method === "GET" ? {} : { payload }),
  });
  return {
    status: answer.statusCode,
    headers: Object.fromEntries(Object.entries(answer.headers).map(([name, value]) => [name, String(value)])),
    text: answer.body,
  };
}
