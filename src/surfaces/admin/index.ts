export { mountRoutes, type RunnerNeeds } from "./runner.ts";
export { openApiDocument } from "./openapi.ts";
export { checkRoutes, type AnyRoute } from "./route-table.ts";
