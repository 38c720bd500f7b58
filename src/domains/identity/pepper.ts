import { derive, type MasterKey } from "../../storage/secrets/index.ts";

/** What the hashes of API keys are keyed with, 32 bytes: a copy of the database alone says nothing about a guessed key. */
export function pepperOf(masterKey: MasterKey): Buffer {
  return derive(masterKey, "key-pepper", 1);
}
