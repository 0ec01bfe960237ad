-- oldest-compatible: 0009_automation
-- What happened to a job is found by no connection.

DROP INDEX events_connection;
CREATE INDEX events_connection ON events (tenant, connection_id, position) WHERE connection_id IS NOT NULL;
