-- The audit trail as one hash chain for each tenant; docs/guide/audit.md says what it shows. The links are made in the database
-- and not in the process, so that rows of the release before this one, which goes on beside it, are links like all others.

-- The head of each chain. Its row is locked from a row of the trail to the commit: it orders a tenant's rows.
CREATE TABLE audit_chains (
  tenant_id uuid NOT NULL,
  sequence bigint NOT NULL CHECK (sequence >= 0),
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (tenant_id)
);

ALTER TABLE audit_rows
  ADD COLUMN sequence bigint,
  ADD COLUMN hash bytea,
  -- Of what is sealed: it goes with the tenant's key, and its digest stays.
  ADD COLUMN before_digest bytea,
  ADD COLUMN after_digest bytea,
  -- More than one where refusals of one minute are one row.
  ADD COLUMN count integer NOT NULL DEFAULT 1 CHECK (count > 0);

-- Absent differs from empty, and the length stands first: no two lists of fields give the same bytes.
CREATE FUNCTION audit_field(value bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN value IS NULL THEN '\x00'::bytea ELSE '\x01'::bytea || int4send(octet_length(value)) || value END
$$;

CREATE FUNCTION audit_field(value text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
  SELECT audit_field(convert_to(value, 'UTF8'))
$$;

CREATE FUNCTION audit_digest(content jsonb) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
  SELECT sha256(convert_to(content::text, 'UTF8'))
$$;

-- Any change here makes rows that no verifier follows: src/domains/records/chain.ts has the same fields in the same order.
CREATE FUNCTION audit_hash(previous bytea, link audit_rows) RETURNS bytea LANGUAGE sql STABLE AS $$
  SELECT sha256(
    audit_field('atrium audit row 1'::text) || audit_field(previous) || audit_field(link.tenant_id::text) || audit_field(link.sequence::text)
    || audit_field(link.id::text) || audit_field(link.actor) || audit_field(link.actor_kind) || audit_field(link.action)
    || audit_field(link.target) || audit_field(link.before_digest) || audit_field(link.after_digest) || audit_field(link.request_id)
    || audit_field(link.remote_address) || audit_field(link.status::text) || audit_field(link.count::text)
    || audit_field(to_char(link.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
$$;

-- The row with its place: after the head, which is then this row.
CREATE FUNCTION append_to_audit_chain(link audit_rows) RETURNS audit_rows LANGUAGE plpgsql AS $$
DECLARE
  head audit_chains;
BEGIN
  INSERT INTO audit_chains (tenant_id, sequence, hash) VALUES (link.tenant_id, 0, decode(repeat('00', 32), 'hex'))
    ON CONFLICT DO NOTHING;
  SELECT * INTO STRICT head FROM audit_chains WHERE tenant_id = link.tenant_id FOR UPDATE;
  link.sequence := head.sequence + 1;
  link.before_digest := audit_digest(link.before);
  link.after_digest := audit_digest(link.after);
  link.hash := audit_hash(head.hash, link);
  UPDATE audit_chains SET sequence = link.sequence, hash = link.hash WHERE tenant_id = link.tenant_id;
  RETURN link;
END
$$;

CREATE FUNCTION chain_audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RETURN append_to_audit_chain(NEW);
END
$$;

-- The rows that are there already, in the order they were made. Row security binds even the owner, who migrates.
ALTER TABLE audit_rows NO FORCE ROW LEVEL SECURITY;
DO $$
DECLARE
  link audit_rows;
BEGIN
  FOR link IN SELECT * FROM audit_rows ORDER BY tenant_id, id LOOP
    link := append_to_audit_chain(link);
    UPDATE audit_rows
      SET sequence = link.sequence, hash = link.hash, before_digest = link.before_digest, after_digest = link.after_digest
      WHERE tenant_id = link.tenant_id AND id = link.id;
  END LOOP;
END
$$;
ALTER TABLE audit_rows FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_rows ALTER COLUMN sequence SET NOT NULL, ALTER COLUMN hash SET NOT NULL;
CREATE UNIQUE INDEX audit_rows_sequence ON audit_rows (tenant_id, sequence);

-- A restored row brings its place.
CREATE TRIGGER chain_audit_row BEFORE INSERT ON audit_rows FOR EACH ROW WHEN (NEW.sequence IS NULL) EXECUTE FUNCTION chain_audit_row();

ALTER TABLE audit_chains ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_chains FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_chains TO :"app" USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)
  WITH CHECK (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);
-- What the signer of checkpoints reads across tenants: a number and a digest of each.
CREATE POLICY system_select ON audit_chains FOR SELECT TO :"system" USING (true);
GRANT SELECT ON audit_chains TO :"system";
GRANT SELECT, INSERT, UPDATE ON audit_chains TO :"app";
