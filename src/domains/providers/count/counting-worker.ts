import { parentPort } from "node:worker_threads";
import { countTexts, type CountText, type Encoding, loadEncoding } from "./count.ts";
import type { CountOrder } from "./counter.ts";

/** Encodings as they were first needed. */
const encodings = new Map<Encoding, Promise<CountText>>();

parentPort?.on("message", async ({ texts, others, encoding }: CountOrder) => {
  const loading = encodings.get(encoding) ?? loadEncoding(encoding);
  encodings.set(encoding, loading);
  // A Buffer crosses threads as plain bytes.
  const bytes = Buffer.from(texts.buffer, texts.byteOffset, texts.byteLength);
  parentPort?.postMessage(countTexts({ texts: bytes, others }, await loading));
});
