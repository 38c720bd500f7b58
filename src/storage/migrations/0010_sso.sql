-- Identity providers of tenants and of the platform, and the console's sessions. The release before this one goes on beside it: it knows
-- neither, and what it serves has API keys only.

-- What the provider's claims mean here is the tenant's own text, and so sealed as a whole: `rules_sealed`.
CREATE TABLE identity_providers (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  issuer text NOT NULL,
  client_id text,
  client_secret_sealed bytea,
  rules_sealed bytea NOT NULL,
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX identity_providers_name ON identity_providers (tenant_id, name_index) WHERE archived_at IS NULL;

-- Somebody's browser, signed in. Its cookie is kept as an HMAC; `subject` is a member's id, a key's id, or `bootstrap`.
CREATE TABLE console_sessions (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  cookie_hash bytea NOT NULL CHECK (octet_length(cookie_hash) = 32),
  subject_kind text NOT NULL CHECK (subject_kind IN ('member', 'key', 'bootstrap')),
  subject text NOT NULL,
  content_sealed bytea NOT NULL,
  created_at timestamptz NOT NULL,
  idle_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX console_sessions_cookie ON console_sessions (tenant_id, cookie_hash);
CREATE INDEX console_sessions_subject ON console_sessions (tenant_id, subject, created_at);

DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['identity_providers', 'console_sessions'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format(
      'CREATE POLICY tenant ON %I TO :"app" USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)'
      ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)', tenant_table);
  END LOOP;
END
$$;

-- What the snapshot loader reads across tenants. Sessions are read one tenant at a time.
CREATE POLICY system_select ON identity_providers FOR SELECT TO :"system" USING (true);
GRANT SELECT ON identity_providers TO :"system";

GRANT SELECT, INSERT, UPDATE ON identity_providers TO :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON console_sessions TO :"app";
