-- Budgets, what stands against them, adjustments. The release before this one goes on beside it: it posts to no budget, so they are
-- for when its last process has ended; `npm run ledger -- verify --repair` counts what it has shipped since they were made.

-- Of a tenant, or of the platform: over all tenants together. A scope that names no project, key, user or feature is each one of them.
CREATE TABLE budgets (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  -- Made by the platform for a tenant, which may then read it and no more.
  set_by_platform boolean NOT NULL,
  scope text NOT NULL CHECK (scope IN ('platform', 'tenant', 'project', 'key', 'user', 'feature')),
  project_id uuid,
  key_id text,
  -- The user or feature; its index is that of usage_rows, so that they compare.
  subject_sealed bytea,
  subject_index bytea,
  unit text NOT NULL CHECK (unit IN ('usd', 'tokens', 'requests')),
  budget_window text NOT NULL CHECK (budget_window IN ('day', 'week', 'month', 'total', 'rolling')),
  rolling_seconds integer CHECK (rolling_seconds > 0 AND rolling_seconds % 24 = 0),
  cap numeric(38,0) NOT NULL CHECK (cap >= 0),
  mode text NOT NULL CHECK (mode IN ('reject', 'wait', 'clamp', 'soft')),
  -- Percent of the cap.
  thresholds smallint[] NOT NULL,
  -- Counts changes of what is counted (scope, unit, window): its balances are then made anew.
  definition integer NOT NULL,
  -- Counts those, changes of the cap, adjustments and repairs: what a process keeps in memory is then read again.
  epoch integer NOT NULL,
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id),
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys (tenant_id, id),
  CHECK ((budget_window = 'rolling') = (rolling_seconds IS NOT NULL)),
  CHECK ((subject_sealed IS NULL) = (subject_index IS NULL))
);
CREATE UNIQUE INDEX budgets_name ON budgets (tenant_id, name_index) WHERE archived_at IS NULL;

-- Since when, and as what, a budget's balances are kept. Without a row of its definition and zone nothing is posted to it.
CREATE TABLE budget_openings (
  tenant_id uuid NOT NULL,
  budget_id uuid NOT NULL,
  definition integer NOT NULL,
  -- The last that thresholds were judged for.
  epoch integer NOT NULL,
  time_zone text NOT NULL,
  -- Attempts admitted since then are counted.
  counts_from timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, budget_id),
  FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets (tenant_id, id)
);

-- What stands against a budget: of one subject in one window; of a rolling window, in one of its 24 buckets.
CREATE TABLE budget_balances (
  -- The budget's owner.
  tenant_id uuid NOT NULL,
  budget_id uuid NOT NULL,
  -- The id of the project or key, the blind index of the user or feature in hexadecimal; '' where there is none.
  subject text NOT NULL,
  subject_sealed bytea,
  window_start timestamptz NOT NULL,
  window_end timestamptz,
  posted numeric(38,0) NOT NULL DEFAULT 0,
  -- By the leases of replicas.
  held numeric(38,0) NOT NULL DEFAULT 0,
  adjusted numeric(38,0) NOT NULL DEFAULT 0,
  overage numeric(38,0) NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, budget_id, subject, window_start),
  FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets (tenant_id, id)
);

-- Thresholds reached, in percent; 0 where something was charged above its hold.
CREATE TABLE budget_alerts (
  tenant_id uuid NOT NULL,
  budget_id uuid NOT NULL,
  subject text NOT NULL,
  window_start timestamptz NOT NULL,
  threshold smallint NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, budget_id, subject, window_start, threshold),
  FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets (tenant_id, id)
);

-- What is charged or given back beside attempts; a credit is negative.
CREATE TABLE ledger_adjustments (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  project_id uuid,
  key_id text,
  user_sealed bytea,
  user_index bytea,
  feature_sealed bytea,
  feature_index bytea,
  debit_spend numeric(38,0) NOT NULL CHECK (debit_spend <> 0),
  credit_margin numeric(38,0) NOT NULL,
  reason_sealed bytea NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL,
  effective_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id),
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys (tenant_id, id),
  CONSTRAINT ledger_adjustments_balance CHECK (debit_spend = credit_margin)
);
CREATE INDEX ledger_adjustments_effective ON ledger_adjustments (tenant_id, effective_at);

-- The process that may grant holds under hard budgets.
CREATE TABLE budget_keeper (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  journal_id uuid NOT NULL,
  taken_at timestamptz NOT NULL,
  released_at timestamptz
);

DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['budgets', 'budget_openings', 'budget_balances', 'budget_alerts', 'ledger_adjustments'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format(
      'CREATE POLICY tenant ON %I TO :"app" USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)'
      ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)', tenant_table);
    EXECUTE format('CREATE POLICY system_select ON %I FOR SELECT TO :"system" USING (true)', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO :"system"', tenant_table);
  END LOOP;

  -- What the shipper keeps: sums over the rows of tenants, for the platform's budgets over those of all.
  FOREACH tenant_table IN ARRAY ARRAY['budget_openings', 'budget_balances', 'budget_alerts'] LOOP
    EXECUTE format('CREATE POLICY system_insert ON %I FOR INSERT TO :"system" WITH CHECK (true)', tenant_table);
    EXECUTE format('CREATE POLICY system_update ON %I FOR UPDATE TO :"system" USING (true) WITH CHECK (true)', tenant_table);
    EXECUTE format('CREATE POLICY system_delete ON %I FOR DELETE TO :"system" USING (true)', tenant_table);
    EXECUTE format('GRANT INSERT, UPDATE, DELETE ON %I TO :"system"', tenant_table);
  END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE ON budgets TO :"app";
GRANT SELECT, INSERT ON ledger_adjustments TO :"app";
GRANT SELECT ON budget_openings, budget_alerts TO :"app";
GRANT SELECT, INSERT, UPDATE ON budget_balances TO :"app";
GRANT SELECT, INSERT, UPDATE ON budget_keeper TO :"system";
