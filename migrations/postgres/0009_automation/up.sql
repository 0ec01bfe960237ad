-- oldest-compatible: 0009_automation
-- Browser automation of authorisations: accounts, browser profiles, jobs, batches.

-- An account at a provider, with what a worker needs to sign in there.
CREATE TABLE automation_accounts (
    id             text COLLATE "C" PRIMARY KEY,
    tenant         text COLLATE "C" NOT NULL,
    provider       text NOT NULL,
    username       text NOT NULL,
    display_name   text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('oauth2', 'oauth1', 'api_key')),
    -- Whose the connection will be.
    owner          text NOT NULL,
    -- The app that it is connected through, or a client of its own; empty for none.
    app_id         text COLLATE "C" REFERENCES apps (id) ON DELETE SET NULL,
    client_id      text NOT NULL,
    -- Sealed.
    client_secret  bytea,
    password       bytea,
    totp_secret    bytea,
    credentials_at timestamptz,
    connection_id  text COLLATE "C" REFERENCES connections (id) ON DELETE SET NULL,
    connected_at   timestamptz,
    labels         jsonb NOT NULL,
    version        bigint NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);
CREATE UNIQUE INDEX automation_accounts_username ON automation_accounts (tenant, provider, username);
CREATE INDEX automation_accounts_tenant ON automation_accounts (tenant, id);
CREATE INDEX automation_accounts_open ON automation_accounts (tenant, id) WHERE connection_id IS NULL;
CREATE INDEX automation_accounts_app ON automation_accounts (app_id);
CREATE INDEX automation_accounts_connection ON automation_accounts (connection_id);

-- A browser profile, kept elsewhere.
CREATE TABLE automation_profiles (
    id             text COLLATE "C" PRIMARY KEY,
    tenant         text COLLATE "C" NOT NULL,
    external_id    text NOT NULL,
    display_name   text NOT NULL,
    execution_mode text NOT NULL CHECK (execution_mode IN ('cloud', 'local')),
    proxy_country  text NOT NULL,
    proxy_type     text NOT NULL,
    account_id     text COLLATE "C" REFERENCES automation_accounts (id) ON DELETE SET NULL,
    captcha        text NOT NULL CHECK (captcha IN ('none', 'detected', 'resolved')),
    captcha_at     timestamptz,
    labels         jsonb NOT NULL,
    version        bigint NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);
CREATE UNIQUE INDEX automation_profiles_external ON automation_profiles (tenant, external_id);
CREATE UNIQUE INDEX automation_profiles_account ON automation_profiles (account_id);
CREATE INDEX automation_profiles_tenant ON automation_profiles (tenant, id);

CREATE TABLE automation_batches (
    tenant       text COLLATE "C" NOT NULL,
    -- The caller's own text, or one made.
    id           text COLLATE "C" NOT NULL,
    display_name text NOT NULL,
    created_by   text NOT NULL,
    -- SHA-256 of what was asked for: the same again is a retry.
    fingerprint  bytea NOT NULL,
    -- How many of the jobs asked for were left out, since another had their unique key.
    skipped      bigint NOT NULL,
    created_at   timestamptz NOT NULL,
    cancelled_at timestamptz,
    -- Set once all its jobs are finished; taken away when one is begun again.
    finished_at  timestamptz,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX automation_batches_open ON automation_batches (created_at) WHERE finished_at IS NULL;
CREATE INDEX automation_batches_finished ON automation_batches (finished_at) WHERE finished_at IS NOT NULL;

-- Jobs. What they name may go before them: they are history, too.
CREATE TABLE automation_jobs (
    id                  text COLLATE "C" PRIMARY KEY,
    tenant              text COLLATE "C" NOT NULL,
    batch_id            text COLLATE "C",
    kind                text COLLATE "C" NOT NULL,
    execution_mode      text NOT NULL CHECK (execution_mode IN ('any', 'cloud', 'local')),
    profile_id          text COLLATE "C",
    account_id          text COLLATE "C",
    app_id              text COLLATE "C",
    provider            text NOT NULL,
    state               text NOT NULL CHECK (state IN ('scheduled', 'pending', 'running', 'retryable', 'snoozed', 'completed', 'failed', 'cancelled')),
    priority            integer NOT NULL,
    -- The place among jobs of its priority, so that batches take turns. Of a scheduled job: how far
    -- behind the first of its batch.
    turn                bigint NOT NULL,
    run_at              timestamptz NOT NULL,
    deadline_at         timestamptz,
    max_attempts        integer NOT NULL CHECK (max_attempts > 0),
    attempt             integer NOT NULL,
    -- The fencing token: grows with every claim.
    lease_token         bigint NOT NULL,
    -- By the database's clock.
    lease_until         timestamptz,
    worker              text NOT NULL,
    unique_key          text,
    -- Which finished states hold the key as well: 1 completed, 2 failed, 4 cancelled.
    unique_states       integer NOT NULL,
    payload             jsonb NOT NULL,
    progress            jsonb NOT NULL,
    failure_reason      text NOT NULL,
    failure_message     text NOT NULL,
    cancel_requested_at timestamptz,
    authorization_id    text COLLATE "C",
    -- Sealed.
    connect_url         bytea,
    connection_id       text COLLATE "C",
    created_by          text NOT NULL,
    created_at          timestamptz NOT NULL,
    finished_at         timestamptz,
    FOREIGN KEY (tenant, batch_id) REFERENCES automation_batches (tenant, id) ON DELETE CASCADE
);
CREATE INDEX automation_jobs_tenant ON automation_jobs (tenant, id);
CREATE INDEX automation_jobs_claim ON automation_jobs (tenant, priority DESC, turn, id) WHERE state = 'pending';
CREATE INDEX automation_jobs_due ON automation_jobs (run_at) WHERE state IN ('scheduled', 'retryable', 'snoozed');
CREATE INDEX automation_jobs_lease ON automation_jobs (lease_until) WHERE state = 'running';
CREATE INDEX automation_jobs_provider ON automation_jobs (tenant, provider) WHERE state = 'running';
CREATE UNIQUE INDEX automation_jobs_running_profile ON automation_jobs (profile_id) WHERE state = 'running' AND profile_id IS NOT NULL;
CREATE INDEX automation_jobs_deadline ON automation_jobs (deadline_at) WHERE deadline_at IS NOT NULL AND finished_at IS NULL;
CREATE UNIQUE INDEX automation_jobs_unique ON automation_jobs (tenant, unique_key) WHERE unique_key IS NOT NULL AND (finished_at IS NULL OR (unique_states & CASE state WHEN 'completed' THEN 1 WHEN 'failed' THEN 2 ELSE 4 END) <> 0);
CREATE INDEX automation_jobs_authorization ON automation_jobs (authorization_id) WHERE authorization_id IS NOT NULL AND finished_at IS NULL;
CREATE INDEX automation_jobs_batch ON automation_jobs (tenant, batch_id, state, id) WHERE batch_id IS NOT NULL;
CREATE INDEX automation_jobs_batch_open ON automation_jobs (tenant, batch_id, id) WHERE batch_id IS NOT NULL AND finished_at IS NULL;
CREATE INDEX automation_jobs_account ON automation_jobs (account_id) WHERE account_id IS NOT NULL AND finished_at IS NULL;
CREATE INDEX automation_jobs_profile ON automation_jobs (profile_id) WHERE profile_id IS NOT NULL AND finished_at IS NULL;
CREATE INDEX automation_jobs_dead ON automation_jobs (tenant, id) WHERE state = 'failed';
CREATE INDEX automation_jobs_finished ON automation_jobs (finished_at) WHERE finished_at IS NOT NULL AND batch_id IS NULL;

-- What happens to jobs is followed as what happens to connections.
ALTER TABLE events ADD COLUMN job_id text COLLATE "C";
ALTER TABLE events ADD COLUMN batch_id text COLLATE "C";
ALTER TABLE events ADD COLUMN detail jsonb;
