-- oldest-compatible: 0003_connections
-- Grants hold tokens; connections say whose they are; authorisations make both.

CREATE TABLE grants (
    id                  text PRIMARY KEY,
    tenant              text NOT NULL,
    app_id              text NOT NULL REFERENCES apps (id),
    kind                text NOT NULL CHECK (kind IN ('oauth2', 'oauth1', 'api_key')),
    state               text NOT NULL CHECK (state IN ('active', 'reauthorization_required', 'revoked')),
    state_reason        text NOT NULL,
    -- Grows by one with every new set of tokens; what compare-and-set compares.
    generation          integer NOT NULL,
    access_token        blob,
    refresh_token       blob,
    token_secret        blob,
    token_type          text NOT NULL,
    scopes              text NOT NULL,
    metadata            text NOT NULL,
    -- Keyed fingerprint of the refresh token: two connections with the same one share the grant.
    refresh_fingerprint text,
    issued_at           integer NOT NULL,
    expires_at          integer,
    refresh_expires_at  integer,
    absolute_expires_at integer,
    refresh_policy      text NOT NULL CHECK (refresh_policy IN ('always', 'when_used', 'on_demand')),
    last_refreshed_at   integer,
    -- When the worker is to look at it; null takes it out of the due index.
    next_refresh_at     integer,
    -- When to warn that its refresh token is about to lapse.
    notice_at           integer,
    -- No trigger refreshes before this: the back-off after a failure.
    not_before          integer,
    failure_count       integer NOT NULL,
    last_error          text NOT NULL,
    -- The lease: by the database's clock, since several replicas compare it.
    lease_holder        text,
    lease_until         integer,
    -- The generation whose refresh token is being spent, or may have been: set before anything is
    -- sent, cleared when the outcome is known.
    attempt_generation  integer,
    attempt_started_at  integer,
    attempt_retried     integer NOT NULL CHECK (attempt_retried IN (0, 1)),
    created_at          integer NOT NULL,
    updated_at          integer NOT NULL
) STRICT;
CREATE INDEX grants_app ON grants (app_id, id);
CREATE INDEX grants_due ON grants (next_refresh_at) WHERE next_refresh_at IS NOT NULL;
CREATE INDEX grants_notice ON grants (notice_at) WHERE notice_at IS NOT NULL;
CREATE INDEX grants_fingerprint ON grants (app_id, refresh_fingerprint) WHERE refresh_fingerprint IS NOT NULL;

CREATE TABLE connections (
    id                 text PRIMARY KEY,
    tenant             text NOT NULL,
    app_id             text NOT NULL REFERENCES apps (id),
    grant_id           text NOT NULL REFERENCES grants (id),
    provider           text NOT NULL,
    owner              text NOT NULL,
    -- The account's id, or the authorisation's where the provider does not tell.
    account_key        text NOT NULL,
    account_id         text NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('oauth2', 'oauth1', 'api_key')),
    state              text NOT NULL CHECK (state IN ('pending', 'active', 'revoked')),
    state_reason       text NOT NULL,
    display_name       text NOT NULL,
    avatar_url         text NOT NULL,
    email              text NOT NULL,
    team_id            text NOT NULL,
    provider_tenant_id text NOT NULL,
    requested_scopes   text NOT NULL,
    labels             text NOT NULL,
    metadata           text NOT NULL,
    refresh_policy     text NOT NULL CHECK (refresh_policy IN ('always', 'when_used', 'on_demand')),
    version            integer NOT NULL,
    created_at         integer NOT NULL,
    updated_at         integer NOT NULL
) STRICT;
CREATE UNIQUE INDEX connections_account ON connections (tenant, app_id, owner, account_key);
CREATE INDEX connections_tenant ON connections (tenant, id);
CREATE INDEX connections_owner ON connections (tenant, owner, id);
CREATE INDEX connections_app ON connections (app_id, id);
CREATE INDEX connections_grant ON connections (grant_id);
CREATE INDEX connections_app_account ON connections (app_id, account_id);

-- Apart from connections, so that counting use never touches a row that a refresh locks.
CREATE TABLE connection_usage (
    connection_id text PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    tenant        text NOT NULL,
    last_used_at  integer NOT NULL,
    use_count     integer NOT NULL,
    last_caller   text NOT NULL
) STRICT;

CREATE TABLE authorizations (
    id                   text PRIMARY KEY,
    tenant               text NOT NULL,
    app_id               text NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    intent               text NOT NULL CHECK (intent IN ('connect', 'sign_in')),
    -- Empty for a sign-in.
    owner                text NOT NULL,
    mode                 text NOT NULL CHECK (mode IN ('confirmed', 'link_only')),
    state                text NOT NULL CHECK (state IN ('pending', 'exchanged', 'awaiting_confirmation', 'succeeded', 'failed', 'expired')),
    -- SHA-256 of the ticket in the link; null where the caller owns the redirect URI.
    ticket_hash          blob,
    scopes               text NOT NULL,
    return_url           text NOT NULL,
    redirect_uri         text NOT NULL,
    login_hint           text NOT NULL,
    parameters           text NOT NULL,
    refresh_policy       text NOT NULL CHECK (refresh_policy IN ('always', 'when_used', 'on_demand')),
    -- The connection it is to renew, as the caller asked.
    renews               text,
    connection_id        text,
    -- The sealed answer of the token endpoint, from the exchange until the connection has it.
    tokens               blob,
    -- The account that a sign-in learnt.
    account_id           text NOT NULL,
    confirmation_hash    blob,
    failure_reason       text NOT NULL,
    failure_message      text NOT NULL,
    provider_error       text NOT NULL,
    provider_description text NOT NULL,
    created_by           text NOT NULL,
    created_at           integer NOT NULL,
    updated_at           integer NOT NULL,
    expires_at           integer NOT NULL
) STRICT;
CREATE UNIQUE INDEX authorizations_ticket ON authorizations (ticket_hash);
CREATE INDEX authorizations_app ON authorizations (app_id, id);
CREATE INDEX authorizations_sign_ins ON authorizations (app_id) WHERE intent = 'sign_in' AND state = 'pending';
CREATE INDEX authorizations_owner ON authorizations (tenant, owner, id);
CREATE INDEX authorizations_open ON authorizations (expires_at) WHERE state IN ('pending', 'exchanged', 'awaiting_confirmation');
CREATE INDEX authorizations_closed ON authorizations (updated_at) WHERE state IN ('succeeded', 'failed', 'expired');

-- One row a visit of the link: a link scanner's visit spends nothing of the person's.
CREATE TABLE authorization_visits (
    state_hash       blob PRIMARY KEY,
    tenant           text NOT NULL,
    authorization_id text NOT NULL REFERENCES authorizations (id) ON DELETE CASCADE,
    verifier         blob,
    nonce            blob,
    cookie_hash      blob,
    created_at       integer NOT NULL,
    expires_at       integer NOT NULL,
    used_at          integer
) STRICT;
CREATE INDEX authorization_visits_authorization ON authorization_visits (authorization_id);
CREATE INDEX authorization_visits_expiry ON authorization_visits (expires_at);

CREATE TABLE refresh_attempts (
    id              text PRIMARY KEY,
    tenant          text NOT NULL,
    grant_id        text NOT NULL,
    started_at      integer NOT NULL,
    duration_micros integer NOT NULL,
    trigger         text NOT NULL,
    outcome         text NOT NULL CHECK (outcome IN ('succeeded', 'transient', 'ambiguous', 'grant_dead', 'client_misconfigured', 'superseded')),
    error_code      text NOT NULL,
    error_message   text NOT NULL,
    fingerprint     text NOT NULL,
    new_fingerprint text NOT NULL,
    generation      integer NOT NULL
) STRICT;
CREATE INDEX refresh_attempts_grant ON refresh_attempts (tenant, grant_id, id);
CREATE INDEX refresh_attempts_age ON refresh_attempts (started_at);

CREATE TABLE sync_records (
    id              text PRIMARY KEY,
    tenant          text NOT NULL,
    connection_id   text NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    action          text NOT NULL,
    status          text NOT NULL CHECK (status IN ('succeeded', 'partial', 'failed')),
    data_size       integer NOT NULL,
    duration_micros integer NOT NULL,
    error           text NOT NULL,
    created_at      integer NOT NULL
) STRICT;
CREATE INDEX sync_records_connection ON sync_records (connection_id, id);
CREATE INDEX sync_records_age ON sync_records (created_at);
