-- oldest-compatible: 0001_callers
-- Who may call: API keys, users and their sessions; and what a create with a request id answered
-- before.

CREATE TABLE api_keys (
    id           text COLLATE "C" PRIMARY KEY,
    tenant       text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    -- SHA-256 of the key; the key itself is never stored.
    hash         bytea NOT NULL,
    prefix       text NOT NULL,
    role         text NOT NULL CHECK (role IN ('admin', 'operator', 'auditor', 'consumer', 'worker', 'issuer_ui')),
    grants       jsonb NOT NULL,
    -- The key's own limit, in calls a second and at once; none for the role's.
    rate_limit   integer CHECK (rate_limit > 0),
    rate_burst   integer CHECK (rate_burst > 0),
    -- The key that took its place.
    replaced_by  text COLLATE "C",
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

CREATE TABLE users (
    id                  text COLLATE "C" PRIMARY KEY,
    tenant              text COLLATE "C" NOT NULL,
    -- In lower case.
    email               text COLLATE "C" NOT NULL CHECK (email LIKE '%_@_%'),
    email_verified      boolean NOT NULL,
    display_name        text NOT NULL,
    -- The two above in lower case by Unicode's rules, which the engines apply differently: what
    -- ListUsers searches.
    search_text         text NOT NULL,
    -- Argon2id, in PHC form; none for who signs in through a provider.
    password_hash       text CHECK (password_hash LIKE '$argon2id$%'),
    role                text NOT NULL CHECK (role IN ('admin', 'operator', 'auditor', 'consumer', 'worker', 'issuer_ui', 'user')),
    grants              jsonb NOT NULL,
    -- Whose connections are theirs.
    owner               text COLLATE "C" NOT NULL,
    state               text NOT NULL CHECK (state IN ('active', 'inactive')),
    version             bigint NOT NULL,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    last_sign_in_at     timestamptz,
    password_changed_at timestamptz,
    deleted_at          timestamptz
);
CREATE UNIQUE INDEX users_email ON users (tenant, email) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX users_owner ON users (tenant, owner) WHERE deleted_at IS NULL;
CREATE INDEX users_tenant ON users (tenant, id);
CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE user_preferences (
    user_id    text COLLATE "C" PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    tenant     text COLLATE "C" NOT NULL,
    -- JSON object.
    preferences jsonb NOT NULL,
    version    bigint NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE sessions (
    id                 text COLLATE "C" PRIMARY KEY,
    tenant             text COLLATE "C" NOT NULL,
    user_id            text COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    method             text NOT NULL CHECK (method IN ('password', 'provider')),
    -- SHA-256 of the session token and of the refresh token; the tokens are never stored.
    token_hash         bytea NOT NULL,
    refresh_hash       bytea NOT NULL,
    created_at         timestamptz NOT NULL,
    -- When the session token was issued, and last used.
    issued_at          timestamptz NOT NULL,
    last_used_at       timestamptz NOT NULL,
    -- When the session token ends, and when the session can no longer be refreshed.
    expires_at         timestamptz NOT NULL,
    refresh_expires_at timestamptz NOT NULL,
    ip                 text NOT NULL,
    user_agent         text NOT NULL,
    revoked_at         timestamptz,
    revoke_reason      text NOT NULL
);
CREATE UNIQUE INDEX sessions_token ON sessions (token_hash);
CREATE UNIQUE INDEX sessions_refresh ON sessions (refresh_hash);
CREATE INDEX sessions_user ON sessions (user_id, id);
CREATE INDEX sessions_expiry ON sessions (refresh_expires_at);
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;

-- Refresh tokens that were exchanged: one that is seen again was stolen, or its successor was.
CREATE TABLE spent_refresh_tokens (
    hash       bytea PRIMARY KEY,
    session_id text COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    spent_at   timestamptz NOT NULL
);
CREATE INDEX spent_refresh_tokens_session ON spent_refresh_tokens (session_id);

-- Failed sign-ins, counted by account and by address.
CREATE TABLE sign_in_failures (
    -- SHA-256 of what is counted, so that no list of tried addresses is kept.
    subject       bytea PRIMARY KEY,
    failures      integer NOT NULL,
    last_at       timestamptz NOT NULL,
    blocked_until timestamptz NOT NULL
);
CREATE INDEX sign_in_failures_age ON sign_in_failures (last_at);
