//! The tables, as the migrations of both engines leave them.

#![allow(missing_docs, reason = "the migrations describe tables and columns")]

mod automation;
mod clients;
mod issuer;

use diesel::{allow_tables_to_appear_in_same_query, joinable, table};

pub use automation::{
    automation_accounts, automation_batches, automation_jobs, automation_profiles,
};
pub use clients::{oauth_client_secrets, oauth_client_usage, oauth_clients};
pub use issuer::{
    authorization_codes, authorization_requests, device_authorizations, issued_grants,
    issued_tokens, issuer_keys, spent_proofs,
};

table! {
    use diesel::sql_types::{Binary, Integer, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    api_keys (id) {
        id -> Text,
        tenant -> Text,
        name -> Text,
        hash -> Binary,
        prefix -> Text,
        role -> Text,
        grants -> Json,
        rate_limit -> Nullable<Integer>,
        rate_burst -> Nullable<Integer>,
        replaced_by -> Nullable<Text>,
        created_by -> Text,
        created_at -> UtcTimestamp,
        expires_at -> Nullable<UtcTimestamp>,
        revoked_at -> Nullable<UtcTimestamp>,
        last_used_at -> Nullable<UtcTimestamp>,
    }
}

table! {
    use diesel::sql_types::{Binary, Nullable, Text};
    use crate::store::columns::UtcTimestamp;

    idempotent_requests (tenant, rpc, request_id) {
        tenant -> Text,
        rpc -> Text,
        request_id -> Text,
        fingerprint -> Binary,
        resource_id -> Text,
        response -> Nullable<Binary>,
        created_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    providers (tenant, id) {
        tenant -> Text,
        id -> Text,
        definition -> Json,
        version -> BigInt,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    apps (id) {
        id -> Text,
        tenant -> Text,
        provider -> Text,
        client_id -> Nullable<Text>,
        external_key -> Nullable<Text>,
        display_name -> Text,
        client_secret -> Nullable<Binary>,
        previous_secret -> Nullable<Binary>,
        previous_secret_expires_at -> Nullable<UtcTimestamp>,
        default_scopes -> Json,
        allowed_return_urls -> Json,
        redirect_uris -> Json,
        variables -> Json,
        workspace_email -> Text,
        workspace_name -> Text,
        state -> Text,
        misconfiguration -> Text,
        misconfigured_at -> Nullable<UtcTimestamp>,
        version -> BigInt,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    grants (id) {
        id -> Text,
        tenant -> Text,
        app_id -> Text,
        kind -> Text,
        state -> Text,
        state_reason -> Text,
        generation -> BigInt,
        access_token -> Nullable<Binary>,
        refresh_token -> Nullable<Binary>,
        token_secret -> Nullable<Binary>,
        token_type -> Text,
        scopes -> Json,
        metadata -> Json,
        refresh_fingerprint -> Nullable<Text>,
        issued_at -> UtcTimestamp,
        expires_at -> Nullable<UtcTimestamp>,
        refresh_expires_at -> Nullable<UtcTimestamp>,
        absolute_expires_at -> Nullable<UtcTimestamp>,
        refresh_policy -> Text,
        last_refreshed_at -> Nullable<UtcTimestamp>,
        next_refresh_at -> Nullable<UtcTimestamp>,
        notice_at -> Nullable<UtcTimestamp>,
        not_before -> Nullable<UtcTimestamp>,
        failure_count -> Integer,
        last_error -> Text,
        lease_holder -> Nullable<Text>,
        lease_until -> Nullable<UtcTimestamp>,
        attempt_generation -> Nullable<BigInt>,
        attempt_started_at -> Nullable<UtcTimestamp>,
        attempt_retried -> Bool,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    connections (id) {
        id -> Text,
        tenant -> Text,
        app_id -> Text,
        grant_id -> Text,
        provider -> Text,
        owner -> Text,
        account_key -> Text,
        account_id -> Text,
        kind -> Text,
        state -> Text,
        state_reason -> Text,
        display_name -> Text,
        avatar_url -> Text,
        email -> Text,
        team_id -> Text,
        provider_tenant_id -> Text,
        requested_scopes -> Json,
        labels -> Json,
        metadata -> Json,
        refresh_policy -> Text,
        version -> BigInt,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Text};
    use crate::store::columns::UtcTimestamp;

    connection_usage (connection_id) {
        connection_id -> Text,
        tenant -> Text,
        last_used_at -> UtcTimestamp,
        use_count -> BigInt,
        last_caller -> Text,
    }
}

table! {
    use diesel::sql_types::{Binary, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    authorizations (id) {
        id -> Text,
        tenant -> Text,
        app_id -> Text,
        intent -> Text,
        owner -> Text,
        mode -> Text,
        state -> Text,
        ticket_hash -> Nullable<Binary>,
        scopes -> Json,
        return_url -> Text,
        redirect_uri -> Text,
        login_hint -> Text,
        parameters -> Json,
        refresh_policy -> Text,
        renews -> Nullable<Text>,
        connection_id -> Nullable<Text>,
        tokens -> Nullable<Binary>,
        account_id -> Text,
        confirmation_hash -> Nullable<Binary>,
        failure_reason -> Text,
        failure_message -> Text,
        provider_error -> Text,
        provider_description -> Text,
        created_by -> Text,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{Binary, Nullable, Text};
    use crate::store::columns::UtcTimestamp;

    authorization_visits (state_hash) {
        state_hash -> Binary,
        tenant -> Text,
        authorization_id -> Text,
        verifier -> Nullable<Binary>,
        nonce -> Nullable<Binary>,
        cookie_hash -> Nullable<Binary>,
        created_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
        used_at -> Nullable<UtcTimestamp>,
    }
}

table! {
    use diesel::sql_types::{BigInt, Text};
    use crate::store::columns::UtcTimestamp;

    refresh_attempts (id) {
        id -> Text,
        tenant -> Text,
        grant_id -> Text,
        started_at -> UtcTimestamp,
        duration_micros -> BigInt,
        trigger -> Text,
        outcome -> Text,
        error_code -> Text,
        error_message -> Text,
        fingerprint -> Text,
        new_fingerprint -> Text,
        generation -> BigInt,
    }
}

table! {
    use diesel::sql_types::{BigInt, Text};
    use crate::store::columns::UtcTimestamp;

    sync_records (id) {
        id -> Text,
        tenant -> Text,
        connection_id -> Text,
        action -> Text,
        status -> Text,
        data_size -> BigInt,
        duration_micros -> BigInt,
        error -> Text,
        created_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    events (id) {
        id -> BigInt,
        tenant -> Text,
        position -> Nullable<BigInt>,
        #[sql_name = "type"]
        kind -> Text,
        subject -> Text,
        connection_id -> Nullable<Text>,
        app_id -> Nullable<Text>,
        grant_id -> Nullable<Text>,
        owner -> Text,
        provider -> Text,
        generation -> BigInt,
        expires_at -> Nullable<UtcTimestamp>,
        reason -> Text,
        created_at -> UtcTimestamp,
        job_id -> Nullable<Text>,
        batch_id -> Nullable<Text>,
        detail -> Nullable<Json>,
    }
}

table! {
    use diesel::sql_types::{BigInt, Integer, Text};

    event_counter (id) {
        id -> Integer,
        epoch -> Text,
        position -> BigInt,
        trimmed -> BigInt,
    }
}

table! {
    use diesel::sql_types::{BigInt, Bool, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    users (id) {
        id -> Text,
        tenant -> Text,
        email -> Text,
        email_verified -> Bool,
        display_name -> Text,
        search_text -> Text,
        password_hash -> Nullable<Text>,
        role -> Text,
        grants -> Json,
        owner -> Text,
        state -> Text,
        version -> BigInt,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
        last_sign_in_at -> Nullable<UtcTimestamp>,
        password_changed_at -> Nullable<UtcTimestamp>,
        deleted_at -> Nullable<UtcTimestamp>,
    }
}

table! {
    use diesel::sql_types::{BigInt, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    user_preferences (user_id) {
        user_id -> Text,
        tenant -> Text,
        preferences -> Json,
        version -> BigInt,
        updated_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{Binary, Nullable, Text};
    use crate::store::columns::UtcTimestamp;

    sessions (id) {
        id -> Text,
        tenant -> Text,
        user_id -> Text,
        method -> Text,
        token_hash -> Binary,
        refresh_hash -> Binary,
        created_at -> UtcTimestamp,
        issued_at -> UtcTimestamp,
        last_used_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
        refresh_expires_at -> UtcTimestamp,
        ip -> Text,
        user_agent -> Text,
        revoked_at -> Nullable<UtcTimestamp>,
        revoke_reason -> Text,
    }
}

table! {
    use diesel::sql_types::{Binary, Text};
    use crate::store::columns::UtcTimestamp;

    spent_refresh_tokens (hash) {
        hash -> Binary,
        session_id -> Text,
        spent_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{Binary, Integer};
    use crate::store::columns::UtcTimestamp;

    sign_in_failures (subject) {
        subject -> Binary,
        failures -> Integer,
        last_at -> UtcTimestamp,
        blocked_until -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    audit_events (id) {
        id -> Text,
        position -> Nullable<BigInt>,
        tenant -> Text,
        occurred_at -> UtcTimestamp,
        action -> Text,
        success -> Bool,
        reason -> Text,
        actor_kind -> Text,
        actor_id -> Text,
        resource_kind -> Text,
        resource_id -> Text,
        provider -> Text,
        trace_id -> Text,
        details -> Json,
        ip -> Text,
        user_agent -> Text,
        salt -> Nullable<Binary>,
        personal_hash -> Binary,
        erased_by -> Nullable<Text>,
        hash -> Nullable<Binary>,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Integer};

    audit_head (id) {
        id -> Integer,
        position -> BigInt,
        hash -> Binary,
        trimmed -> BigInt,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Text};
    use crate::store::columns::UtcTimestamp;

    audit_checkpoints (position) {
        position -> BigInt,
        hash -> Binary,
        created_at -> UtcTimestamp,
        note -> Text,
    }
}

table! {
    use diesel::sql_types::Text;
    use crate::store::columns::UtcTimestamp;

    schema_migrations (name) {
        name -> Text,
        checksum -> Text,
        oldest_compatible -> Text,
        applied_at -> UtcTimestamp,
    }
}

joinable!(connections -> grants (grant_id));
joinable!(connections -> apps (app_id));
joinable!(grants -> apps (app_id));
joinable!(connection_usage -> connections (connection_id));
joinable!(sync_records -> connections (connection_id));
joinable!(user_preferences -> users (user_id));
joinable!(sessions -> users (user_id));
joinable!(authorizations -> apps (app_id));
joinable!(authorization_visits -> authorizations (authorization_id));
joinable!(issued_grants -> oauth_clients (client_id));
joinable!(issued_grants -> users (user_id));
joinable!(issued_tokens -> issued_grants (grant_id));
joinable!(issued_tokens -> oauth_clients (client_id));
allow_tables_to_appear_in_same_query!(
    apps,
    grants,
    connections,
    connection_usage,
    authorizations,
    authorization_visits,
    refresh_attempts,
    sync_records,
    events,
    users,
    user_preferences,
    sessions,
    spent_refresh_tokens,
);
allow_tables_to_appear_in_same_query!(automation_jobs, automation_batches);
allow_tables_to_appear_in_same_query!(automation_jobs, authorizations);
allow_tables_to_appear_in_same_query!(automation_jobs, events);
allow_tables_to_appear_in_same_query!(event_counter, events);
allow_tables_to_appear_in_same_query!(issued_tokens, issued_grants, oauth_clients, users);
