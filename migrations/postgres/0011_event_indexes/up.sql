-- oldest-compatible: 0009_automation
-- An event is written without a position and then numbered, which writes it to each index anew. Only where it can be
-- found: what has no position is looked for by its id alone, and what happened to a job by no connection.

DROP INDEX events_position;
DROP INDEX events_connection;
DROP INDEX events_tenant;
CREATE UNIQUE INDEX events_position ON events (position) WHERE position IS NOT NULL;
CREATE INDEX events_connection ON events (tenant, connection_id, position) WHERE connection_id IS NOT NULL AND position IS NOT NULL;
CREATE INDEX events_tenant ON events (tenant, position) WHERE position IS NOT NULL;

-- Numbered events stay in events_unnumbered until the table is vacuumed: after so many, however large the table is.
ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
