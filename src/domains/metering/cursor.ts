import { createHmac, timingSafeEqual } from "node:crypto";
import { Problem } from "../../kernel/problem.ts";

/** Where the next page of one report of one tenant begins, Unix seconds: opaque, and of no use with another tenant or report. */
export function encodePage(secret: Buffer, scope: string, startSeconds: number): string {
  const bytes = Buffer.alloc(8 + TAG_BYTES);
  bytes.writeBigUInt64BE(BigInt(startSeconds));
  tag(secret, scope, bytes.subarray(0, 8)).copy(bytes, 8);
  return `page_${bytes.toString("base64url")}`;
}

/** Throws the problem `invalid_request` for anything that `encodePage` did not make for this scope. */
export function decodePage(secret: Buffer, scope: string, page: string): number {
  const bytes = Buffer.from(page.slice("page_".length), "base64url");
  const genuine =
    page.startsWith("page_") &&
    bytes.length === 8 + TAG_BYTES &&
    timingSafeEqual(bytes.subarray(8), tag(secret, scope, bytes.subarray(0, 8)));
  if (!genuine)
    throw new Problem("invalid_request", { message: "'page' is not a 'next_page' of this report. Start again without it.", param: "page" });
  return Number(bytes.readBigUInt64BE());
}

function tag(secret: Buffer, scope: string, position: Buffer): Buffer {
  return createHmac("sha256", secret).update(position).update(scope).digest().subarray(0, TAG_BYTES);
}

const TAG_BYTES = 16;
