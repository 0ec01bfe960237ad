-- oldest-compatible: 0006_audit
-- Clients of our own authorisation server: third parties that people and tenants let in.

CREATE TABLE oauth_clients (
    -- Also its client_id.
    id                    text PRIMARY KEY,
    tenant                text NOT NULL,
    name                  text NOT NULL,
    description           text NOT NULL,
    logo_url              text NOT NULL,
    homepage_url          text NOT NULL,
    auth_method           text NOT NULL CHECK (auth_method IN ('none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt')),
    -- A JWK set as it was given; empty for none.
    jwks                  text NOT NULL,
    jwks_uri              text NOT NULL,
    -- JSON lists of strings.
    redirect_uris         text NOT NULL,
    grant_types           text NOT NULL,
    response_types        text NOT NULL,
    scopes                text NOT NULL,
    access_token_seconds  integer NOT NULL CHECK (access_token_seconds > 0),
    refresh_token_seconds integer NOT NULL CHECK (refresh_token_seconds > 0),
    require_pkce          integer NOT NULL CHECK (require_pkce IN (0, 1)),
    trusted               integer NOT NULL CHECK (trusted IN (0, 1)),
    rate_limit_per_hour   integer CHECK (rate_limit_per_hour > 0),
    webhook_url           text NOT NULL,
    -- Sealed: what is delivered is signed with it.
    webhook_secret        blob,
    webhook_events        text NOT NULL,
    state                 text NOT NULL CHECK (state IN ('pending', 'active', 'suspended', 'revoked')),
    state_reason          text NOT NULL,
    state_changed_at      integer NOT NULL,
    created_by            text NOT NULL,
    version               integer NOT NULL,
    created_at            integer NOT NULL,
    updated_at            integer NOT NULL,
    deleted_at            integer,
    -- Whoever can't keep a secret proves with PKCE that a code is theirs.
    CHECK (require_pkce = 1 OR auth_method <> 'none'),
    CHECK (webhook_secret IS NULL OR webhook_url <> '')
) STRICT;
CREATE INDEX oauth_clients_tenant ON oauth_clients (tenant, id) WHERE deleted_at IS NULL;

-- One current secret a client at most, and one before it while a rotation lasts.
CREATE TABLE oauth_client_secrets (
    -- SHA-256 of the secret.
    hash          blob PRIMARY KEY,
    tenant        text NOT NULL,
    client_id     text NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
    -- Its first characters, to tell secrets apart.
    prefix        text NOT NULL,
    created_at    integer NOT NULL,
    expires_at    integer NOT NULL,
    superseded_at integer
) STRICT;
CREATE UNIQUE INDEX oauth_client_secrets_current ON oauth_client_secrets (client_id) WHERE superseded_at IS NULL;
CREATE INDEX oauth_client_secrets_client ON oauth_client_secrets (client_id);

-- Counted apart, so that use does not touch the client's own row.
CREATE TABLE oauth_client_usage (
    client_id      text PRIMARY KEY REFERENCES oauth_clients (id) ON DELETE CASCADE,
    tenant         text NOT NULL,
    authorizations integer NOT NULL,
    tokens         integer NOT NULL,
    last_used_at   integer
) STRICT;

-- What operators and reports read.
CREATE VIEW active_oauth_clients AS
SELECT
    c.id, c.tenant, c.name, c.description, c.logo_url, c.homepage_url, c.auth_method,
    c.redirect_uris, c.grant_types, c.scopes, c.access_token_seconds, c.refresh_token_seconds,
    c.require_pkce, c.trusted, c.rate_limit_per_hour, c.created_by, c.created_at, c.updated_at
FROM oauth_clients c
WHERE c.state = 'active' AND c.deleted_at IS NULL;

CREATE VIEW oauth_client_stats AS
SELECT
    c.id, c.tenant, c.name, c.state, coalesce(u.authorizations, 0) AS authorizations,
    coalesce(u.tokens, 0) AS tokens, u.last_used_at, c.created_at
FROM oauth_clients c
LEFT JOIN oauth_client_usage u ON u.client_id = c.id
WHERE c.deleted_at IS NULL;
