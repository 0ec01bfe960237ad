-- oldest-compatible: 0002_registry
-- Providers that a tenant added to the catalogue, and our registrations at providers.

CREATE TABLE providers (
    tenant     text NOT NULL,
    id         text NOT NULL,
    definition text NOT NULL,
    version    integer NOT NULL,
    created_at integer NOT NULL,
    updated_at integer NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE TABLE apps (
    id                         text PRIMARY KEY,
    tenant                     text NOT NULL,
    provider                   text NOT NULL,
    client_id                  text,
    external_key               text,
    display_name               text NOT NULL,
    client_secret              blob,
    previous_secret            blob,
    previous_secret_expires_at integer,
    default_scopes             text NOT NULL,
    allowed_return_urls        text NOT NULL,
    redirect_uris              text NOT NULL,
    variables                  text NOT NULL,
    workspace_email            text NOT NULL,
    workspace_name             text NOT NULL,
    state                      text NOT NULL CHECK (state IN ('active', 'inactive')),
    misconfiguration           text NOT NULL,
    misconfigured_at           integer,
    version                    integer NOT NULL,
    created_at                 integer NOT NULL,
    updated_at                 integer NOT NULL
) STRICT;
CREATE UNIQUE INDEX apps_client_id ON apps (tenant, client_id);
CREATE UNIQUE INDEX apps_external_key ON apps (tenant, external_key);
CREATE INDEX apps_tenant ON apps (tenant, id);
CREATE INDEX apps_provider ON apps (tenant, provider, id);
