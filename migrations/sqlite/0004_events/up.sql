-- oldest-compatible: 0004_events
-- Rows enter without a position, with an id drawn after the lock on what they are about; the
-- relay numbers committed rows. A watcher reads by position alone, so none is skipped.

CREATE TABLE events (
    id            integer PRIMARY KEY AUTOINCREMENT,
    tenant        text NOT NULL,
    position      integer,
    type          text NOT NULL,
    subject       text NOT NULL,
    connection_id text,
    app_id        text,
    grant_id      text,
    owner         text NOT NULL,
    provider      text NOT NULL,
    generation    integer NOT NULL,
    expires_at    integer,
    reason        text NOT NULL,
    created_at    integer NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_position ON events (position);
CREATE INDEX events_unnumbered ON events (id) WHERE position IS NULL;
CREATE INDEX events_connection ON events (tenant, connection_id, position);
CREATE INDEX events_tenant ON events (tenant, position);

-- One row: the last position given, and the first that is still kept. The epoch names this
-- history; a restored database gets another, so that old cursors are refused.
CREATE TABLE event_counter (
    id       integer PRIMARY KEY CHECK (id = 1),
    epoch    text NOT NULL,
    position integer NOT NULL,
    trimmed  integer NOT NULL
) STRICT;
INSERT INTO event_counter (id, epoch, position, trimmed)
VALUES (1, lower(hex(randomblob(8))), 0, 0);
