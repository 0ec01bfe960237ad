//! Tokens that are bound to a key (RFC 9449), and those who stole the token alone.

use super::*;
use crate::fixture::scene::issuer::proofs::{Holder, seconds};
use crate::jwt::issuer::{Key, text};

/// Asks about the person of an access token, with this scheme and proof.
async fn shown(s: &Stage, scheme: &str, token: &str, proof: &str) -> Answer {
    let value = format!("{scheme} {token}");
    s.get(
        "oauth2/userinfo",
        &[("authorization", &value), ("dpop", proof)],
    )
    .await
}

on_both_engines! {
    async fn a_bound_token_is_of_no_use_without_its_key(engine: Engine) {
        let s = Stage::new(engine).await;
        let (holder, thief) = (Holder::new(), Holder::new());
        let answer = s.token_with(&s.client.redeem(&s.code().await), &holder.proof(&s)).await;
        let tokens = answer.tokens();
        assert_eq!(answer.text("token_type"), "DPoP");
        let said = s.inspect(&tokens.access).await;
        assert_eq!((said.text("token_type"), &said.json["cnf"]["jkt"]), ("DPoP".to_owned(), &json!(holder.thumbprint())));
        assert_eq!(s.introspect(&tokens.access).await.dpop_jkt, holder.thumbprint());
        s.user_info(&tokens.access).await.refused(401, "invalid_token");
        let other = shown(&s, "DPoP", &tokens.access, &thief.proof_of(&s, &tokens.access)).await;
        other.refused(401, "invalid_token");
        assert!(other.header("www-authenticate").starts_with("DPoP "));
        let own = shown(&s, "DPoP", &tokens.access, &holder.proof_of(&s, &tokens.access)).await;
        assert_eq!((own.status, own.text("sub")), (200, s.person.id.clone()));
        s.finish().await;
    }

    async fn proofs_that_are_for_something_else_are_refused(engine: Engine) {
        let s = Stage::new(engine).await;
        let holder = Holder::new();
        let now = seconds(&s);
        let form = s.client.for_itself();
        for change in [
            json!({ "htm": "GET" }), json!({ "htm": null }),
            json!({ "htu": format!("{ISSUER}/oauth2/revoke") }), json!({ "htu": "https://evil.example/oauth2/token" }), json!({ "htu": null }),
            json!({ "iat": now - 61 }), json!({ "iat": now + 61 }), json!({ "iat": null }), json!({ "iat": "now" }),
            json!({ "jti": null }), json!({ "jti": "" }), json!({ "jti": "x".repeat(129) }),
        ] {
            s.token_with(&form, &holder.proof_with(&s, &change)).await.refused(400, "invalid_dpop_proof");
        }
        let query = json!({ "htu": format!("{ISSUER}/oauth2/token?x=1#y"), "iat": now - 59 });
        s.token_with(&form, &holder.proof_with(&s, &query)).await.tokens();
        s.finish().await;
    }

    async fn forged_proofs_are_refused(engine: Engine) {
        let s = Stage::new(engine).await;
        let (holder, other) = (Holder::new(), Holder::new());
        let form = s.client.for_itself();
        let mut private = holder.public();
        private["d"] = json!(text(&[7; 32]));
        for header in [
            json!({ "typ": "JWT" }), json!({ "typ": "at+jwt" }), json!({ "typ": null }),
            json!({ "alg": "none" }), json!({ "alg": "HS256" }), json!({ "alg": "ES384" }),
            json!({ "jwk": null }), json!({ "jwk": other.public() }), json!({ "jwk": private }),
            json!({ "jwk": { "kty": "oct", "k": text(b"secret") } }), json!({ "crit": ["exp"] }),
        ] {
            let proof = holder.proof_as(&s, &header, &json!({}));
            s.token_with(&form, &proof).await.refused(400, "invalid_dpop_proof");
        }
        for proof in ["", "x", "a.b.c"] {
            s.token_with(&form, proof).await.refused(400, "invalid_dpop_proof");
        }
        let (one, two) = (holder.proof(&s), holder.proof(&s));
        s.post_with("oauth2/token", &form, &[("dpop", &one), ("dpop", &two)]).await.refused(400, "invalid_dpop_proof");
        s.finish().await;
    }

    async fn a_proof_is_good_once(engine: Engine) {
        let s = Stage::new(engine).await;
        let proof = Holder::new().proof(&s);
        let form = s.client.for_itself();
        let answers = join_all((0..5).map(|_| s.token_with(&form, &proof))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        s.b.clock.advance(59 * SECOND);
        s.token_with(&form, &proof).await.refused(400, "invalid_dpop_proof");
        s.finish().await;
    }

    async fn a_proof_for_one_token_is_none_for_another(engine: Engine) {
        let s = Stage::new(engine).await;
        let holder = Holder::new();
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let form = s.client.redeem(&s.code().await);
            tokens.push(s.token_with(&form, &holder.proof(&s)).await.tokens().access);
        }
        let first = holder.proof_of(&s, &tokens[0]);
        shown(&s, "DPoP", &tokens[1], &first).await.refused(401, "invalid_dpop_proof");
        shown(&s, "DPoP", &tokens[0], &holder.proof(&s)).await.refused(401, "invalid_dpop_proof");
        shown(&s, "Bearer", &tokens[0], &first).await.refused(401, "invalid_token");
        let bare = s.get("oauth2/userinfo", &[("authorization", &format!("DPoP {}", tokens[0]))]).await;
        bare.refused(401, "invalid_dpop_proof");
        assert_eq!(shown(&s, "DPoP", &tokens[0], &first).await.status, 200);
        s.finish().await;
    }

    async fn a_proof_that_was_made_ahead_lacks_the_nonce(engine: Engine) {
        let s = Stage::with(engine, acme(), |config| config.issuer.require_dpop_nonce = true).await;
        let holder = Holder::new();
        let form = s.client.for_itself();
        let asked = s.token_with(&form, &holder.proof(&s)).await;
        asked.refused(400, "use_dpop_nonce");
        let nonce = asked.header("dpop-nonce").to_owned();
        assert_ne!(nonce, "");
        s.token_with(&form, &holder.proof_with(&s, &json!({ "nonce": "made-up" }))).await.refused(400, "use_dpop_nonce");
        s.token_with(&form, &holder.proof_with(&s, &json!({ "nonce": nonce }))).await.tokens();
        s.b.clock.advance(10 * 60 * SECOND);
        s.token_with(&form, &holder.proof_with(&s, &json!({ "nonce": nonce }))).await.refused(400, "use_dpop_nonce");
        s.finish().await;
    }

    async fn a_stolen_code_is_of_no_use_without_its_key(engine: Engine) {
        let s = Stage::of(engine, pb::Client { require_pkce: Some(false), ..acme() }).await;
        let (holder, thief) = (Holder::new(), Holder::new());
        let ask = s.client.ask().with("dpop_jkt", &holder.thumbprint());
        let form = s.client.redeem(&s.code_for(&ask).await);
        s.token(&form).await.refused(400, "invalid_grant");
        s.token_with(&form, &thief.proof(&s)).await.refused(400, "invalid_grant");
        let tokens = s.token_with(&form, &holder.proof(&s)).await.tokens();
        s.token_with(&form, &thief.proof(&s)).await.refused(400, "invalid_grant");
        assert!(s.is_active(&tokens.access).await);
        stays(&opened(&s, &s.client.ask().with("dpop_jkt", "short")).await, "invalid_request");
        s.finish().await;
    }

    async fn a_public_clients_refresh_token_is_bound_to_its_key(engine: Engine) {
        let s = Stage::of(engine, public()).await;
        let (holder, thief) = (Holder::new(), Holder::new());
        let form = s.client.redeem(&s.code().await);
        let first = s.token_with(&form, &holder.proof(&s)).await.tokens();
        let renew = s.client.renew(&first.refresh);
        s.token(&renew).await.refused(400, "invalid_grant");
        s.token_with(&renew, &thief.proof(&s)).await.refused(400, "invalid_grant");
        let second = s.token_with(&renew, &holder.proof(&s)).await.tokens();
        // Not even after it was used does the thief end anything.
        s.b.clock.advance(60 * SECOND);
        s.token_with(&renew, &thief.proof(&s)).await.refused(400, "invalid_grant");
        assert!(s.is_active(&second.access).await);
        s.finish().await;
    }

    async fn a_confidential_client_may_change_its_key(engine: Engine) {
        let s = Stage::new(engine).await;
        let form = s.client.redeem(&s.code().await);
        let first = s.token_with(&form, &Holder::new().proof(&s)).await.tokens();
        let next = Holder::new();
        let second = s.token_with(&s.client.renew(&first.refresh), &next.proof(&s)).await.tokens();
        assert_eq!(s.introspect(&second.access).await.dpop_jkt, next.thumbprint());
        // A lost answer is for who asked first.
        s.token_with(&s.client.renew(&first.refresh), &Holder::new().proof(&s)).await.refused(400, "invalid_grant");
        assert_eq!(s.ends().await, ["refresh_token_reused"]);
        s.finish().await;
    }

    async fn a_client_that_is_to_prove_its_key_gets_no_bearer_token(engine: Engine) {
        let s = Stage::of(engine, pb::Client { dpop_bound_access_tokens: true, ..acme() }).await;
        s.token(&s.client.for_itself()).await.refused(400, "invalid_dpop_proof");
        let answer = s.token_with(&s.client.for_itself(), &Holder::new().proof(&s)).await;
        assert_eq!((answer.status, answer.text("token_type")), (200, "DPoP".to_owned()));
        s.finish().await;
    }

    async fn a_gateway_passes_proofs_on_over_grpc(engine: Engine) {
        let s = Stage::new(engine).await;
        let holder = Holder::new();
        let tokens = s.token_with(&s.client.redeem(&s.code().await), &holder.proof(&s)).await.tokens();
        let mut server = s.b.admin.authorization_server.clone();
        let dpop = pb::DpopProof { proof: holder.proof_of(&s, &tokens.access), http_method: "GET".to_owned(), http_uri: format!("{ISSUER}/oauth2/userinfo") };
        let request = pb::GetUserInfoRequest { access_token: tokens.access.clone(), dpop: Some(dpop) };
        let info = server.get_user_info(request.clone()).await.unwrap().into_inner();
        assert_eq!(info.subject, s.person.id);
        assert_refused(server.get_user_info(request).await, Code::Unauthenticated, "OAUTH_ERROR");
        let bare = pb::GetUserInfoRequest { access_token: tokens.access, dpop: None };
        assert_refused(server.get_user_info(bare).await, Code::Unauthenticated, "OAUTH_ERROR");
        s.finish().await;
    }

    async fn keys_of_other_kinds_prove_as_well(engine: Engine) {
        let s = Stage::new(engine).await;
        for key in [Key::ed("k"), Key::rsa("k")] {
            let claims = json!({ "jti": format!("{:016x}", fastrand::u64(..)), "htm": "POST", "htu": format!("{ISSUER}/oauth2/token"), "iat": seconds(&s) });
            let proof = key.token_with(json!({ "typ": "dpop+jwt", "jwk": key.jwk(), "kid": null }), &claims);
            s.token_with(&s.client.for_itself(), &proof).await.tokens();
        }
        s.finish().await;
    }
}
