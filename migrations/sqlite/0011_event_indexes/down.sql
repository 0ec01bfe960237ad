DROP INDEX events_position;
DROP INDEX events_connection;
DROP INDEX events_tenant;
CREATE UNIQUE INDEX events_position ON events (position);
CREATE INDEX events_connection ON events (tenant, connection_id, position);
CREATE INDEX events_tenant ON events (tenant, position);
