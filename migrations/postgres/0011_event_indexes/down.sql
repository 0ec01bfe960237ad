ALTER TABLE events RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, vacuum_index_cleanup);
DROP INDEX events_position;
DROP INDEX events_connection;
DROP INDEX events_tenant;
CREATE UNIQUE INDEX events_position ON events (position);
CREATE INDEX events_connection ON events (tenant, connection_id, position);
CREATE INDEX events_tenant ON events (tenant, position);
