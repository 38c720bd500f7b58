-- Limits on requests, tokens, calls at once and new prompt prefixes; and tiers, which bundle them. The release before this one goes on
-- beside it: it enforces none of them, so they are for when its last process has ended.

-- Rows of the platform: a tenant names its tier by this name.
CREATE TABLE tiers (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX tiers_name ON tiers (tenant_id, name_index) WHERE archived_at IS NULL;

-- Of a tenant, of the platform (for everybody), or of a tier. A scope that names no key, project, model or deployment is each one of them.
CREATE TABLE limits (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  tier_id uuid,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  scope text NOT NULL CHECK (scope IN ('key', 'project', 'tenant', 'model', 'deployment')),
  key_id text,
  project_id uuid,
  model_id uuid,
  deployment_id uuid,
  dimension text NOT NULL CHECK (dimension IN ('requests', 'tokens', 'concurrency', 'prefix_tokens')),
  amount integer NOT NULL CHECK (amount > 0),
  burst integer CHECK (burst > 0),
  rate_window text NOT NULL CHECK (rate_window IN ('gcra', 'sliding')),
  token_mode text NOT NULL CHECK (token_mode IN ('estimated', 'strict')),
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, tier_id) REFERENCES tiers (tenant_id, id),
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys (tenant_id, id),
  FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id),
  FOREIGN KEY (tenant_id, deployment_id) REFERENCES deployments (tenant_id, id)
);
CREATE UNIQUE INDEX limits_name ON limits (tenant_id, tier_id, name_index) NULLS NOT DISTINCT WHERE archived_at IS NULL;

DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['tiers', 'limits'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format(
      'CREATE POLICY tenant ON %I TO :"app" USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)'
      ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)', tenant_table);
    -- What the snapshot loader reads across tenants.
    EXECUTE format('CREATE POLICY system_select ON %I FOR SELECT TO :"system" USING (true)', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO :"system"', tenant_table);
  END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE ON tiers, limits TO :"app";
