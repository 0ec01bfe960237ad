//! What we offer, for clients to read (RFC 8414, OpenID Connect Discovery 1.0).

use serde_json::{Value, json};

use super::Issuer;
use crate::crypto::jwt::ALGORITHMS;

/// Scopes that every installation knows.
const SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

impl Issuer {
    /// The metadata. `issuer` in it is what `iss` says everywhere else.
    pub fn metadata(&self) -> Value {
        let config = &self.parts.config;
        let endpoint = |path: &str| config.endpoint(path);
        let pages = self.parts.web_url.as_str().trim_end_matches('/');
        let own = config.scopes.keys().map(String::as_str);
        let own = own.filter(|scope| !SCOPES.contains(scope));
        let scopes: Vec<&str> = SCOPES.into_iter().chain(own).collect();
        let confidential = json!([
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt"
        ]);
        let all = json!([
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "none"
        ]);
        json!({
            "issuer": config.identifier(),
            "authorization_endpoint": format!("{pages}/oauth2/authorize"),
            "token_endpoint": endpoint("oauth2/token"),
            "revocation_endpoint": endpoint("oauth2/revoke"),
            "introspection_endpoint": endpoint("oauth2/introspect"),
            "device_authorization_endpoint": endpoint("oauth2/device_authorization"),
            "pushed_authorization_request_endpoint": endpoint("oauth2/par"),
            "userinfo_endpoint": endpoint("oauth2/userinfo"),
            "jwks_uri": endpoint("oauth2/jwks"),
            "scopes_supported": scopes,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": [
                "authorization_code",
                "refresh_token",
                "client_credentials",
                "urn:ietf:params:oauth:grant-type:device_code",
            ],
            "token_endpoint_auth_methods_supported": all,
            "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
            "revocation_endpoint_auth_methods_supported": all,
            "revocation_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
            "introspection_endpoint_auth_methods_supported": confidential,
            "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "dpop_signing_alg_values_supported": ALGORITHMS,
            "require_pushed_authorization_requests": false,
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "claim_types_supported": ["normal"],
            "claims_supported": [
                "iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "email",
                "email_verified", "name",
            ],
            "claims_parameter_supported": false,
            "request_parameter_supported": false,
            // True where it is not said. Only what was pushed here is taken (RFC 9126).
            "request_uri_parameter_supported": false,
        })
    }
}
