-- A tenant limits its own projects further than the platform does. What there is was set by the platform, and so is what the release
-- before this one makes.
ALTER TABLE limits ADD COLUMN set_by_platform boolean NOT NULL DEFAULT true;
