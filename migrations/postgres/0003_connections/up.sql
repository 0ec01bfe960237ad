-- oldest-compatible: 0003_connections
-- Grants hold tokens; connections say whose they are; authorisations make both.

CREATE TABLE grants (
    id                  text COLLATE "C" PRIMARY KEY,
    tenant              text COLLATE "C" NOT NULL,
    app_id              text COLLATE "C" NOT NULL REFERENCES apps (id),
    kind                text NOT NULL CHECK (kind IN ('oauth2', 'oauth1', 'api_key')),
    state               text NOT NULL CHECK (state IN ('active', 'reauthorization_required', 'revoked')),
    state_reason        text NOT NULL,
    -- Grows by one with every new set of tokens; what compare-and-set compares.
    generation          bigint NOT NULL,
    access_token        bytea,
    refresh_token       bytea,
    token_secret        bytea,
    token_type          text NOT NULL,
    scopes              jsonb NOT NULL,
    metadata            jsonb NOT NULL,
    -- Keyed fingerprint of the refresh token: two connections with the same one share the grant.
    refresh_fingerprint text COLLATE "C",
    issued_at           timestamptz NOT NULL,
    expires_at          timestamptz,
    refresh_expires_at  timestamptz,
    absolute_expires_at timestamptz,
    refresh_policy      text NOT NULL CHECK (refresh_policy IN ('always', 'when_used', 'on_demand')),
    last_refreshed_at   timestamptz,
    -- When the worker is to look at it; null takes it out of the due index.
    next_refresh_at     timestamptz,
    -- When to warn that its refresh token is about to lapse.
    notice_at           timestamptz,
    -- No trigger refreshes before this: the back-off after a failure.
    not_before          timestamptz,
    failure_count       integer NOT NULL,
    last_error          text NOT NULL,
    -- The lease: by the database's clock, since several replicas compare it.
    lease_holder        text,
    lease_until         timestamptz,
    -- The generation whose refresh token is being spent, or may have been: set before anything is
    -- sent, cleared when the outcome is known.
    attempt_generation  bigint,
    attempt_started_at  timestamptz,
    attempt_retried     boolean NOT NULL,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL
);
CREATE INDEX grants_app ON grants (app_id, id);
CREATE INDEX grants_due ON grants (next_refresh_at) WHERE next_refresh_at IS NOT NULL;
CREATE INDEX grants_notice ON grants (notice_at) WHERE notice_at IS NOT NULL;
CREATE INDEX grants_fingerprint ON grants (app_id, refresh_fingerprint) WHERE refresh_fingerprint IS NOT NULL;

CREATE TABLE connections (
    id                 text COLLATE "C" PRIMARY KEY,
    tenant             text COLLATE "C" NOT NULL,
    app_id             text COLLATE "C" NOT NULL REFERENCES apps (id),
    grant_id           text COLLATE "C" NOT NULL REFERENCES grants (id),
    provider           text COLLATE "C" NOT NULL,
    owner              text COLLATE "C" NOT NULL,
    -- The account's id, or the authorisation's where the provider does not tell.
    account_key        text COLLATE "C" NOT NULL,
    account_id         text NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('oauth2', 'oauth1', 'api_key')),
    state              text NOT NULL CHECK (state IN ('pending', 'active', 'revoked')),
    state_reason       text NOT NULL,
    display_name       text NOT NULL,
    avatar_url         text NOT NULL,
    email              text NOT NULL,
    team_id            text NOT NULL,
    provider_tenant_id text NOT NULL,
    requested_scopes   jsonb NOT NULL,
    labels             jsonb NOT NULL,
    metadata           jsonb NOT NULL,
    refresh_policy     text NOT NULL CHECK (refresh_policy IN ('always', 'when_used', 'on_demand')),
    version            bigint NOT NULL,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL
);
CREATE UNIQUE INDEX connections_account ON connections (tenant, app_id, owner, account_key);
CREATE INDEX connections_tenant ON connections (tenant, id);
CREATE INDEX connections_owner ON connections (tenant, owner, id);
CREATE INDEX connections_app ON connections (app_id, id);
CREATE INDEX connections_grant ON connections (grant_id);
CREATE INDEX connections_app_account ON connections (app_id, account_id);

-- Apart from connections, so that counting use never touches a row that a refresh locks.
CREATE TABLE connection_usage (
    connection_id text COLLATE "C" PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    tenant        text COLLATE "C" NOT NULL,
    last_used_at  timestamptz NOT NULL,
    use_count     bigint NOT NULL,
    last_caller   text NOT NULL
);

CREATE TABLE authorizations (
    id                   text COLLATE "C" PRIMARY KEY,
    tenant               text COLLATE "C" NOT NULL,
    app_id               text COLLATE "C" NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    intent               text NOT NULL CHECK (intent IN ('connect', 'sign_in')),
    -- Empty for a sign-in.
    owner                text COLLATE "C" NOT NULL,
    mode                 text NOT NULL CHECK (mode IN ('confirmed', 'link_only')),
    state                text NOT NULL CHECK (state IN ('pending', 'exchanged', 'awaiting_confirmation', 'succeeded', 'failed', 'expired')),
    -- SHA-256 of the ticket in the link; null where the caller owns the redirect URI.
    ticket_hash          bytea,
    scopes               jsonb NOT NULL,
    return_url           text NOT NULL,
    redirect_uri         text NOT NULL,
    login_hint           text NOT NULL,
    parameters           jsonb NOT NULL,
    refresh_policy       text NOT NULL CHECK (refresh_policy IN ('always', 'when_used', 'on_demand')),
    -- The connection it is to renew, as the caller asked.
    renews               text,
    connection_id        text,
    -- The sealed answer of the token endpoint, from the exchange until the connection has it.
    tokens               bytea,
    -- The account that a sign-in learnt.
    account_id           text COLLATE "C" NOT NULL,
    confirmation_hash    bytea,
    failure_reason       text NOT NULL,
    failure_message      text NOT NULL,
    provider_error       text NOT NULL,
    provider_description text NOT NULL,
    created_by           text NOT NULL,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    expires_at           timestamptz NOT NULL
);
CREATE UNIQUE INDEX authorizations_ticket ON authorizations (ticket_hash);
CREATE INDEX authorizations_app ON authorizations (app_id, id);
CREATE INDEX authorizations_sign_ins ON authorizations (app_id) WHERE intent = 'sign_in' AND state = 'pending';
CREATE INDEX authorizations_owner ON authorizations (tenant, owner, id);
CREATE INDEX authorizations_open ON authorizations (expires_at) WHERE state IN ('pending', 'exchanged', 'awaiting_confirmation');
CREATE INDEX authorizations_closed ON authorizations (updated_at) WHERE state IN ('succeeded', 'failed', 'expired');

-- One row a visit of the link: a link scanner's visit spends nothing of the person's.
CREATE TABLE authorization_visits (
    state_hash       bytea PRIMARY KEY,
    tenant           text COLLATE "C" NOT NULL,
    authorization_id text COLLATE "C" NOT NULL REFERENCES authorizations (id) ON DELETE CASCADE,
    verifier         bytea,
    nonce            bytea,
    cookie_hash      bytea,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    used_at          timestamptz
);
CREATE INDEX authorization_visits_authorization ON authorization_visits (authorization_id);
CREATE INDEX authorization_visits_expiry ON authorization_visits (expires_at);

CREATE TABLE refresh_attempts (
    id              text COLLATE "C" PRIMARY KEY,
    tenant          text COLLATE "C" NOT NULL,
    grant_id        text COLLATE "C" NOT NULL,
    started_at      timestamptz NOT NULL,
    duration_micros bigint NOT NULL,
    trigger         text NOT NULL,
    outcome         text NOT NULL CHECK (outcome IN ('succeeded', 'transient', 'ambiguous', 'grant_dead', 'client_misconfigured', 'superseded')),
    error_code      text NOT NULL,
    error_message   text NOT NULL,
    fingerprint     text NOT NULL,
    new_fingerprint text NOT NULL,
    generation      bigint NOT NULL
);
CREATE INDEX refresh_attempts_grant ON refresh_attempts (tenant, grant_id, id);
CREATE INDEX refresh_attempts_age ON refresh_attempts (started_at);

CREATE TABLE sync_records (
    id              text COLLATE "C" PRIMARY KEY,
    tenant          text COLLATE "C" NOT NULL,
    connection_id   text COLLATE "C" NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    action          text NOT NULL,
    status          text NOT NULL CHECK (status IN ('succeeded', 'partial', 'failed')),
    data_size       bigint NOT NULL,
    duration_micros bigint NOT NULL,
    error           text NOT NULL,
    created_at      timestamptz NOT NULL
);
CREATE INDEX sync_records_connection ON sync_records (connection_id, id);
CREATE INDEX sync_records_age ON sync_records (created_at);
