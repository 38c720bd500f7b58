export type BackupRefusalCode =
  | "backup_damaged"
  | "backup_of_newer_format"
  | "directory_missing"
  | "encoding_differs"
  | "file_exists"
  | "journal_moves"
  | "journal_present"
  | "journal_unreadable"
  | "master_key_differs"
  | "not_a_backup"
  | "no_installation"
  | "target_not_empty";

/** Why a backup is not taken, or not restored. The message is for the operator: what is wrong, and what to do. */
export class BackupRefusal extends Error {
  override readonly name = "BackupRefusal";
  readonly code: BackupRefusalCode;
  constructor(code: BackupRefusalCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
