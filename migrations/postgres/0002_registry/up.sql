-- oldest-compatible: 0002_registry
-- Providers that a tenant added to the catalogue, and our registrations at providers.

CREATE TABLE providers (
    tenant     text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    definition jsonb NOT NULL,
    version    bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE apps (
    id                         text COLLATE "C" PRIMARY KEY,
    tenant                     text COLLATE "C" NOT NULL,
    provider                   text COLLATE "C" NOT NULL,
    client_id                  text COLLATE "C",
    external_key               text COLLATE "C",
    display_name               text NOT NULL,
    client_secret              bytea,
    previous_secret            bytea,
    previous_secret_expires_at timestamptz,
    default_scopes             jsonb NOT NULL,
    allowed_return_urls        jsonb NOT NULL,
    redirect_uris              jsonb NOT NULL,
    variables                  jsonb NOT NULL,
    workspace_email            text NOT NULL,
    workspace_name             text NOT NULL,
    state                      text NOT NULL CHECK (state IN ('active', 'inactive')),
    misconfiguration           text NOT NULL,
    misconfigured_at           timestamptz,
    version                    bigint NOT NULL,
    created_at                 timestamptz NOT NULL,
    updated_at                 timestamptz NOT NULL
);
CREATE UNIQUE INDEX apps_client_id ON apps (tenant, client_id);
CREATE UNIQUE INDEX apps_external_key ON apps (tenant, external_key);
CREATE INDEX apps_tenant ON apps (tenant, id);
CREATE INDEX apps_provider ON apps (tenant, provider, id);
