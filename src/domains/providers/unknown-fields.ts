import { Problem } from "../../kernel/problem.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { Deployment } from "../catalog/index.ts";
import type { FieldRule } from "./dialects/field-rules.ts";

/** Fields of the body that the dialect's table does not name. */
export function unknownFields(request: ModelRequest, rules: ReadonlyMap<string, FieldRule>): string[] {
  return Object.keys(request.fields).filter((key) => !rules.has(key));
}

/** Refuses the first unknown field where the deployment, or else the provider, says so: Problem `unsupported_field`. */
export function refuseUnknown(
  request: ModelRequest,
  rules: ReadonlyMap<string, FieldRule>,
  deployment: Deployment,
  unlessStated: "forward" | "refuse",
): void {
  if ((deployment.options.unknownFields ?? unlessStated) === "forward") return;
  const [unknown] = unknownFields(request, rules);
  if (unknown !== undefined)
    throw new Problem("unsupported_field", { param: unknown, message: `'${unknown}' is not a field that this model takes; leave it out.` });
}
