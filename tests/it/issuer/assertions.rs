//! Clients that prove themselves by a JWT that they sign (RFC 7523).

use super::*;
use crate::fixture::scene::issuer::proofs::{asserted, asserting, assertion, seconds, signing};
use crate::jwt::issuer::{Issuer, Key};

/// A client that publishes its keys at an address.
async fn publishing(engine: Engine, key: &Key, address: &str) -> Stage {
    let client = pb::Client {
        jwks: String::new(),
        jwks_uri: address.replace("http:", "https:"),
        ..signing(key)
    };
    let s = Stage::of(engine, client).await;
    publishes_at(&s, address).await;
    s
}

/// Only https is registered, and nobody has a certificate here.
async fn publishes_at(s: &Stage, address: &str) {
    let moved = format!("UPDATE oauth_clients SET jwks_uri = '{address}'");
    s.b.ground.execute(&moved).await;
}

on_both_engines! {
    async fn a_client_proves_itself_by_what_it_signs(engine: Engine) {
        let key = Key::ec("k1");
        let s = Stage::of(engine, signing(&key)).await;
        for audience in [json!(ISSUER), json!([ISSUER])] {
            let text = key.token(&assertion(&s, &json!({ "aud": audience })));
            s.token(&asserted(&text)).await.tokens();
        }
        let request = asserting(&s.client, &key.token(&assertion(&s, &json!({}))));
        let mut server = s.b.admin.authorization_server.clone();
        let given = server.exchange_token(request).await.unwrap().into_inner();
        leaks::Secrets::register_as("access token", &given.access_token);
        s.finish().await;
    }

    async fn an_assertion_for_another_server_is_refused(engine: Engine) {
        let key = Key::ec("k1");
        let s = Stage::of(engine, signing(&key)).await;
        let endpoint = format!("{ISSUER}/oauth2/token");
        for audience in [
            json!(null), json!(endpoint), json!(format!("{ISSUER}/")), json!("https://other.example"),
            json!([ISSUER, "https://other.example"]), json!([]),
        ] {
            let text = key.token(&assertion(&s, &json!({ "aud": audience })));
            s.token(&asserted(&text)).await.refused(400, "invalid_client");
        }
        s.finish().await;
    }

    async fn a_forged_assertion_is_refused(engine: Engine) {
        let (key, other) = (Key::ec("k1"), Key::ec("k1"));
        let s = Stage::of(engine, signing(&key)).await;
        let now = seconds(&s);
        let good = assertion(&s, &json!({}));
        let wrong = [
            other.token(&good),
            key.token_with(json!({ "alg": "none" }), &good),
            key.token_with(json!({ "alg": "HS256" }), &good),
            key.token_with(json!({ "typ": "dpop+jwt" }), &good),
            key.token(&assertion(&s, &json!({ "iss": "client_other" }))),
            key.token(&assertion(&s, &json!({ "sub": "client_other" }))),
            key.token(&assertion(&s, &json!({ "exp": null }))),
            key.token(&assertion(&s, &json!({ "exp": now }))),
            key.token(&assertion(&s, &json!({ "exp": now + 3_600 }))),
            key.token(&assertion(&s, &json!({ "iat": now + 60 }))),
            key.token(&assertion(&s, &json!({ "jti": null }))),
        ];
        for text in wrong {
            s.token(&asserted(&text)).await.refused(400, "invalid_client");
        }
        s.token(&asserted(&key.token(&good))).await.tokens();
        s.finish().await;
    }

    async fn an_assertion_is_good_once(engine: Engine) {
        let key = Key::ec("k1");
        let s = Stage::of(engine, signing(&key)).await;
        let text = key.token(&assertion(&s, &json!({})));
        let answers = join_all((0..5).map(|_| { let s = &s; let form = asserted(&text); async move { s.token(&form).await } })).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        s.token(&asserted(&text)).await.refused(400, "invalid_client");
        s.finish().await;
    }

    async fn nobody_speaks_for_another_client(engine: Engine) {
        let key = Key::ec("k1");
        let s = Stage::of(engine, signing(&key)).await;
        let other = register(&s.b, signing(&Key::ec("k2"))).await;
        let theirs = key.token(&assertion(&s, &json!({ "iss": other.id, "sub": other.id })));
        s.token(&asserted(&theirs)).await.refused(400, "invalid_client");
        let own = key.token(&assertion(&s, &json!({})));
        s.token(&asserted(&own).with("client_id", &other.id)).await.refused(400, "invalid_client");
        s.token(&asserted(&own).with("client_assertion_type", "urn:other")).await.refused(400, "invalid_request");
        s.token(&asserted(&own).with("client_secret", "hush-hush-hush")).await.refused(400, "invalid_request");
        s.token(&asserted(&own).with("client_id", &s.client.id)).await.tokens();
        s.finish().await;
    }

    async fn keys_are_fetched_where_the_client_publishes_them(engine: Engine) {
        let (key, next) = (Key::ec("k1"), Key::ec("k2"));
        let published = Issuer::start(&[&key]).await;
        let s = publishing(engine, &key, &format!("{}/keys", published.url)).await;
        let text = key.token(&assertion(&s, &json!({})));
        s.token(&asserted(&text)).await.tokens();
        published.publish(&[&next]);
        s.b.clock.advance(60 * SECOND);
        let text = next.token(&assertion(&s, &json!({})));
        s.token(&asserted(&text)).await.tokens();
        assert_eq!(published.fetches(), 2);
        s.finish().await;
    }

    async fn a_client_whose_keys_can_not_be_had_is_told_to_try_again(engine: Engine) {
        let (key, forged) = (Key::ec("k1"), Key::ec("k1"));
        let s = publishing(engine, &key, &format!("http://127.0.0.1:{}/keys", free_port())).await;
        for _ in 0..40 {
            let text = key.token(&assertion(&s, &json!({})));
            s.token(&asserted(&text)).await.refused(503, "temporarily_unavailable");
        }
        assert_eq!(recorded(&s.b, &["client.authentication_failed", &s.client.id]).await, 0);
        let published = Issuer::start(&[&key]).await;
        publishes_at(&s, &format!("{}/keys", published.url)).await;
        s.token(&asserted(&forged.token(&assertion(&s, &json!({}))))).await.refused(400, "invalid_client");
        s.token(&asserted(&key.token(&assertion(&s, &json!({}))))).await.tokens();
        s.finish().await;
    }

    async fn nobody_waits_for_a_slow_publisher_but_who_asked_it(engine: Engine) {
        let key = Key::ec("k1");
        let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let s = publishing(engine, &key, &format!("http://{}/keys", slow.local_addr().unwrap())).await;
        let [first, second] = [(); 2].map(|()| asserted(&key.token(&assertion(&s, &json!({})))));
        let meanwhile = async {
            let asked = slow.accept().await.unwrap();
            s.token(&second).await.refused(503, "temporarily_unavailable");
            drop((asked, slow));
        };
        let (answer, ()) = join(s.token(&first), meanwhile).await;
        answer.refused(503, "temporarily_unavailable");
        s.finish().await;
    }
}
