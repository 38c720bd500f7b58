import { createHash, createHmac, pbkdf2Sync } from "node:crypto";
import type pg from "pg";
import type { Uuid } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import { derive, type MasterKey } from "../secrets/index.ts";
import { DatabaseRefusal } from "./refusal.ts";

/** The two roles that requests and jobs connect as. */
export interface RequestRoles {
  readonly app: RequestRole;
  readonly system: RequestRole;
}

export interface RequestRole {
  readonly name: string;
  readonly password: string;
}

/** Roles belong to the whole PostgreSQL cluster, hence the installation's id in their names. */
export function requestRoles(master: MasterKey, installationId: Uuid): RequestRoles {
  const role = (kind: "app" | "system"): RequestRole => ({
    name: roleName(kind, installationId),
    password: derive(master, `database-role/${kind}/${installationId}`, 1).toString("base64url"),
  });
  return { app: role("app"), system: role("system") };
}

export function roleName(kind: "owner" | "app" | "system", installationId: Uuid): string {
  return `atrium_${kind}_${installationId.replaceAll("-", "")}`;
}

/** Creates those that are missing. Where it may not, throws `roles_missing` with the SQL for someone who may. */
export async function ensureRoles(client: pg.Client, roles: RequestRoles, random: RandomBytes): Promise<void> {
  const missing: RequestRole[] = [];
  for (const role of [roles.app, roles.system]) {
    const { rowCount } = await client.query("SELECT 1 FROM pg_roles WHERE rolname = $1", [role.name]);
    if (rowCount === 0) missing.push(role);
  }
  await asRoleAdministrator(
    client,
    missing.map((role) => `CREATE ROLE "${role.name}" LOGIN PASSWORD '${scramVerifier(role.password, random)}';`),
  );
}

/** For roles whose password is not the derived one: made by hand, or restored from somewhere else. */
export async function resetPasswords(client: pg.Client, roles: RequestRoles, random: RandomBytes): Promise<void> {
  const all = [roles.app, roles.system];
  await asRoleAdministrator(
    client,
    all.map((role) => `ALTER ROLE "${role.name}" LOGIN PASSWORD '${scramVerifier(role.password, random)}';`),
  );
}

async function asRoleAdministrator(client: pg.Client, statements: readonly string[]): Promise<void> {
  if (statements.length === 0) return;
  try {
    await client.query(statements.join("\n"));
  } catch (error) {
    if ((error as { code?: string }).code !== INSUFFICIENT_PRIVILEGE) throw error;
    throw new DatabaseRefusal(
      "roles_missing",
      `The database owner may not create or change roles. Have an administrator of this PostgreSQL run this once, then start again:\n${statements.join("\n")}`,
      { cause: error },
    );
  }
}

/** What the server stores. Sent in place of the password, so that no statement log ever holds one (RFC 5803). */
function scramVerifier(password: string, random: RandomBytes): string {
  const salt = Buffer.from(random(new Uint8Array(16)));
  const salted = pbkdf2Sync(password, salt, SCRAM_ITERATIONS, 32, "sha256");
  const hmac = (text: string) => createHmac("sha256", salted).update(text).digest();
  const storedKey = createHash("sha256").update(hmac("Client Key")).digest("base64");
  return `SCRAM-SHA-256$${SCRAM_ITERATIONS}:${salt.toString("base64")}$${storedKey}:${hmac("Server Key").toString("base64")}`;
}

const SCRAM_ITERATIONS = 4096;
const INSUFFICIENT_PRIVILEGE = "42501";
