//! Session fixation: nobody chooses a session for somebody else.

use tonic::Code;

use super::{EMAIL, SignedIn, by_password, person, revoke, signed_in, whoami};
use crate::fixture::*;
use crate::on_both_engines;

on_both_engines! {
    async fn session_fixation_by_a_token_that_an_attacker_chose(engine: Engine) {
        use tokenbroker::access::bearer::{BearerSecret, Prefix};
        use secrecy::ExposeSecret as _;
        let b = Broker::start(engine).await;
        let ada = person(&b, EMAIL).await;
        let chosen = BearerSecret::generate(Prefix::Session);
        let chosen = chosen.text().expose_secret();
        let mut with_it = b.caller_with(chosen).administration;
        let refused = with_it.create_session(by_password(EMAIL, &ada.password)).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_INVALID");
        ada.sign_in(&b).await;
        let refused = whoami(&b, chosen).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_INVALID");
        b.finish().await;
    }

    async fn session_fixation_by_a_session_from_before_the_sign_in(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, before) = signed_in(&b).await;
        let eve = person(&b, "eve@example.com").await;
        let mut as_before = b.caller_with(&before.token).administration;
        let made = as_before.create_session(by_password("eve@example.com", &eve.password)).await;
        let made = made.unwrap().into_inner();
        let made = SignedIn::of(made.session, made.session_token, made.refresh_token);
        assert_ne!((&made.token, &made.session.id), (&before.token, &before.session.id));
        assert_eq!(whoami(&b, &made.token).await.unwrap().caller_id, eve.user.id);
        assert_eq!(whoami(&b, &before.token).await.unwrap().caller_id, ada.user.id);
        revoke(&b.caller_with(&before.token), "current").await.unwrap();
        whoami(&b, &made.token).await.unwrap();
        b.finish().await;
    }
}
