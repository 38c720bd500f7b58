export { type BackedUp, backUp } from "./back-up.ts";
export { keyFingerprint, type Manifest } from "./format.ts";
export { BackupRefusal, type BackupRefusalCode } from "./refusal.ts";
export { restore, verifyBackup } from "./restore.ts";
