//! The tables of our own authorisation server.

use diesel::table;

table! {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    issued_grants (id) {
        id -> Text,
        tenant -> Text,
        client_id -> Text,
        user_id -> Text,
        scopes -> Json,
        resources -> Json,
        dpop_jkt -> Text,
        generation -> BigInt,
        auth_time -> UtcTimestamp,
        ip -> Text,
        user_agent -> Text,
        created_at -> UtcTimestamp,
        last_issued_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
        revoked_at -> Nullable<UtcTimestamp>,
        revoke_reason -> Text,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    device_authorizations (id) {
        id -> Text,
        tenant -> Text,
        client_id -> Text,
        device_code_hash -> Binary,
        user_code_hash -> Binary,
        scopes -> Json,
        resources -> Json,
        state -> Text,
        grant_id -> Nullable<Text>,
        interval_seconds -> BigInt,
        polled_at -> Nullable<UtcTimestamp>,
        ip -> Text,
        user_agent -> Text,
        created_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{Binary, Bool, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    authorization_requests (id) {
        id -> Text,
        tenant -> Text,
        client_id -> Text,
        device_id -> Nullable<Text>,
        redirect_uri -> Text,
        redirect_uri_sent -> Bool,
        scopes -> Json,
        resources -> Json,
        client_state -> Text,
        nonce -> Text,
        code_challenge -> Text,
        dpop_jkt -> Text,
        login_hint -> Text,
        request_uri_hash -> Nullable<Binary>,
        cookie_hash -> Nullable<Binary>,
        state -> Text,
        user_id -> Nullable<Text>,
        auth_time -> Nullable<UtcTimestamp>,
        granted_scopes -> Json,
        error -> Text,
        error_description -> Text,
        ip -> Text,
        user_agent -> Text,
        created_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{Binary, Bool, Nullable, Text};
    use crate::store::columns::UtcTimestamp;

    authorization_codes (hash) {
        hash -> Binary,
        tenant -> Text,
        client_id -> Text,
        grant_id -> Text,
        redirect_uri -> Text,
        redirect_uri_sent -> Bool,
        client_state -> Text,
        nonce -> Text,
        code_challenge -> Text,
        dpop_jkt -> Text,
        ip -> Text,
        user_agent -> Text,
        created_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
        consumed_at -> Nullable<UtcTimestamp>,
        keep_until -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    issued_tokens (id) {
        id -> Text,
        hash -> Binary,
        tenant -> Text,
        client_id -> Text,
        grant_id -> Nullable<Text>,
        kind -> Text,
        format -> Text,
        scopes -> Json,
        resources -> Json,
        dpop_jkt -> Text,
        generation -> BigInt,
        created_at -> UtcTimestamp,
        expires_at -> UtcTimestamp,
        revoked_at -> Nullable<UtcTimestamp>,
        revoke_reason -> Text,
        consumed_at -> Nullable<UtcTimestamp>,
        reuse_count -> Integer,
        successor -> Nullable<Binary>,
        use_count -> BigInt,
        last_used_at -> Nullable<UtcTimestamp>,
        ip -> Text,
        user_agent -> Text,
        keep_until -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::{Binary, Text};
    use crate::store::columns::{Json, UtcTimestamp};

    issuer_keys (id) {
        id -> Text,
        private_key -> Binary,
        public_jwk -> Json,
        created_at -> UtcTimestamp,
        signs_from -> UtcTimestamp,
        signs_until -> UtcTimestamp,
        expires_at -> UtcTimestamp,
    }
}

table! {
    use diesel::sql_types::Binary;
    use crate::store::columns::UtcTimestamp;

    spent_proofs (hash) {
        hash -> Binary,
        expires_at -> UtcTimestamp,
    }
}
