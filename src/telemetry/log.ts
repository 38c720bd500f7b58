import pino from "pino";
import type { CallEvent } from "./call-event.ts";

/** Structured logging, as the rest of the code sees it: an object of facts and a sentence. */
export interface Log {
  error(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  info(facts: object, message: string): void;
  debug(facts: object, message: string): void;
}

/** Bytes gathered before a write: logging must not cost a call a system call of its own. */
const BUFFERED_BYTES = 4096;
const FLUSH_INTERVAL_MS = 500;

export interface ProcessLog extends Log {
  /** The call's line: at `info`, or at `error` with its cause where the server failed. */
  call(event: CallEvent): void;
  close(): void;
}

/** JSON lines on standard error, written in batches; `close` writes what is left. */
export function createLog(level: pino.LevelWithSilent): ProcessLog {
  const destination = pino.destination({ fd: 2, sync: false, minLength: BUFFERED_BYTES });
  const logger = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: {
        cause: (thrown) => describeError(thrown),
        error: (thrown) => describeError(thrown),
        err: (thrown) => describeError(thrown),
      },
    },
    destination,
  );
  const timer = setInterval(() => destination.flush(), FLUSH_INTERVAL_MS);
  timer.unref();
  return {
    error: (facts, message) => logger.error(facts, message),
    warn: (facts, message) => logger.warn(facts, message),
    info: (facts, message) => logger.info(facts, message),
    debug: (facts, message) => logger.debug(facts, message),
    call(event) {
      if (event.status >= 500) logger.error(event, "call");
      else if (logger.isLevelEnabled("info")) logger.info({ ...event, cause: undefined }, "call");
    },
    close() {
      clearInterval(timer);
      destination.flushSync();
    },
  };
}

/** Causes of causes that are followed. */
const MAX_CAUSES = 8;

/**
 * What a log keeps of an error: never its other properties, which with drivers and HTTP clients hold values, rows and bytes
 * that strangers sent. Anything that is no error passes as it is.
 */
function describeError(thrown: unknown, depth = 0): unknown {
  if (!(thrown instanceof Error)) return thrown;
  const { name, message, stack, cause } = thrown;
  return {
    type: name,
    message,
    stack,
    code: "code" in thrown ? thrown.code : undefined,
    cause: depth < MAX_CAUSES ? describeError(cause, depth + 1) : undefined,
  };
}
