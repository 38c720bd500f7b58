-- Facts that tenants are told of, where they are to be told, and the outbox between the two. The release before this one goes on
-- beside it: it writes no facts, and knows none of these tables.

CREATE TABLE webhooks (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name_sealed bytea NOT NULL,
  name_index bytea NOT NULL,
  display_name_sealed bytea,
  url_sealed bytea NOT NULL,
  -- Types of events; '*' is all of them.
  events text[] NOT NULL CHECK (cardinality(events) > 0),
  -- 'gone': it answered 410, and is not called until its tenant says so.
  status text NOT NULL CHECK (status IN ('active', 'paused', 'gone')),
  secret_sealed bytea NOT NULL,
  -- Signs beside the new one until then.
  previous_secret_sealed bytea,
  previous_secret_until timestamptz,
  revision integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  CHECK ((previous_secret_sealed IS NULL) = (previous_secret_until IS NULL))
);
CREATE UNIQUE INDEX webhooks_name ON webhooks (tenant_id, name_index) WHERE archived_at IS NULL;

CREATE TABLE events (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  type text NOT NULL,
  -- The same fact, whoever notices it and however often, has the same key.
  fact_key text NOT NULL,
  data_sealed bytea NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX events_fact ON events (tenant_id, fact_key);
CREATE INDEX events_created ON events (tenant_id, created_at);

CREATE TABLE event_deliveries (
  tenant_id uuid NOT NULL,
  webhook_id uuid NOT NULL,
  event_id uuid NOT NULL,
  status text NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'canceled')),
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  -- While an attempt is under way: the end of its lease, after which it counts as lost.
  next_attempt_at timestamptz NOT NULL,
  last_attempt_at timestamptz,
  last_status integer,
  last_error text,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, webhook_id, event_id),
  FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhooks (tenant_id, id),
  FOREIGN KEY (tenant_id, event_id) REFERENCES events (tenant_id, id)
);
CREATE INDEX event_deliveries_due ON event_deliveries (tenant_id, webhook_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX event_deliveries_event ON event_deliveries (tenant_id, event_id);

DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['webhooks', 'events', 'event_deliveries'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format(
      'CREATE POLICY tenant ON %I TO :"app" USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)'
      ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)', tenant_table);
    EXECUTE format('CREATE POLICY system_select ON %I FOR SELECT TO :"system" USING (true)', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO :"system"', tenant_table);
  END LOOP;
  -- Whoever ships usage writes the facts that it shows; the outbox job leases deliveries, and lets go of what is old.
  FOREACH tenant_table IN ARRAY ARRAY['events', 'event_deliveries'] LOOP
    EXECUTE format('CREATE POLICY system_insert ON %I FOR INSERT TO :"system" WITH CHECK (true)', tenant_table);
    EXECUTE format('CREATE POLICY system_delete ON %I FOR DELETE TO :"system" USING (true)', tenant_table);
    EXECUTE format('GRANT INSERT, DELETE ON %I TO :"system"', tenant_table);
  END LOOP;
END
$$;
CREATE POLICY system_update ON event_deliveries FOR UPDATE TO :"system" USING (true) WITH CHECK (true);
GRANT UPDATE ON event_deliveries TO :"system";

GRANT SELECT, INSERT, UPDATE ON webhooks, event_deliveries TO :"app";
GRANT SELECT, INSERT ON events TO :"app";
