-- oldest-compatible: 0001_callers
-- Who may call, and what a create with a request id answered before.

CREATE TABLE api_keys (
    id           text COLLATE "C" PRIMARY KEY,
    tenant       text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    -- SHA-256 of the key; the key itself is never stored.
    hash         bytea NOT NULL,
    prefix       text NOT NULL,
    role         text NOT NULL CHECK (role IN ('admin', 'operator', 'consumer', 'worker')),
    grants       jsonb NOT NULL,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);
CREATE INDEX api_keys_tenant ON api_keys (tenant, id);

CREATE TABLE idempotent_requests (
    tenant      text COLLATE "C" NOT NULL,
    rpc         text COLLATE "C" NOT NULL,
    request_id  text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    resource_id text NOT NULL,
    -- The sealed answer, kept only where it cannot be made again (it holds a secret).
    response    bytea,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, rpc, request_id)
);
CREATE INDEX idempotent_requests_expiry ON idempotent_requests (expires_at);
