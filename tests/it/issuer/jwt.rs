//! Tokens that are JWTs (RFC 9068), ID tokens, and the keys that both are signed with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use tokenbroker::crypto::digest;
use tokenbroker::grpc::convert::duration;

use super::*;
use crate::jwt::issuer::{Key, text};

/// A client whose access tokens are JWTs.
fn verifying() -> pb::Client {
    pb::Client {
        access_token_format: pb::AccessTokenFormat::Jwt.into(),
        ..acme()
    }
}

fn decoded(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// What clients and resource servers fetch.
async fn keys(s: &Stage) -> Vec<Value> {
    let answer = s.get("oauth2/jwks", &[]).await;
    answer.json["keys"].as_array().unwrap().clone()
}

/// Header and claims of a token whose signature is right by the published keys.
async fn verified(s: &Stage, token: &str) -> (Value, Value) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&decoded(header)).unwrap();
    let keys = keys(s).await;
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let half = |name: &str| decoded(key[name].as_str().unwrap());
    let point = [vec![4], half("x"), half("y")].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(message.as_bytes(), &decoded(signature))
        .unwrap();
    (header, serde_json::from_slice(&decoded(claims)).unwrap())
}

on_both_engines! {
    async fn a_jwt_says_for_whom_and_for_what_it_is(engine: Engine) {
        let api = "https://api.example/";
        let s = Stage::with(engine, verifying(), |config| config.issuer.resources = vec![api.to_owned()]).await;
        let tokens = s.tokens().await;
        let now = proofs::seconds(&s);
        let (header, claims) = verified(&s, &tokens.access).await;
        assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("ES256")));
        let said = s.introspect(&tokens.access).await;
        assert_eq!(claims, json!({
            "iss": ISSUER, "sub": s.person.id, "aud": ISSUER, "client_id": s.client.id, "jti": said.token_id,
            "iat": now, "exp": now + 3_600, "auth_time": now, "scope": "openid read",
        }));
        let own = s.token(&s.client.for_itself().with("resource", api)).await.tokens();
        let (_, claims) = verified(&s, &own.access).await;
        assert_eq!((&claims["sub"], &claims["aud"], &claims["auth_time"]), (&json!(s.client.id), &json!(api), &Value::Null));
        s.finish().await;
    }

    async fn a_jwt_ends_for_who_asks_us_when_it_is_revoked(engine: Engine) {
        let s = Stage::of(engine, verifying()).await;
        let tokens = s.tokens().await;
        assert_eq!(s.user_info(&tokens.access).await.status, 200);
        assert_eq!(s.revoke(&tokens.access).await.status, 200);
        assert_eq!(s.inspect(&tokens.access).await.json, json!({ "active": false }));
        s.user_info(&tokens.access).await.refused(401, "invalid_token");
        let next = s.refresh(&tokens.refresh).await.tokens();
        assert!(tokens.refresh.starts_with("tbf_") && s.is_active(&next.access).await);
        s.finish().await;
    }

    async fn a_jwt_for_something_else_is_no_access_token(engine: Engine) {
        let s = Stage::of(engine, verifying()).await;
        let tokens = s.tokens().await;
        let (header, claims) = verified(&s, &tokens.access).await;
        let key = Key::ec(header["kid"].as_str().unwrap());
        let (message, _) = tokens.access.rsplit_once('.').unwrap();
        let unsigned = format!("{}.{}.", text(br#"{"alg":"none","typ":"at+jwt"}"#), text(claims.to_string().as_bytes()));
        let forged = key.token_with(json!({ "typ": "at+jwt" }), &claims);
        for token in [&tokens.id, &forged, &unsigned, &format!("{message}.{}", text(&[7; 64]))] {
            assert!(!s.is_active(token).await);
            s.user_info(token).await.refused(401, "invalid_token");
        }
        // And the other way round, by what each says that it is.
        let (header, _) = verified(&s, &tokens.id).await;
        assert_eq!(header["typ"], "JWT");
        s.finish().await;
    }

    async fn tokens_are_opaque_where_nobody_asked_for_jwts(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        assert!(tokens.access.starts_with("tba_") && tokens.access.len() == 53);
        let issued = s.issued().await;
        assert!(issued.len() == 2 && issued.iter().all(|it| !it.jwt));
        s.finish().await;
    }

    async fn an_id_token_is_for_this_client_and_this_request(engine: Engine) {
        let s = Stage::new(engine).await;
        let ask = s.client.ask().with("scope", "openid email read").with("nonce", "n-0S6_WzA2Mj");
        let tokens = s.token(&s.client.redeem(&s.code_for(&ask).await)).await.tokens();
        let now = proofs::seconds(&s);
        let (_, claims) = verified(&s, &tokens.id).await;
        let hash = digest::sha256(tokens.access.as_bytes());
        assert_eq!(claims, json!({
            "iss": ISSUER, "sub": s.person.id, "aud": s.client.id, "iat": now, "exp": now + 3_600, "auth_time": now,
            "at_hash": text(&hash[..16]), "nonce": "n-0S6_WzA2Mj", "email": EMAIL, "email_verified": false,
        }));
        let next = s.refresh(&tokens.refresh).await.tokens();
        let (_, claims) = verified(&s, &next.id).await;
        assert_eq!((&claims["sub"], &claims["nonce"]), (&json!(s.person.id), &Value::Null));
        assert_eq!(s.tokens_for("read").await.id, "");
        s.finish().await;
    }

    async fn a_jwt_is_bound_to_its_key(engine: Engine) {
        let s = Stage::of(engine, verifying()).await;
        let holder = proofs::Holder::new();
        let tokens = s.token_with(&s.client.for_itself(), &holder.proof(&s)).await.tokens();
        let (_, claims) = verified(&s, &tokens.access).await;
        assert_eq!(claims["cnf"], json!({ "jkt": holder.thumbprint() }));
        s.finish().await;
    }

    async fn what_a_key_signed_can_be_verified_after_the_next_took_over(engine: Engine) {
        let client = pb::Client { access_token_lifetime: Some(duration(DAY)), ..verifying() };
        let s = Stage::of(engine, client).await;
        let first = keys(&s).await.remove(0);
        // The next one is there before it signs: whoever verifies has it by then.
        s.b.clock.advance(89 * DAY + 12 * HOUR);
        let s = s.restarted().await;
        assert_eq!(keys(&s).await.len(), 2);
        s.b.clock.advance(20 * HOUR);
        let old = s.token(&s.client.for_itself()).await.tokens();
        assert_eq!(verified(&s, &old.access).await.0["kid"], first["kid"]);
        s.b.clock.advance(10 * HOUR);
        let new = s.token(&s.client.for_itself()).await.tokens();
        assert_ne!(verified(&s, &new.access).await.0["kid"], first["kid"]);
        verified(&s, &old.access).await;
        assert!(s.is_active(&old.access).await);
        s.finish().await;
    }

    async fn keys_are_kept_sealed_and_shown_without_their_private_half(engine: Engine) {
        let s = Stage::new(engine).await;
        for key in keys(&s).await {
            let mut names: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        }
        let before = keys(&s).await;
        let s = s.restarted().await;
        assert_eq!(keys(&s).await, before);
        s.finish().await;
    }
}
