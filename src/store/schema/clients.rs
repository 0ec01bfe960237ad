//! The tables of OAuth clients.

use diesel::table;

table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    oauth_clients (id) {
        id -> Text,
        tenant -> Text,
        name -> Text,
        description -> Text,
        logo_url -> Text,
        homepage_url -> Text,
        auth_method -> Text,
        jwks -> Text,
        jwks_uri -> Text,
        redirect_uris -> Json,
        grant_types -> Json,
        response_types -> Json,
        scopes -> Json,
        access_token_seconds -> BigInt,
        refresh_token_seconds -> BigInt,
        require_pkce -> Bool,
        trusted -> Bool,
        rate_limit_per_hour -> Nullable<Integer>,
        webhook_url -> Text,
        webhook_secret -> Nullable<Binary>,
        webhook_events -> Json,
        state -> Text,
        state_reason -> Text,
        state_changed_at -> UtcTimestamp,
        created_by -> Text,
        version -> BigInt,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
        deleted_at -> Nullable<UtcTimestamp>,
        access_token_format -> Text,
        dpop_bound -> Bool,
        require_pushed -> Bool,
    }
}

table! {
    use diesel::sql_types::{Binary, Nullable, Text};
    use crate::store::columns::UtcTimestamp;

    oauth_client_secrets (hash) {
        hash -> Binary,
        tenant -> Text,
        client_id -> Text,
        prefix -> Text,
        created_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
        superseded_at -> Nullable<UtcTimestamp>,
    }
}

table! {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use crate::store::columns::UtcTimestamp;

    oauth_client_usage (client_id) {
        client_id -> Text,
        tenant -> Text,
        authorizations -> BigInt,
        tokens -> BigInt,
        last_used_at -> Nullable<UtcTimestamp>,
    }
}
