import { parentPort } from "node:worker_threads";
import { countTexts, type CountText, type Encoding, fewestOf, loadEncoding } from "./count.ts";
import type { CountOrder } from "./counter.ts";
import { loadVocabulary } from "./fewest.ts";

/** Encodings and vocabularies as they were first needed. */
const encodings = new Map<Encoding, Promise<CountText>>();
const vocabularies = new Map<Encoding, Promise<CountText>>();

parentPort?.on("message", async ({ texts, others, areEscaped = false, encoding, fewest }: CountOrder) => {
  // A Buffer crosses threads as plain bytes.
  const countable = { texts: Buffer.from(texts.buffer, texts.byteOffset, texts.byteLength), others, areEscaped };
  parentPort?.postMessage(
    fewest === true
      ? fewestOf(countable, await kept(vocabularies, encoding, loadFewest))
      : countTexts(countable, await kept(encodings, encoding, loadEncoding)),
  );
});

async function loadFewest(encoding: Encoding): Promise<CountText> {
  const vocabulary = await loadVocabulary(encoding);
  return (text) => vocabulary.fewest(text);
}

function kept(known: Map<Encoding, Promise<CountText>>, encoding: Encoding, load: typeof loadEncoding): Promise<CountText> {
  const loading = known.get(encoding) ?? load(encoding);
  known.set(encoding, loading);
  return loading;
}
