//! The tables of browser automation.

use diesel::table;

table! {
    use diesel::sql_types::{BigInt, Binary, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    automation_accounts (id) {
        id -> Text,
        tenant -> Text,
        provider -> Text,
        username -> Text,
        display_name -> Text,
        kind -> Text,
        owner -> Text,
        app_id -> Nullable<Text>,
        client_id -> Text,
        client_secret -> Nullable<Binary>,
        password -> Nullable<Binary>,
        totp_secret -> Nullable<Binary>,
        credentials_at -> Nullable<UtcTimestamp>,
        connection_id -> Nullable<Text>,
        connected_at -> Nullable<UtcTimestamp>,
        labels -> Json,
        version -> BigInt,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    automation_profiles (id) {
        id -> Text,
        tenant -> Text,
        external_id -> Text,
        display_name -> Text,
        execution_mode -> Text,
        proxy_country -> Text,
        proxy_type -> Text,
        account_id -> Nullable<Text>,
        captcha -> Text,
        captcha_at -> Nullable<UtcTimestamp>,
        labels -> Json,
        version -> BigInt,
        created_at -> UtcTimestamp,
        updated_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Nullable, Text};
    use crate::store::columns::UtcTimestamp;

    automation_batches (tenant, id) {
        tenant -> Text,
        id -> Text,
        display_name -> Text,
        created_by -> Text,
        fingerprint -> Binary,
        skipped -> BigInt,
        created_at -> UtcTimestamp,
        cancelled_at -> Nullable<UtcTimestamp>,
        finished_at -> Nullable<UtcTimestamp>,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    automation_jobs (id) {
        id -> Text,
        tenant -> Text,
        batch_id -> Nullable<Text>,
        kind -> Text,
        execution_mode -> Text,
        profile_id -> Nullable<Text>,
        account_id -> Nullable<Text>,
        app_id -> Nullable<Text>,
        provider -> Text,
        state -> Text,
        priority -> Integer,
        turn -> BigInt,
        run_at -> UtcTimestamp,
        deadline_at -> Nullable<UtcTimestamp>,
        max_attempts -> Integer,
        attempt -> Integer,
        lease_token -> BigInt,
        lease_until -> Nullable<UtcTimestamp>,
        worker -> Text,
        unique_key -> Nullable<Text>,
        unique_states -> Integer,
        payload -> Json,
        progress -> Json,
        failure_reason -> Text,
        failure_message -> Text,
        cancel_requested_at -> Nullable<UtcTimestamp>,
        authorization_id -> Nullable<Text>,
        connect_url -> Nullable<Binary>,
        connection_id -> Nullable<Text>,
        created_by -> Text,
        created_at -> UtcTimestamp,
        finished_at -> Nullable<UtcTimestamp>,
    }
}
