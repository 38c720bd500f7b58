import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../../kernel/clock.ts";
import { derive, type MasterKey } from "../../storage/secrets/index.ts";
import { fields, headSchema } from "./chain.ts";

const chainHead = headSchema.extend({ tenant: z.string() });
export type ChainHead = z.infer<typeof chainHead>;

/** What this server saw of some chains at one moment, signed: whoever holds it shows that a trail had these rows then. */
export const checkpointSchema = z.strictObject({
  format: z.literal("atrium audit checkpoint 1"),
  installation: z.string(),
  /** ISO 8601. */
  at: z.string(),
  heads: z.array(chainHead),
  /** Ed25519, the 32 bytes in base64. */
  public_key: z.string(),
  /** Ed25519, the 64 bytes in base64. */
  signature: z.string(),
});
export type Checkpoint = z.infer<typeof checkpointSchema>;

export interface CheckpointSigner {
  /** As `public_key` of its checkpoints. */
  readonly publicKey: string;
  sign(heads: readonly ChainHead[]): Checkpoint;
}

/** The key is derived from the master key: every replica signs with the same one, and a restored installation goes on with it. */
export function createCheckpointSigner(masterKey: MasterKey, installation: string, clock: Clock): CheckpointSigner {
  const seed = derive(masterKey, "audit-checkpoint", 1);
  const privateKey = createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, seed]), format: "der", type: "pkcs8" });
  const publicKey = createPublicKey(privateKey).export({ format: "der", type: "spki" }).subarray(SPKI_PREFIX.length).toString("base64");
  return {
    publicKey,
    sign(heads) {
      const at = new Date(clock.now()).toISOString();
      const unsigned: Omit<Checkpoint, "signature"> = {
        format: "atrium audit checkpoint 1",
        installation,
        at,
        heads: [...heads],
        public_key: publicKey,
      };
      return { ...unsigned, signature: sign(null, signedBytes(unsigned), privateKey).toString("base64") };
    },
  };
}

/** Whether the checkpoint's own key signed it. Whether that key is to be trusted is the reader's to know. */
export function isSigned(checkpoint: Checkpoint): boolean {
  const raw = Buffer.from(checkpoint.public_key, "base64");
  if (raw.length !== PUBLIC_KEY_BYTES) return false;
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, raw]), format: "der", type: "spki" });
  return verify(null, signedBytes(checkpoint), key, Buffer.from(checkpoint.signature, "base64"));
}

function signedBytes({ format, installation, at, heads }: Omit<Checkpoint, "signature">): Buffer {
  return fields([format, installation, at, ...heads.flatMap(({ tenant, sequence, hash }) => [tenant, String(sequence), hash])]);
}

const PUBLIC_KEY_BYTES = 32;
/** What stands before the 32 bytes of a key in its DER form (RFC 8410). */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");
