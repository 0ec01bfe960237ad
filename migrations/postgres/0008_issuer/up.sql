-- oldest-compatible: 0008_issuer
-- Our own authorisation server: requests, codes, grants, tokens, devices, keys.

ALTER TABLE oauth_clients ADD COLUMN access_token_format text NOT NULL DEFAULT 'opaque' CHECK (access_token_format IN ('opaque', 'jwt'));
ALTER TABLE oauth_clients ADD COLUMN dpop_bound boolean NOT NULL DEFAULT false;
ALTER TABLE oauth_clients ADD COLUMN require_pushed boolean NOT NULL DEFAULT false;
CREATE INDEX oauth_clients_deleted ON oauth_clients (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX oauth_client_secrets_expires ON oauth_client_secrets (expires_at);

-- What a person gave a client by one consent: the family of all tokens that came of it.
CREATE TABLE issued_grants (
    id             text COLLATE "C" PRIMARY KEY,
    tenant         text COLLATE "C" NOT NULL,
    client_id      text COLLATE "C" NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
    user_id        text COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- JSON lists of strings.
    scopes         jsonb NOT NULL,
    resources      jsonb NOT NULL,
    -- RFC 7638 thumbprint of the key that a public client's refresh tokens are bound to; empty for none.
    dpop_jkt       text NOT NULL,
    -- Grows by one with each exchange for new tokens; every rotation compares and swaps it.
    generation     bigint NOT NULL,
    -- When the person proved who they are.
    auth_time      timestamptz NOT NULL,
    ip             text NOT NULL,
    user_agent     text NOT NULL,
    created_at     timestamptz NOT NULL,
    last_issued_at timestamptz NOT NULL,
    -- No token of it lives longer.
    expires_at     timestamptz NOT NULL,
    revoked_at     timestamptz,
    revoke_reason  text NOT NULL
);
CREATE INDEX issued_grants_tenant ON issued_grants (tenant, id);
CREATE INDEX issued_grants_user ON issued_grants (tenant, user_id, id);
CREATE INDEX issued_grants_user_only ON issued_grants (user_id);
CREATE INDEX issued_grants_client ON issued_grants (client_id, id);
CREATE INDEX issued_grants_expires ON issued_grants (expires_at);
CREATE INDEX issued_grants_revoked ON issued_grants (revoked_at) WHERE revoked_at IS NOT NULL;

-- A device that waits for its person's consent (RFC 8628).
CREATE TABLE device_authorizations (
    id               text COLLATE "C" PRIMARY KEY,
    tenant           text COLLATE "C" NOT NULL,
    client_id        text COLLATE "C" NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
    -- SHA-256 of the codes.
    device_code_hash bytea NOT NULL,
    user_code_hash   bytea NOT NULL,
    scopes           jsonb NOT NULL,
    resources        jsonb NOT NULL,
    state            text NOT NULL CHECK (state IN ('pending', 'accepted', 'rejected', 'finished')),
    grant_id         text COLLATE "C" REFERENCES issued_grants (id) ON DELETE CASCADE,
    -- How long to wait between two questions; grows when that is not done.
    interval_seconds bigint NOT NULL CHECK (interval_seconds > 0),
    polled_at        timestamptz,
    ip               text NOT NULL,
    user_agent       text NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL
);
CREATE UNIQUE INDEX device_authorizations_device_code ON device_authorizations (device_code_hash);
CREATE UNIQUE INDEX device_authorizations_user_code ON device_authorizations (user_code_hash);
CREATE INDEX device_authorizations_client ON device_authorizations (client_id);
CREATE INDEX device_authorizations_grant ON device_authorizations (grant_id);
CREATE INDEX device_authorizations_expires ON device_authorizations (expires_at);

-- One attempt of a client to have a person's consent.
CREATE TABLE authorization_requests (
    id               text COLLATE "C" PRIMARY KEY,
    tenant           text COLLATE "C" NOT NULL,
    client_id        text COLLATE "C" NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
    -- Set where it is a device's: then there is nowhere to send the browser.
    device_id        text COLLATE "C" REFERENCES device_authorizations (id) ON DELETE CASCADE,
    redirect_uri     text NOT NULL,
    -- Whether the client named it: then it must name it again at the token endpoint.
    redirect_uri_sent boolean NOT NULL,
    scopes           jsonb NOT NULL,
    resources        jsonb NOT NULL,
    -- The client's own state, nonce and PKCE challenge (S256); empty for none.
    client_state     text NOT NULL,
    nonce            text NOT NULL,
    code_challenge   text NOT NULL,
    dpop_jkt         text NOT NULL,
    login_hint       text NOT NULL,
    -- SHA-256 of a request_uri (RFC 9126), until it is used.
    request_uri_hash bytea,
    -- SHA-256 of the cookie of the browser that began it.
    cookie_hash      bytea,
    state            text NOT NULL CHECK (state IN ('pushed', 'pending', 'signed_in', 'accepted', 'rejected', 'finished')),
    user_id          text COLLATE "C" REFERENCES users (id) ON DELETE CASCADE,
    auth_time        timestamptz,
    granted_scopes   jsonb NOT NULL,
    -- Why it was rejected, as RFC 6749 section 4.1.2.1 has it.
    error            text NOT NULL,
    error_description text NOT NULL,
    ip               text NOT NULL,
    user_agent       text NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL
);
CREATE UNIQUE INDEX authorization_requests_request_uri ON authorization_requests (request_uri_hash);
CREATE INDEX authorization_requests_client ON authorization_requests (client_id);
CREATE INDEX authorization_requests_device ON authorization_requests (device_id);
CREATE INDEX authorization_requests_user ON authorization_requests (user_id);
CREATE INDEX authorization_requests_expires ON authorization_requests (expires_at);

-- Codes: kept after their use, so that a second use is noticed.
CREATE TABLE authorization_codes (
    -- SHA-256 of the code.
    hash             bytea PRIMARY KEY,
    tenant           text COLLATE "C" NOT NULL,
    client_id        text COLLATE "C" NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
    grant_id         text COLLATE "C" NOT NULL REFERENCES issued_grants (id) ON DELETE CASCADE,
    redirect_uri     text NOT NULL,
    redirect_uri_sent boolean NOT NULL,
    client_state     text NOT NULL,
    nonce            text NOT NULL,
    code_challenge   text NOT NULL,
    dpop_jkt         text NOT NULL,
    ip               text NOT NULL,
    user_agent       text NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    consumed_at      timestamptz,
    -- When it may be deleted.
    keep_until       timestamptz NOT NULL
);
CREATE INDEX authorization_codes_client ON authorization_codes (client_id);
CREATE INDEX authorization_codes_grant ON authorization_codes (grant_id);
CREATE INDEX authorization_codes_keep ON authorization_codes (keep_until);

CREATE TABLE issued_tokens (
    id            text COLLATE "C" PRIMARY KEY,
    -- SHA-256 of the token.
    hash          bytea NOT NULL,
    tenant        text COLLATE "C" NOT NULL,
    client_id     text COLLATE "C" NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
    -- None where a client acts for itself.
    grant_id      text COLLATE "C" REFERENCES issued_grants (id) ON DELETE CASCADE,
    kind          text NOT NULL CHECK (kind IN ('access', 'refresh')),
    format        text NOT NULL CHECK (format IN ('opaque', 'jwt')),
    scopes        jsonb NOT NULL,
    resources     jsonb NOT NULL,
    dpop_jkt      text NOT NULL,
    -- The grant's when it was issued.
    generation    bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    revoke_reason text NOT NULL,
    -- Of a refresh token: when it was exchanged first, how often again, and the sealed answer.
    consumed_at   timestamptz,
    reuse_count   integer NOT NULL,
    successor     bytea,
    use_count     bigint NOT NULL,
    last_used_at  timestamptz,
    ip            text NOT NULL,
    user_agent    text NOT NULL,
    -- When it may be deleted.
    keep_until    timestamptz NOT NULL
);
CREATE UNIQUE INDEX issued_tokens_hash ON issued_tokens (hash);
CREATE INDEX issued_tokens_tenant ON issued_tokens (tenant, id);
CREATE INDEX issued_tokens_client ON issued_tokens (tenant, client_id, id);
CREATE INDEX issued_tokens_client_only ON issued_tokens (client_id);
CREATE INDEX issued_tokens_grant ON issued_tokens (grant_id, generation);
CREATE INDEX issued_tokens_keep ON issued_tokens (keep_until);
CREATE INDEX issued_tokens_successor ON issued_tokens (consumed_at) WHERE successor IS NOT NULL;

-- Keys that tokens are signed with; they are the installation's, not a tenant's.
CREATE TABLE issuer_keys (
    id          text COLLATE "C" PRIMARY KEY,
    -- Sealed.
    private_key bytea NOT NULL,
    -- The public half as a JWK (RFC 7517).
    public_jwk  jsonb NOT NULL,
    created_at  timestamptz NOT NULL,
    -- Published before it signs, and after.
    signs_from  timestamptz NOT NULL,
    signs_until timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX issuer_keys_expires ON issuer_keys (expires_at);

-- Proofs (DPoP, client assertions) that were seen: each is good once.
CREATE TABLE spent_proofs (
    -- SHA-256 over what the proof is for, whose it is, and its jti.
    hash       bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX spent_proofs_expires ON spent_proofs (expires_at);

DROP VIEW oauth_client_stats;
CREATE VIEW oauth_client_stats AS
SELECT
    c.id, c.tenant, c.name, c.state, coalesce(u.authorizations, 0) AS authorizations,
    coalesce(u.tokens, 0) AS tokens, u.last_used_at, c.created_at,
    (SELECT count(DISTINCT g.user_id) FROM issued_grants g WHERE g.client_id = c.id) AS unique_users
FROM oauth_clients c
LEFT JOIN oauth_client_usage u ON u.client_id = c.id
WHERE c.deleted_at IS NULL;
