-- oldest-compatible: 0001_callers
-- Who may call, and what a create with a request id answered before.

CREATE TABLE api_keys (
    id           text PRIMARY KEY,
    tenant       text NOT NULL,
    name         text NOT NULL,
    -- SHA-256 of the key; the key itself is never stored.
    hash         blob NOT NULL,
    prefix       text NOT NULL,
    role         text NOT NULL CHECK (role IN ('admin', 'operator', 'consumer', 'worker')),
    grants       text NOT NULL,
    created_by   text NOT NULL,
    created_at   integer NOT NULL,
    expires_at   integer,
    revoked_at   integer,
    last_used_at integer
) STRICT;
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);
CREATE INDEX api_keys_tenant ON api_keys (tenant, id);

CREATE TABLE idempotent_requests (
    tenant      text NOT NULL,
    rpc         text NOT NULL,
    request_id  text NOT NULL,
    fingerprint blob NOT NULL,
    resource_id text NOT NULL,
    -- The sealed answer, kept only where it cannot be made again (it holds a secret).
    response    blob,
    created_at  integer NOT NULL,
    expires_at  integer NOT NULL,
    PRIMARY KEY (tenant, rpc, request_id)
) STRICT;
CREATE INDEX idempotent_requests_expiry ON idempotent_requests (expires_at);
