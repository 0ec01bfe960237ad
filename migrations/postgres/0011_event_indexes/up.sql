-- oldest-compatible: 0009_automation
-- An event is written without a position and then numbered, which writes it to each index anew. Only where it can be
-- found: what has no position is looked for by its id alone, and what happened to a job by no connection.
-- Built beside the old ones, so that history can be read meanwhile.

CREATE UNIQUE INDEX events_position_new ON events (position) WHERE position IS NOT NULL;
CREATE INDEX events_connection_new ON events (tenant, connection_id, position) WHERE connection_id IS NOT NULL AND position IS NOT NULL;
CREATE INDEX events_tenant_new ON events (tenant, position) WHERE position IS NOT NULL;
DROP INDEX events_position;
DROP INDEX events_connection;
DROP INDEX events_tenant;
ALTER INDEX events_position_new RENAME TO events_position;
ALTER INDEX events_connection_new RENAME TO events_connection;
ALTER INDEX events_tenant_new RENAME TO events_tenant;

-- Numbered events stay in events_unnumbered, which the relay looks through, until the table is vacuumed: after so many,
-- however large the table is, and not passed over because they are few beside it.
ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100000, vacuum_index_cleanup = on);
