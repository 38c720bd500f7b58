import pg from "pg";
import copyStreams from "pg-copy-streams";
import { PLATFORM_TENANT } from "../../kernel/ids.ts";
import { asRole, createClient } from "../database/connection.ts";
import { betweenMigrations, type Migration, type SchemaStatus, schemaStatus } from "../database/migrate.ts";
import { requestRoles, roleName } from "../database/roles.ts";
import type { MasterKey } from "../secrets/index.ts";
import { BackupRefusal } from "./refusal.ts";
import { type BackupTable, readTables } from "./tables.ts";

export interface SnapshotOptions {
  readonly ownerUrl: string;
  readonly requestUrl: string;
  readonly masterKey: MasterKey;
  readonly migrations?: readonly Migration[];
}

/** Of a database that holds an installation. */
export type Schema = SchemaStatus & { readonly installation: NonNullable<SchemaStatus["installation"]> };

/**
 * One moment of the whole database, read only. Row security is forced even on the owner: someone above it (the embedded
 * server's superuser) reads all; otherwise the owner, atrium_system and, one tenant after another, atrium_app read
 * together, each what it may see, in the same snapshot. So a backup needs no role and no policy beyond those of requests.
 */
export class Snapshot {
  readonly #clients: pg.Client[] = [];
  #owner!: pg.Client;
  /** Above row security; then the other two are not needed. */
  #above = false;
  #system!: pg.Client;
  #app!: pg.Client;
  #schema!: Schema;
  #tables!: readonly BackupTable[];

  /** Throws DatabaseRefusal where this release could not start on the database, and `no_installation`. */
  static async take(options: SnapshotOptions): Promise<Snapshot> {
    const snapshot = new Snapshot();
    try {
      await snapshot.#begin(options);
      return snapshot;
    } catch (error) {
      await snapshot.close();
      throw error;
    }
  }

  private constructor() {}

  get schema(): Schema {
    return this.#schema;
  }

  /** Each after those that it refers to. */
  get tables(): readonly BackupTable[] {
    return this.#tables;
  }

  /** One row about the whole, read as the owner. */
  async facts<Facts extends pg.QueryResultRow>(query: string): Promise<Facts> {
    const { rows } = await this.#owner.query<Facts>(query);
    return rows[0] as Facts;
  }

  /** A table's rows as `COPY … TO` writes them. */
  async *rows(table: BackupTable): AsyncGenerator<Buffer> {
    const columns = table.columns.map((name) => pg.escapeIdentifier(name)).join(", ");
    const text = `COPY (SELECT ${columns} FROM ${pg.escapeIdentifier(table.name)}) TO STDOUT`;
    if (this.#above || table.reader === "owner") yield* copy(this.#owner, text);
    else if (table.reader === "system") yield* copy(this.#system, text);
    else
      for (const tenant of await this.#tenants()) {
        await this.#app.query("SELECT set_config('app.tenant_id', $1, true)", [tenant]);
        yield* copy(this.#app, text);
      }
  }

  /** Ends the transactions; nothing was written in them. */
  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end().catch(() => {})));
  }

  /**
   * Between the snapshot and the locks no migration may come: a table that it rewrites would look empty. From then on the
   * locks keep it out.
   */
  async #begin(options: SnapshotOptions): Promise<void> {
    this.#owner = await this.#connect(options.ownerUrl);
    const id = await betweenMigrations(this.#owner, async () => {
      await this.#owner.query(BEGIN);
      const { above, id } = await this.facts<{ above: boolean; id: string }>(
        "SELECT rolsuper OR rolbypassrls AS above, pg_export_snapshot() AS id FROM pg_roles WHERE rolname = current_user",
      );
      this.#above = above;
      await this.#owner.query(SESSION);
      await this.#describe(options);
      const names = this.#tables.map(({ name }) => pg.escapeIdentifier(name));
      await this.#owner.query(`LOCK TABLE ${names.join(", ")} IN ACCESS SHARE MODE`);
      return id;
    });
    // What row security would hide from someone above it is then an error.
    if (this.#above) await this.#owner.query("SET LOCAL row_security = off");
    else await this.#joinRequestRoles(options, id);
  }

  async #describe({ masterKey, migrations }: SnapshotOptions): Promise<void> {
    const schema = await schemaStatus(this.#owner, masterKey, migrations);
    const { installation } = schema;
    if (installation === null) throw new BackupRefusal("no_installation", "This database holds no Atrium: there is nothing to back up.");
    this.#schema = { ...schema, installation };
    this.#tables = await readTables(this.#owner, roleName("system", installation));
  }

  async #joinRequestRoles({ masterKey, requestUrl }: SnapshotOptions, id: string): Promise<void> {
    const { system, app } = requestRoles(masterKey, this.#schema.installation);
    this.#system = await this.#join(asRole(requestUrl, system.name, system.password), id);
    this.#app = await this.#join(asRole(requestUrl, app.name, app.password), id);
  }

  async #join(url: string, id: string): Promise<pg.Client> {
    const client = await this.#connect(url);
    await client.query(BEGIN);
    await client.query(`SET TRANSACTION SNAPSHOT ${pg.escapeLiteral(id)}`);
    await client.query(SESSION);
    return client;
  }

  async #connect(url: string): Promise<pg.Client> {
    const client = createClient(url, "backup");
    client.on("error", () => {});
    await client.connect();
    this.#clients.push(client);
    return client;
  }

  /** Whoever can have rows: each tenant is made with a key, in the transaction that makes it. */
  async #tenants(): Promise<string[]> {
    const { rows } = await this.#system.query<{ id: string }>(
      "SELECT id::text FROM tenants UNION SELECT tenant_id::text FROM tenant_keys UNION SELECT $1 ORDER BY 1",
      [PLATFORM_TENANT],
    );
    return rows.map(({ id }) => id);
  }
}

async function* copy(client: pg.Client, text: string): AsyncGenerator<Buffer> {
  yield* client.query(copyStreams.to(text)) as AsyncIterable<Buffer>;
}

const BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/** A big table takes longer than any request may, and every server must write the same text. */
export const SESSION = `SELECT set_config(name, value, true) FROM pg_settings JOIN (VALUES
  ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
  ('client_encoding', 'UTF8'), ('DateStyle', 'ISO'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'), ('bytea_output', 'hex'),
  ('extra_float_digits', '1')) AS wanted (name, value) USING (name)`;
