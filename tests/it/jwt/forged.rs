//! Tokens that an attacker, or a careless issuer, would send.

use ring::hmac;
use serde_json::json;
use tonic::Code;

use super::issuer::{Issuer, Key, assembled, text};
use super::{INVALID, Trust};
use crate::fixture::*;
use crate::on_both_engines;

on_both_engines! {
    async fn alg_none_is_refused(engine: Engine) {
        let t = Trust::of(engine).await;
        for alg in ["none", "None", "NONE", "nOnE"] {
            let token = assembled(&json!({ "alg": alg, "kid": "k1" }), &t.claims(), |_| Vec::new());
            assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
        }
        assert_eq!(t.issuer.fetches(), 0);
        t.b.finish().await;
    }

    async fn hs256_with_the_public_key_is_refused(engine: Engine) {
        let t = Trust::in_key(engine, Key::rsa("k1")).await;
        let jwk = t.key.jwk();
        let modulus = jwk["n"].as_str().unwrap();
        for secret in [modulus.to_owned(), jwk.to_string(), include_str!("rsa.pem").to_owned()] {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let sign = |message: &[u8]| hmac::sign(&secret, message).as_ref().to_vec();
            let token = assembled(&json!({ "alg": "HS256", "kid": "k1" }), &t.claims(), sign);
            assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
        }
        t.b.finish().await;
    }

    async fn another_audience_is_refused(engine: Engine) {
        let t = Trust::of(engine).await;
        for aud in [json!("other"), json!(["other", "tokenbroker2"]), json!([]), json!({ "tokenbroker": 1 }), json!(null)] {
            let token = t.key.token(&t.claims_with(json!({ "aud": aud })));
            assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
        }
        t.call(&t.key.token(&t.claims_with(json!({ "aud": "tokenbroker" })))).await.unwrap();
        t.b.finish().await;
    }

    async fn another_issuer_is_refused_whoever_signed(engine: Engine) {
        let t = Trust::of(engine).await;
        let longer = format!("{}/", t.issuer.url);
        for iss in [json!("https://evil.example"), json!(longer), json!([t.issuer.url]), json!(null)] {
            let token = t.key.token(&t.claims_with(json!({ "iss": iss })));
            assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
        }
        assert_eq!(t.issuer.fetches(), 0);
        t.b.finish().await;
    }

    async fn one_issuer_can_not_speak_for_another(engine: Engine) {
        let (ours, theirs) = (Key::ec("k1"), Key::ec("k1"));
        let one = Issuer::start(&[&ours]).await;
        let other = Issuer::start(&[&theirs]).await;
        let mut second = other.trusted();
        second.name = "other".to_owned();
        let trusted = vec![one.trusted(), second];
        let b = Broker::start_with(engine, |config| config.access.jwt = trusted).await;
        let claims = one.claims("team-1", b.clock.now());
        crate::jwt::call(&b, &ours.token(&claims)).await.unwrap();
        assert_refused(crate::jwt::call(&b, &theirs.token(&claims)).await, Code::Unauthenticated, INVALID);
        b.finish().await;
    }

    async fn a_changed_payload_is_refused(engine: Engine) {
        let t = Trust::of(engine).await;
        let token = t.token();
        t.call(&token).await.unwrap();
        let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
        parts[1] = text(t.claims_with(json!({ "sub": "admin" })).to_string().as_bytes());
        assert_refused(t.call(&parts.join(".")).await, Code::Unauthenticated, INVALID);
        let half = &token[..token.len() - 8];
        for other in [half.to_owned(), format!("{token}AA"), format!("{token}."), token.replace('.', ""), "a.b.c".to_owned()] {
            assert_refused(t.call(&other).await, Code::Unauthenticated, INVALID);
        }
        t.b.finish().await;
    }

    async fn an_embedded_key_is_no_proof(engine: Engine) {
        let t = Trust::of(engine).await;
        let own = Key::ec("k1");
        let elsewhere = format!("{}/evil", t.issuer.url);
        for more in [
            json!({ "jwk": own.jwk() }),
            json!({ "jku": elsewhere }),
            json!({ "x5u": elsewhere }),
            json!({ "jwk": own.jwk(), "kid": null }),
        ] {
            let token = own.token_with(more, &t.claims());
            assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
        }
        t.b.finish().await;
    }

    async fn a_key_is_not_used_for_what_it_is_not_for(engine: Engine) {
        let (rsa, ec) = (Key::rsa("rsa"), Key::ec("ec"));
        let issuer = Issuer::start(&[&rsa, &ec]).await;
        let trusted = issuer.trusted();
        let b = Broker::start_with(engine, |config| config.access.jwt = vec![trusted]).await;
        let claims = issuer.claims("team-1", b.clock.now());
        let confused = [
            ec.token_with(json!({ "kid": "rsa" }), &claims),
            ec.token_with(json!({ "kid": "rsa", "alg": "RS256" }), &claims),
            rsa.token_with(json!({ "kid": "ec" }), &claims),
            rsa.token_with(json!({ "alg": "RS512" }), &claims),
            rsa.token_with(json!({ "alg": "PS384" }), &claims),
        ];
        for token in confused {
            assert_refused(crate::jwt::call(&b, &token).await, Code::Unauthenticated, INVALID);
        }
        assert_eq!(issuer.fetches(), 1);
        b.finish().await;
    }

    async fn what_is_critical_and_not_understood_is_refused(engine: Engine) {
        let t = Trust::of(engine).await;
        for crit in [json!(["b64"]), json!([]), json!("exp")] {
            let token = t.key.token_with(json!({ "crit": crit, "b64": false }), &t.claims());
            assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
        }
        t.b.finish().await;
    }

    async fn a_token_must_say_when_it_ends_and_soon(engine: Engine) {
        let t = Trust::of(engine).await;
        let now = t.b.clock.now().micros() / 1_000_000;
        let day = 86_400;
        for (change, why) in [
            (json!({ "exp": null }), INVALID),
            (json!({ "exp": "tomorrow" }), INVALID),
            (json!({ "exp": now + day + 60 }), INVALID),
            (json!({ "exp": now + day + 60, "iat": null }), INVALID),
            (json!({ "exp": 1e300 }), INVALID),
            (json!({ "exp": now - 31 }), "CREDENTIALS_EXPIRED"),
            (json!({ "exp": 0 }), "CREDENTIALS_EXPIRED"),
            (json!({ "nbf": now + 60 }), INVALID),
            (json!({ "nbf": "now" }), INVALID),
            (json!({ "iat": now + 60 }), INVALID),
            (json!({ "sub": null }), INVALID),
            (json!({ "sub": "" }), INVALID),
            (json!({ "sub": "s".repeat(250) }), INVALID),
            (json!({ "sub": "two\nlines" }), INVALID),
        ] {
            let token = t.key.token(&t.claims_with(change.clone()));
            let answer = t.call(&token).await;
            let status = answer.expect_err(&change.to_string());
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, why), "{change}");
        }
        for change in [json!({ "exp": now - 29 }), json!({ "nbf": now + 29 }), json!({ "exp": now + day })] {
            t.call(&t.key.token(&t.claims_with(change))).await.unwrap();
        }
        t.b.finish().await;
    }

    async fn an_oversized_token_is_refused(engine: Engine) {
        let t = Trust::of(engine).await;
        let token = t.key.token(&t.claims_with(json!({ "padding": "x".repeat(7_000) })));
        assert!(token.len() > 8 * 1_024);
        assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
        assert_eq!(t.issuer.fetches(), 0);
        t.b.finish().await;
    }

    async fn an_unknown_kid_is_refused_and_asked_for_once_in_a_while(engine: Engine) {
        let t = Trust::of(engine).await;
        let names = ["k2", "K1", "", "../../k1", "https://evil.example/keys", "k1' OR '1'='1"];
        // The right key signs them: its name alone is wrong.
        let refuse = async || {
            for kid in names {
                let token = t.key.token_with(json!({ "kid": kid }), &t.claims());
                assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
            }
        };
        t.call(&t.token()).await.unwrap();
        for fetches in [2, 3] {
            refuse().await;
            refuse().await;
            assert_eq!(t.issuer.fetches(), fetches);
            t.b.clock.advance(std::time::Duration::from_secs(30));
        }
        t.call(&t.token()).await.unwrap();
        t.b.finish().await;
    }

    async fn a_flood_of_unknown_keys_is_one_fetch(engine: Engine) {
        let t = Trust::of(engine).await;
        t.call(&t.token()).await.unwrap();
        assert_eq!(t.issuer.fetches(), 1);
        for round in 0..3 {
            let stranger = |number: usize| Key::ec(&format!("unknown-{round}-{number}")).token(&t.claims());
            let tokens: Vec<_> = (0..20).map(stranger).collect();
            let calls = tokens.iter().map(|token| t.call(token));
            for answer in futures_util::future::join_all(calls).await {
                assert_refused(answer, Code::Unauthenticated, INVALID);
            }
            assert_eq!(t.issuer.fetches(), 2 + round, "round {round}");
            t.b.clock.advance(std::time::Duration::from_secs(30));
        }
        t.call(&t.token()).await.unwrap();
        t.b.finish().await;
    }
}
