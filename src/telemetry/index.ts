export type { CallEvent } from "./call-event.ts";
export { createLog, type Log, type ProcessLog } from "./log.ts";
export { createMetrics, type Metrics } from "./metrics.ts";
