-- The people and service accounts of a tenant, what they may do, and invitations. The release before this one goes on beside it: it
-- knows keys only, and makes them without `creator`, so that none of those ends before its row says so.

-- Of a tenant, or of the platform. A service account is of one project; a person may be of many.
CREATE TABLE members (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('user', 'service_account')),
  project_id uuid,
  name_sealed bytea,
  email_sealed bytea,
  email_index bytea,
  -- Issuer and subject of the identity provider's assertions, once the member has signed in.
  subject_index bytea,
  roles text[] NOT NULL DEFAULT '{}',
  -- As the newest assertion has them, which was made then.
  claimed_roles text[] NOT NULL DEFAULT '{}',
  claimed_at timestamptz,
  revision integer NOT NULL DEFAULT 1,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL,
  removed_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id),
  CHECK ((kind = 'service_account') = (project_id IS NOT NULL)),
  CHECK ((email_sealed IS NULL) = (email_index IS NULL))
);
CREATE UNIQUE INDEX members_email ON members (tenant_id, email_index) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX members_subject ON members (tenant_id, subject_index) WHERE removed_at IS NULL;
CREATE INDEX members_project ON members (tenant_id, project_id, id) WHERE removed_at IS NULL;

-- What a member may do in one project, beside what its roles over the whole tenant allow.
CREATE TABLE project_members (
  tenant_id uuid NOT NULL,
  project_id uuid NOT NULL,
  member_id uuid NOT NULL,
  roles text[] NOT NULL DEFAULT '{}',
  claimed_roles text[] NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, project_id, member_id),
  FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id),
  FOREIGN KEY (tenant_id, member_id) REFERENCES members (tenant_id, id)
);
CREATE INDEX project_members_member ON project_members (tenant_id, member_id);

CREATE TABLE invitations (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  email_sealed bytea NOT NULL,
  email_index bytea NOT NULL,
  roles text[] NOT NULL,
  -- [{"project": id, "roles": […]}]
  projects jsonb NOT NULL DEFAULT '[]',
  token_hash bytea NOT NULL,
  expires_at timestamptz NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL,
  accepted_at timestamptz,
  withdrawn_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX invitations_token ON invitations (tenant_id, token_hash);
CREATE INDEX invitations_email ON invitations (tenant_id, email_index) WHERE accepted_at IS NULL AND withdrawn_at IS NULL;

ALTER TABLE api_keys
  -- The service account that calls with the key.
  ADD COLUMN member_id uuid,
  -- The key or member of the same tenant that made it and bounds it at every use: a key's id, or a member's.
  ADD COLUMN creator text,
  -- Families of endpoints it may call, and networks it may be used from; NULL: any.
  ADD COLUMN routes text[],
  ADD COLUMN ip_ranges text[],
  ADD FOREIGN KEY (tenant_id, member_id) REFERENCES members (tenant_id, id);

-- Keys that keys of the same tenant made are bounded by these from now on. One whose creator is revoked already is as it was: its
-- creator's rights ended under the rules of their time. Row security binds even the owner, who migrates.
ALTER TABLE api_keys NO FORCE ROW LEVEL SECURITY;
UPDATE api_keys SET creator = created_by WHERE EXISTS (
  SELECT FROM api_keys made WHERE made.tenant_id = api_keys.tenant_id AND made.id = api_keys.created_by
    AND made.revoked_at IS NULL AND made.grace_until IS NULL
);
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;

DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['members', 'project_members', 'invitations'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format(
      'CREATE POLICY tenant ON %I TO :"app" USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)'
      ' WITH CHECK (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid)', tenant_table);
  END LOOP;

  -- What the snapshot loader reads across tenants. Invitations are read by their own tenant alone.
  FOREACH tenant_table IN ARRAY ARRAY['members', 'project_members'] LOOP
    EXECUTE format('CREATE POLICY system_select ON %I FOR SELECT TO :"system" USING (true)', tenant_table);
    EXECUTE format('GRANT SELECT ON %I TO :"system"', tenant_table);
  END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE ON members, invitations TO :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON project_members TO :"app";
