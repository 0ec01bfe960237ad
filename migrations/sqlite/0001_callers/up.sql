-- oldest-compatible: 0001_callers
-- Who may call: API keys, users and their sessions; and what a create with a request id answered
-- before.

CREATE TABLE api_keys (
    id           text PRIMARY KEY,
    tenant       text NOT NULL,
    name         text NOT NULL,
    -- SHA-256 of the key; the key itself is never stored.
    hash         blob NOT NULL,
    prefix       text NOT NULL,
    role         text NOT NULL CHECK (role IN ('admin', 'operator', 'auditor', 'consumer', 'worker', 'issuer_ui')),
    grants       text NOT NULL,
    -- The key's own limit, in calls a second and at once; none for the role's.
    rate_limit   integer CHECK (rate_limit > 0),
    rate_burst   integer CHECK (rate_burst > 0),
    -- The key that took its place.
    replaced_by  text,
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

CREATE TABLE users (
    id                  text PRIMARY KEY,
    tenant              text NOT NULL,
    -- In lower case.
    email               text NOT NULL CHECK (email LIKE '%_@_%'),
    email_verified      integer NOT NULL CHECK (email_verified IN (0, 1)),
    display_name        text NOT NULL,
    -- The two above in lower case by Unicode's rules, which the engines apply differently: what
    -- ListUsers searches.
    search_text         text NOT NULL,
    -- Argon2id, in PHC form; none for who signs in through a provider.
    password_hash       text CHECK (password_hash LIKE '$argon2id$%'),
    role                text NOT NULL CHECK (role IN ('admin', 'operator', 'auditor', 'consumer', 'worker', 'issuer_ui', 'user')),
    grants              text NOT NULL,
    -- Whose connections are theirs.
    owner               text NOT NULL,
    state               text NOT NULL CHECK (state IN ('active', 'inactive')),
    version             integer NOT NULL,
    created_at          integer NOT NULL,
    updated_at          integer NOT NULL,
    last_sign_in_at     integer,
    password_changed_at integer,
    deleted_at          integer
) STRICT;
CREATE UNIQUE INDEX users_email ON users (tenant, email) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX users_owner ON users (tenant, owner) WHERE deleted_at IS NULL;
CREATE INDEX users_tenant ON users (tenant, id);
CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE user_preferences (
    user_id    text PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    tenant     text NOT NULL,
    -- JSON object.
    preferences text NOT NULL,
    version    integer NOT NULL,
    updated_at integer NOT NULL
) STRICT;

CREATE TABLE sessions (
    id                 text PRIMARY KEY,
    tenant             text NOT NULL,
    user_id            text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    method             text NOT NULL CHECK (method IN ('password', 'provider')),
    -- SHA-256 of the session token and of the refresh token; the tokens are never stored.
    token_hash         blob NOT NULL,
    refresh_hash       blob NOT NULL,
    created_at         integer NOT NULL,
    -- When the session token was issued, and last used.
    issued_at          integer NOT NULL,
    last_used_at       integer NOT NULL,
    -- When the session token ends, and when the session can no longer be refreshed.
    expires_at         integer NOT NULL,
    refresh_expires_at integer NOT NULL,
    ip                 text NOT NULL,
    user_agent         text NOT NULL,
    revoked_at         integer,
    revoke_reason      text NOT NULL
) STRICT;
CREATE UNIQUE INDEX sessions_token ON sessions (token_hash);
CREATE UNIQUE INDEX sessions_refresh ON sessions (refresh_hash);
CREATE INDEX sessions_user ON sessions (user_id, id);
CREATE INDEX sessions_expiry ON sessions (refresh_expires_at);
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;

-- Refresh tokens that were exchanged: one that is seen again was stolen, or its successor was.
CREATE TABLE spent_refresh_tokens (
    hash       blob PRIMARY KEY,
    session_id text NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    spent_at   integer NOT NULL
) STRICT;
CREATE INDEX spent_refresh_tokens_session ON spent_refresh_tokens (session_id);

-- Failed sign-ins, counted by account and by address.
CREATE TABLE sign_in_failures (
    -- SHA-256 of what is counted, so that no list of tried addresses is kept.
    subject       blob PRIMARY KEY,
    failures      integer NOT NULL,
    last_at       integer NOT NULL,
    blocked_until integer NOT NULL
) STRICT;
CREATE INDEX sign_in_failures_age ON sign_in_failures (last_at);
