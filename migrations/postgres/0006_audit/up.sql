-- oldest-compatible: 0006_audit
-- Who did what. A row is written in the transaction that it tells of, without a place; then it is given
-- its place in the chain, in the order in which rows were committed. After that only retention takes it
-- away, and erasing a person clears its address and program.

CREATE TABLE audit_events (
    id            text COLLATE "C" PRIMARY KEY,
    position      bigint,
    tenant        text COLLATE "C" NOT NULL,
    occurred_at   timestamptz NOT NULL,
    action        text COLLATE "C" NOT NULL,
    success       boolean NOT NULL,
    reason        text NOT NULL,
    actor_kind    text NOT NULL,
    actor_id      text COLLATE "C" NOT NULL,
    resource_kind text NOT NULL,
    resource_id   text COLLATE "C" NOT NULL,
    provider      text NOT NULL,
    trace_id      text NOT NULL,
    -- JSON object of strings.
    details       jsonb NOT NULL,
    ip            text NOT NULL,
    user_agent    text NOT NULL,
    -- The two above are hashed with it, and the chain covers the hash: so they can be erased.
    salt          bytea,
    personal_hash bytea NOT NULL,
    -- The event that tells of their erasure.
    erased_by     text COLLATE "C",
    -- SHA-256 over the hash of the place before and this row.
    hash          bytea
);
CREATE UNIQUE INDEX audit_events_position ON audit_events (position);
CREATE INDEX audit_events_unchained ON audit_events (id) WHERE position IS NULL;
CREATE INDEX audit_events_tenant ON audit_events (tenant, position);
CREATE INDEX audit_events_actor ON audit_events (tenant, actor_id, position);
CREATE INDEX audit_events_resource ON audit_events (tenant, resource_id, position);

-- One row: how far the chain goes. Whoever chains locks it.
CREATE TABLE audit_head (
    id       integer PRIMARY KEY CHECK (id = 1),
    position bigint NOT NULL,
    hash     bytea NOT NULL,
    -- Positions up to this one have left by retention.
    trimmed  bigint NOT NULL
);
INSERT INTO audit_head (id, position, hash, trimmed) VALUES (1, 0, decode(repeat('00', 32), 'hex'), 0);

-- Signed statements of what the chain comes to at a place.
CREATE TABLE audit_checkpoints (
    position   bigint PRIMARY KEY,
    hash       bytea NOT NULL,
    created_at timestamptz NOT NULL,
    -- The signed note.
    note       text NOT NULL
);
