-- oldest-compatible: 0009_automation
-- What happened to a job is found by no connection, and what has no position by its id alone.

DROP INDEX events_position;
DROP INDEX events_connection;
DROP INDEX events_tenant;
CREATE UNIQUE INDEX events_position ON events (position) WHERE position IS NOT NULL;
CREATE INDEX events_connection ON events (tenant, connection_id, position) WHERE connection_id IS NOT NULL AND position IS NOT NULL;
CREATE INDEX events_tenant ON events (tenant, position) WHERE position IS NOT NULL;
