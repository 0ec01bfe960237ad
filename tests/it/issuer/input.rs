//! Whatever else may be sent.

use super::*;
use crate::fixture::browser::plain_client;

const FORM: &str = "application/x-www-form-urlencoded";

/// Sends these bytes as this type: status, and OAuth's word for it.
async fn sent(s: &Stage, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let request = plain_client().post(s.endpoint(path));
    let request = request.header("content-type", kind).body(body.to_vec());
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
    (
        status,
        json["error"].as_str().unwrap_or_default().to_owned(),
    )
}

const POSTED: [&str; 5] = [
    "oauth2/token",
    "oauth2/revoke",
    "oauth2/introspect",
    "oauth2/device_authorization",
    "oauth2/par",
];

on_both_engines! {
    async fn what_is_too_much_is_not_read(engine: Engine) {
        let s = Stage::new(engine).await;
        let long = format!("token={}", "x".repeat(8_193));
        let many = "x=1&".repeat(65);
        let huge = "x".repeat(20_000);
        for path in POSTED {
            for (body, status) in [(&long, 400), (&many, 400), (&huge, 413)] {
                let got = sent(&s, path, FORM, body.as_bytes()).await;
                assert_eq!(got, (status, "invalid_request".to_owned()), "{path}");
            }
        }
        s.finish().await;
    }

    async fn what_is_no_form_is_not_read(engine: Engine) {
        let s = Stage::new(engine).await;
        let good = s.client.for_itself().encoded();
        let bodies: [(&str, &[u8]); 8] = [
            ("application/json", b"{}"), ("text/plain", good.as_bytes()),
            (FORM, b""), (FORM, b"grant_type=%ff"), (FORM, b"token=a%00b"), (FORM, b"grant_type=a&grant_type=a"),
            (FORM, b"client_id=a&client_id=b"), (FORM, &[0xff; 64]),
        ];
        for path in POSTED {
            for (kind, body) in bodies {
                let (status, error) = sent(&s, path, kind, body).await;
                assert!(status == 400 && ["invalid_request", "invalid_client"].contains(&&*error), "{path} {status} {error}");
            }
        }
        assert_eq!(sent(&s, "oauth2/token", FORM, good.as_bytes()).await.0, 200);
        s.finish().await;
    }

    async fn addresses_and_methods_that_are_not_there(engine: Engine) {
        let s = Stage::new(engine).await;
        for path in POSTED {
            let answer = s.get(path, &[]).await;
            assert_eq!(answer.status, 405, "{path}");
            assert!(answer.header("allow").starts_with("POST"));
        }
        for path in ["", "oauth2", "oauth2/token/", "oauth2/authorize", "oauth2/register", "metrics", "connect/x"] {
            assert_eq!(s.get(path, &[]).await.status, 404, "{path}");
        }
        s.finish().await;
    }

    async fn a_broken_header_is_no_proof(engine: Engine) {
        let s = Stage::new(engine).await;
        let form = Form::new(&[("grant_type", "client_credentials")]);
        for header in ["Basic", "Basic !!!", "Basic YQ==", "Bearer x", "Basic OjpZPTo=", ""] {
            let answer = s.post_with("oauth2/token", &form, &[("authorization", header)]).await;
            answer.refused(401, "invalid_client");
        }
        let one = wire::basic(&s.client.id, &s.client.secret);
        let twice = s.post_with("oauth2/token", &form, &[("authorization", &one), ("authorization", &one)]).await;
        twice.refused(400, "invalid_request");
        let other = form.with("client_id", "client_other");
        s.post_with("oauth2/token", &other, &[("authorization", &one)]).await.refused(400, "invalid_request");
        s.finish().await;
    }

    async fn a_request_without_end_gets_a_page_and_leads_nowhere(engine: Engine) {
        let s = Stage::of(engine, own()).await;
        for (name, size) in [("state", 2_049), ("state", 8_193), ("x", 17_000)] {
            stays(&opened(&s, &s.client.ask().with(name, &"x".repeat(size))).await, "invalid_request");
        }
        let many = (0..65).fold(s.client.ask(), |ask, i| ask.and(&format!("p{i}"), "x"));
        stays(&opened(&s, &many).await, "invalid_request");
        for (name, size) in [("nonce", 513), ("scope", 4_000), ("code_challenge", 4_000), ("dpop_jkt", 4_000)] {
            let page = opened(&s, &s.client.ask().with(name, &"x".repeat(size))).await;
            assert!(page.location_query("error").is_some(), "{name}");
        }
        // A hint that is no address is none.
        assert_eq!(opened(&s, &s.client.ask().with("login_hint", &"x".repeat(4_000))).await.location_query("error"), None);
        s.finish().await;
    }

    async fn a_state_that_would_break_a_header_comes_from_nobody(engine: Engine) {
        let s = Stage::of(engine, own()).await;
        for state in ["a\r\nset-cookie: x=y", "a\u{7}", "a\0b"] {
            stays(&opened(&s, &s.client.ask().with("state", state)).await, "invalid_request");
        }
        s.finish().await;
    }

    async fn every_grant_says_what_it_misses(engine: Engine) {
        let s = Stage::new(engine).await;
        s.token(&s.client.form(&[])).await.refused(400, "invalid_request");
        for kind in ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"] {
            s.token(&s.client.form(&[("grant_type", kind)])).await.refused(400, "invalid_request");
        }
        for kind in ["implicit", "client-credentials", "urn:ietf:params:oauth:grant-type:token-exchange"] {
            s.token(&s.client.form(&[("grant_type", kind)])).await.refused(400, "unsupported_grant_type");
        }
        s.finish().await;
    }
}
