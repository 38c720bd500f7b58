import pg from "pg";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "./connection.ts";
import type { Listener } from "./index.ts";

/** See `Database.listen`. Returns after the first attempt to connect, whatever its outcome. */
export async function openListener(
  url: string,
  channel: string,
  onNotice: (payload: string) => void,
  onLost: (error: Error) => void,
): Promise<Listener> {
  const closing = new AbortController();
  let client: pg.Client | null = null;

  const connect = async (): Promise<boolean> => {
    const candidate = createClient(url, `listen ${channel}`);
    let lost = false;
    const lose = (error: Error) => {
      if (lost || closing.signal.aborted) return;
      lost = true;
      client = null;
      onLost(error);
      void keepTrying();
    };
    candidate.on("notification", (notice) => onNotice(notice.payload ?? ""));
    try {
      candidate.on("error", () => {});
      await candidate.connect();
      await candidate.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
    } catch (error) {
      await candidate.end().catch(() => {});
      onLost(error as Error);
      return false;
    }
    candidate.on("error", lose);
    candidate.on("end", () => lose(new Error("the listening connection ended")));
    client = candidate;
    if (closing.signal.aborted) await candidate.end();
    return true;
  };

  const keepTrying = async () => {
    for (let delayMs = FIRST_DELAY_MS; !closing.signal.aborted; delayMs = Math.min(delayMs * 2, MAX_DELAY_MS)) {
      await sleep(delayMs, undefined, { signal: closing.signal }).catch(() => {});
      if (closing.signal.aborted || (await connect())) return;
    }
  };

  if (!(await connect())) void keepTrying();
  return {
    async close() {
      closing.abort();
      await client?.end();
    },
  };
}

const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 5_000;
