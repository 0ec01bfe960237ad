DROP INDEX events_connection;
CREATE INDEX events_connection ON events (tenant, connection_id, position);
