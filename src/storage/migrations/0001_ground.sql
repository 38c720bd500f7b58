-- Tenants, keys, catalog, usage, ledger, audit. `:"app"` and `:"system"` stand for the installation's two request roles.
-- Row security, policies and grants come last, so that the whole of who sees what is read in one place.

CREATE TABLE config_version (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  version bigint NOT NULL
);
INSERT INTO config_version (version) VALUES (0);

CREATE TABLE config_changes (
  tenant_id uuid NOT NULL,
  version bigint NOT NULL,
  PRIMARY KEY (tenant_id, version)
);

-- The one key not led by tenant_id among tenant tables: it answers "whose is this key id", before a tenant is known.
CREATE TABLE key_directory (
  key_id text PRIMARY KEY,
  tenant_id uuid NOT NULL
);

CREATE TABLE tenant_keys (
  tenant_id uuid NOT NULL,
  version integer NOT NULL CHECK (version > 0),
  wrapped bytea NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, version)
);

CREATE TABLE tenants (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  status text NOT NULL CHECK (status IN ('active', 'suspended')),
  tier text,
  home_region text,
  time_zone text NOT NULL DEFAULT 'UTC',
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX tenants_name ON tenants (tenant_id, name_index) WHERE archived_at IS NULL;

CREATE TABLE projects (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  default_max_output_tokens integer CHECK (default_max_output_tokens >= 0),
  require text[] NOT NULL DEFAULT '{}',
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX projects_name ON projects (tenant_id, name_index) WHERE archived_at IS NULL;

CREATE TABLE api_keys (
  tenant_id uuid NOT NULL,
  id text NOT NULL,
  project_id uuid,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  hash bytea NOT NULL,
  permissions text[] NOT NULL,
  models text[],
  expires_at timestamptz,
  revoked_at timestamptz,
  grace_until timestamptz,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id)
);
-- A key in its grace period after a rotation shares its name with its successor.
CREATE UNIQUE INDEX api_keys_name ON api_keys (tenant_id, project_id, name_index) NULLS NOT DISTINCT
  WHERE revoked_at IS NULL AND grace_until IS NULL;

CREATE TABLE credentials (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  provider text NOT NULL,
  base_url text,
  secret_sealed bytea,
  secret_version integer NOT NULL DEFAULT 1,
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX credentials_name ON credentials (tenant_id, name_index) WHERE archived_at IS NULL;

CREATE TABLE models (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  visibility text NOT NULL DEFAULT 'granted' CHECK (visibility IN ('granted', 'all')),
  capabilities text[] NOT NULL DEFAULT '{}',
  context_window integer CHECK (context_window > 0),
  max_output_tokens integer CHECK (max_output_tokens > 0),
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX models_name ON models (tenant_id, name_index) WHERE archived_at IS NULL;

CREATE TABLE deployments (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  model_id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  provider text NOT NULL,
  credential_id uuid,
  upstream_model text NOT NULL,
  region text,
  position integer NOT NULL DEFAULT 0,
  options jsonb NOT NULL DEFAULT '{}',
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, model_id) REFERENCES models (tenant_id, id),
  FOREIGN KEY (tenant_id, credential_id) REFERENCES credentials (tenant_id, id)
);
CREATE UNIQUE INDEX deployments_name ON deployments (tenant_id, model_id, name_index) WHERE archived_at IS NULL;

CREATE TABLE prices (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  deployment_id uuid NOT NULL,
  effective_at timestamptz NOT NULL,
  source text NOT NULL CHECK (source IN ('stated', 'free')),
  rates jsonb NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, deployment_id) REFERENCES deployments (tenant_id, id)
);
CREATE INDEX prices_deployment ON prices (tenant_id, deployment_id, effective_at);

-- tenant_id is the grantee; the model is a catalog row, so it is named as (owner_id, id).
CREATE TABLE grants (
  tenant_id uuid NOT NULL,
  model_owner_id uuid NOT NULL,
  model_id uuid NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, model_owner_id, model_id),
  FOREIGN KEY (model_owner_id, model_id) REFERENCES models (tenant_id, id)
);

-- The id is a UUIDv7, so a month is a range of ids and a replayed row always meets its first copy in the same partition.
CREATE TABLE usage_rows (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  hop uuid NOT NULL,
  call uuid NOT NULL,
  parent_hop uuid,
  project_id uuid,
  key_id text,
  user_sealed bytea,
  user_index bytea,
  feature_sealed bytea NOT NULL,
  feature_index bytea NOT NULL,
  trace text,
  kind text NOT NULL CHECK (kind IN ('generate', 'embed', 'rerank', 'guardrail', 'judge', 'tool', 'cache')),
  provider text NOT NULL,
  model_requested_sealed bytea NOT NULL,
  model_served text NOT NULL,
  model_id uuid NOT NULL,
  deployment_id uuid NOT NULL,
  region text,
  price_version uuid NOT NULL,
  input_uncached bigint NOT NULL DEFAULT 0 CHECK (input_uncached >= 0),
  cache_read bigint NOT NULL DEFAULT 0 CHECK (cache_read >= 0),
  cache_write_5m bigint NOT NULL DEFAULT 0 CHECK (cache_write_5m >= 0),
  cache_write_1h bigint NOT NULL DEFAULT 0 CHECK (cache_write_1h >= 0),
  output bigint NOT NULL DEFAULT 0 CHECK (output >= 0),
  reasoning bigint NOT NULL DEFAULT 0 CHECK (reasoning >= 0),
  audio_input bigint NOT NULL DEFAULT 0 CHECK (audio_input >= 0),
  audio_output bigint NOT NULL DEFAULT 0 CHECK (audio_output >= 0),
  image bigint NOT NULL DEFAULT 0 CHECK (image >= 0),
  cost numeric(38,0) NOT NULL CHECK (cost >= 0),
  charge numeric(38,0) NOT NULL CHECK (charge >= 0),
  worst_case numeric(38,0) NOT NULL CHECK (worst_case >= 0),
  bound text NOT NULL CHECK (bound IN ('proof', 'rule')),
  source text NOT NULL CHECK (source IN ('reported', 'counted')),
  estimated boolean NOT NULL DEFAULT false,
  dispatch_unknown boolean NOT NULL DEFAULT false,
  status text NOT NULL,
  latency_ms integer NOT NULL,
  first_token_ms integer,
  started_at timestamptz NOT NULL,
  journal_id uuid NOT NULL,
  journal_sequence bigint NOT NULL,
  PRIMARY KEY (tenant_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX usage_rows_started ON usage_rows (tenant_id, started_at);
CREATE TABLE usage_rows_default PARTITION OF usage_rows DEFAULT;

CREATE TABLE ledger_entries (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  project_id uuid,
  key_id text,
  debit_spend numeric(38,0) NOT NULL,
  credit_provider numeric(38,0) NOT NULL,
  credit_margin numeric(38,0) NOT NULL,
  posted_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  CONSTRAINT ledger_entries_balance CHECK (debit_spend = credit_provider + credit_margin)
) PARTITION BY RANGE (id);
CREATE INDEX ledger_entries_posted ON ledger_entries (tenant_id, posted_at);
CREATE TABLE ledger_entries_default PARTITION OF ledger_entries DEFAULT;

CREATE TABLE journals (
  id uuid PRIMARY KEY,
  watermark bigint NOT NULL CHECK (watermark >= 0),
  updated_at timestamptz NOT NULL
);

CREATE TABLE audit_rows (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  actor text NOT NULL,
  actor_kind text NOT NULL,
  action text NOT NULL,
  target text NOT NULL,
  before jsonb,
  after jsonb,
  request_id text,
  remote_address text,
  status integer NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX audit_rows_at ON audit_rows (tenant_id, at);

CREATE TABLE idempotency_keys (
  tenant_id uuid NOT NULL,
  principal text NOT NULL,
  key_hash bytea NOT NULL,
  route text NOT NULL,
  body_hash bytea NOT NULL,
  status integer,
  response bytea,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, principal, key_hash)
);

DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY[
    'config_changes', 'key_directory', 'tenant_keys', 'tenants', 'projects', 'api_keys', 'credentials', 'models', 'deployments',
    'prices', 'grants', 'usage_rows', 'ledger_entries', 'audit_rows', 'idempotency_keys'
  ] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    -- A transaction-local setting reverts to an empty string, not to NULL: hence nullif.
    EXECUTE format(
      'CREATE POLICY tenant ON %I TO :"app" USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)'
      ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)', tenant_table);
  END LOOP;

  -- What the snapshot loader and the shipper read across tenants.
  FOREACH tenant_table IN ARRAY ARRAY[
    'config_changes', 'key_directory', 'tenant_keys', 'tenants', 'projects', 'api_keys', 'credentials', 'models', 'deployments',
    'prices', 'grants', 'usage_rows', 'ledger_entries'
  ] LOOP
    EXECUTE format('CREATE POLICY system_select ON %I FOR SELECT TO :"system" USING (true)', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO :"system"', tenant_table);
  END LOOP;

  -- What the shipper writes.
  FOREACH tenant_table IN ARRAY ARRAY['usage_rows', 'ledger_entries'] LOOP
    EXECUTE format('CREATE POLICY system_insert ON %I FOR INSERT TO :"system" WITH CHECK (true)', tenant_table);
    EXECUTE format('GRANT INSERT ON %I TO :"system"', tenant_table);
  END LOOP;
END
$$;

GRANT SELECT ON config_version TO :"system";
GRANT SELECT, INSERT, UPDATE, DELETE ON journals TO :"system";

GRANT SELECT, UPDATE ON config_version TO :"app";
GRANT SELECT, INSERT ON config_changes TO :"app";
GRANT INSERT ON key_directory TO :"app";
GRANT SELECT, INSERT ON tenant_keys TO :"app";
GRANT SELECT, INSERT, UPDATE ON tenants, projects, api_keys, credentials, models, deployments TO :"app";
GRANT SELECT, INSERT ON prices TO :"app";
GRANT SELECT, INSERT, DELETE ON grants TO :"app";
GRANT SELECT ON usage_rows, ledger_entries TO :"app";
GRANT SELECT, INSERT ON audit_rows TO :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO :"app";
