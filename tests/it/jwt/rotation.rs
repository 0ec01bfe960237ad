//! Keys come and go, and issuers do.

use std::time::Duration;

use serde_json::json;
use tonic::Code;

use super::issuer::Key;
use super::{INVALID, Trust};
use crate::fixture::*;
use crate::on_both_engines;

const HOUR: Duration = Duration::from_secs(3_600);

on_both_engines! {
    async fn a_new_key_is_taken_at_once(engine: Engine) {
        let t = Trust::of(engine).await;
        t.call(&t.token()).await.unwrap();
        let new = Key::ec("k2");
        t.issuer.publish(&[&t.key, &new]);
        t.call(&new.token(&t.claims())).await.unwrap();
        t.call(&t.token()).await.unwrap();
        assert_eq!(t.issuer.fetches(), 2);
        t.b.finish().await;
    }

    async fn a_withdrawn_key_ends_its_tokens_within_jwks_max_age(engine: Engine) {
        let t = Trust::of(engine).await;
        let token = t.key.token(&t.claims_with(json!({ "exp": t.b.clock.now().micros() / 1_000_000 + 20 * 3_600 })));
        t.call(&token).await.unwrap();
        let new = Key::ec("k2");
        t.issuer.publish(&[&new]);
        t.call(&token).await.unwrap();
        t.b.clock.advance(HOUR);
        assert_refused(t.call(&token).await, Code::Unauthenticated, INVALID);
        t.call(&new.token(&t.claims())).await.unwrap();
        t.b.finish().await;
    }

    async fn keys_are_fetched_ahead_of_their_end(engine: Engine) {
        let t = Trust::of(engine).await;
        t.call(&t.token()).await.unwrap();
        t.b.clock.advance(HOUR / 2);
        t.call(&t.token()).await.unwrap();
        assert_eq!(t.issuer.fetches(), 1);
        t.b.clock.advance(HOUR / 4);
        t.call(&t.token()).await.unwrap();
        eventually("the keys are fetched on the side", || async { t.issuer.fetches() == 2 }).await;
        t.b.finish().await;
    }

    async fn a_key_without_a_name_may_be_replaced(engine: Engine) {
        let t = Trust::of(engine).await;
        let nameless = |key: &Key| {
            let mut jwk = key.jwk();
            jwk.as_object_mut().unwrap().remove("kid");
            json!({ "keys": [jwk] }).to_string()
        };
        let token = |key: &Key| key.token_with(json!({ "kid": null }), &t.claims());
        t.issuer.publish_text(&nameless(&t.key));
        t.call(&token(&t.key)).await.unwrap();
        let new = Key::ec("");
        t.issuer.publish_text(&nameless(&new));
        t.call(&token(&new)).await.unwrap();
        assert_refused(t.call(&token(&t.key)).await, Code::Unauthenticated, INVALID);
        t.b.finish().await;
    }

    async fn one_key_must_be_meant(engine: Engine) {
        let t = Trust::of(engine).await;
        let second = Key::ec("k1");
        // The same key told twice is one; two keys of one name are none.
        t.issuer.publish(&[&t.key, &t.key]);
        t.call(&t.token()).await.unwrap();
        t.issuer.publish(&[&t.key, &second]);
        t.b.clock.advance(HOUR);
        assert_refused(t.call(&t.token()).await, Code::Unauthenticated, INVALID);
        t.b.finish().await;
    }

    async fn known_keys_serve_while_the_issuer_is_down(engine: Engine) {
        let t = Trust::of(engine).await;
        t.call(&t.token()).await.unwrap();
        t.issuer.set_down(true);
        let unknown = Key::ec("k2");
        assert_refused(t.call(&unknown.token(&t.claims())).await, Code::Unavailable, "UNAVAILABLE");
        for _ in 0..3 {
            t.b.clock.advance(2 * HOUR);
            t.call(&t.token()).await.unwrap();
        }
        t.b.clock.advance(24 * HOUR);
        assert_refused(t.call(&t.token()).await, Code::Unavailable, "UNAVAILABLE");
        t.b.finish().await;
    }

    async fn an_issuer_that_was_never_reached_is_asked_again(engine: Engine) {
        let t = Trust::of(engine).await;
        t.issuer.set_down(true);
        for _ in 0..3 {
            assert_refused(t.call(&t.token()).await, Code::Unavailable, "UNAVAILABLE");
        }
        assert_eq!(t.issuer.fetches(), 1);
        t.issuer.set_down(false);
        t.b.clock.advance(Duration::from_secs(30));
        t.call(&t.token()).await.unwrap();
        t.b.finish().await;
    }

    async fn a_key_set_beyond_measure_is_refused(engine: Engine) {
        let t = Trust::of(engine).await;
        let keys: Vec<_> = (0..101).map(|_| t.key.jwk()).collect();
        let padding = "x".repeat(256 * 1_024);
        for body in [
            json!({ "keys": keys }).to_string(),
            json!({ "keys": [t.key.jwk()], "padding": padding }).to_string(),
            "<html>".to_owned(),
        ] {
            t.issuer.publish_text(&body);
            assert_refused(t.call(&t.token()).await, Code::Unavailable, "UNAVAILABLE");
            t.b.clock.advance(Duration::from_secs(30));
        }
        t.b.finish().await;
    }
}
