import { z } from "zod";
import { unixSeconds } from "../../../storage/snapshot/index.ts";

// What the shapes of OpenAI's Admin API share (node_modules/openai/resources/admin/organization/*.d.ts).

export { listObject as listOf, toListObject as listPage } from "../../../storage/snapshot/index.ts";

export function deletedResult<Name extends string>(object: Name) {
  return z.object({ id: z.string(), object: z.literal(object), deleted: z.literal(true) });
}

/** A name as people write it. */
export const freeName = z.string().trim().min(1).max(200);

/** From now; null never. */
export const expiresInSeconds = z
  .number()
  .int()
  .min(1)
  .max(10 * 366 * 86_400)
  .nullable();

/** An organization's `owner` or `reader`, a project's `owner` or `member`, or one of our roles by name. */
export const roleWord = z.string().min(1).max(50);

export const owner = z.object({
  type: z.enum(["user", "service_account"]).optional(),
  user: z.object({ id: z.string(), email: z.string(), name: z.string(), created_at: unixSeconds, role: z.string() }).optional(),
  service_account: z.object({ id: z.string(), name: z.string(), created_at: unixSeconds, role: z.string() }).optional(),
});

export type Owner = z.infer<typeof owner>;
