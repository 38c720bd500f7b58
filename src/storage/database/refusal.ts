export type RefusalCode =
  | "data_directory_in_use"
  | "data_of_other_major"
  | "database_url_invalid"
  | "master_key_mismatch"
  | "migration_changed"
  | "no_embedded_server"
  | "roles_missing"
  | "schema_newer"
  | "server_did_not_start"
  | "server_too_old";

/** Why the start stops here. The message is for the operator: what is wrong, and what to do. */
export class DatabaseRefusal extends Error {
  override readonly name = "DatabaseRefusal";
  readonly code: RefusalCode;
  constructor(code: RefusalCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
