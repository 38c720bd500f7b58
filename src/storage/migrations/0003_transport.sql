-- How connections to a credential's provider are made. A proxy's URL may hold a password, so the whole of it is sealed.
ALTER TABLE credentials
  ADD COLUMN proxy_sealed bytea,
  ADD COLUMN ca text,
  ADD COLUMN client_cert text,
  ADD COLUMN client_key_sealed bytea;
