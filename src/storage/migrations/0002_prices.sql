-- Prices from a dataset, long-context tiers, versions made before they are in force; and what a tenant pays of a price.
-- The release before this one goes on beside it: what it writes is in force at once. It knows no tiers, no markup and no version to
-- come, so these are for when its last process has ended.

ALTER TABLE prices
  DROP CONSTRAINT prices_source_check,
  ADD CONSTRAINT prices_source_check CHECK (source IN ('stated', 'free', 'dataset')),
  ADD COLUMN tiers jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN dataset jsonb,
  ADD CONSTRAINT prices_dataset_check CHECK ((source = 'dataset') = (dataset IS NOT NULL));

-- The versions of a deployment are read in the order they were made: a later one replaces those that would begin after it.
DROP INDEX prices_deployment;
CREATE INDEX prices_deployment ON prices (tenant_id, deployment_id, created_at);

ALTER TABLE tenants
  ADD COLUMN markup_millionths integer NOT NULL DEFAULT 1000000 CHECK (markup_millionths BETWEEN 10000 AND 100000000);
