import { z } from "zod";
import { listQuery, type Page } from "./resource.ts";

// Lists as OpenAI's Admin API has them (node_modules/openai/core/pagination.d.ts: ConversationCursorPage).

export function listObject<Item extends z.ZodType>(item: Item) {
  return z.object({
    object: z.literal("list"),
    data: z.array(item),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  });
}

export function toListObject<View, Item extends { readonly id: string }>(page: Page<View>, render: (view: View) => Item) {
  const data = page.data.map(render);
  return { object: "list" as const, data, first_id: data[0]?.id ?? null, last_id: page.last_id, has_more: page.has_more };
}

/** Of a list that is read whole: it can be followed backwards too. */
export const wholeListQuery = listQuery.extend({ before: z.string().min(1).max(200).optional() });

export type WholeListQuery = z.infer<typeof wholeListQuery>;

/** A page of them by id; before a cursor it is the last ones that come before. */
export function pageAmong<Item extends { readonly id: string }>(
  items: readonly Item[],
  { limit, after, before }: WholeListQuery,
  order: "asc" | "desc" = "asc",
): Page<Item> {
  const comesBefore = (one: string, other: string): boolean => (order === "asc" ? one < other : one > other);
  const between = items
    .filter(({ id }) => (after === undefined || comesBefore(after, id)) && (before === undefined || comesBefore(id, before)))
    .toSorted((one, other) => (comesBefore(one.id, other.id) ? -1 : 1));
  const data = before === undefined ? between.slice(0, limit) : between.slice(-limit);
  return { data, has_more: between.length > data.length, last_id: data.at(-1)?.id ?? null };
}
