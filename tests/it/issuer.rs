//! Our own authorisation server, attacked as RFC 9700 and its neighbours say that it will be. By what
//! they demand:
//!
//!  1. exact redirect URIs: `authorize::an_address_that_resembles_the_registered_one_gets_no_code`
//!  2. no open redirector: `authorize::an_unknown_client_leads_nobody_anywhere`
//!  3. PKCE, S256 alone: `authorize::a_request_without_a_challenge_or_with_a_plain_one_is_refused`
//!  4. no downgrade: `codes::a_code_that_was_asked_for_without_a_challenge_takes_no_verifier`
//!  5. short, bound codes: `codes::a_code_is_good_for_a_minute`
//!  6. one redemption: `codes::a_code_that_many_send_at_once_is_redeemed_once`
//!  7. replay, in order: `codes::a_thief_who_lacks_something_neither_uses_a_code_nor_ends_anything`
//!  8. codes remembered: `codes::a_spent_code_is_known_again_for_long`
//!  9. stolen refresh tokens: `refresh::a_stolen_refresh_token_ends_all_that_came_of_the_consent`
//! 10. races of them: `refresh::no_token_outlives_a_revocation_however_many_refresh`
//! 11. bounded grace: `refresh::the_grace_is_never_extended`
//! 12. an end of it all: `refresh::what_is_kept_alive_by_refreshing_ends_with_the_consent`
//! 13. `state` and `iss`: `authorize::state_and_issuer_come_back_with_the_code_and_with_a_no`
//! 14. pollution: `authorize::a_parameter_that_is_there_twice_is_refused`
//! 15. headers of pages: `pages::nothing_of_a_page_is_kept_framed_or_told`
//! 16. clients' proof: `clients::guessed_secrets_have_to_wait`, `assertions`
//! 17. revocation: `revocation::a_refresh_token_takes_all_its_tokens_along`
//! 18. token scanning: `introspection::of_a_token_that_is_not_good_nothing_is_said`
//! 19. clients shut out: `clients::a_suspended_client_fails_everywhere`
//! 20. bearer challenges: `introspection::an_expired_token_is_challenged_and_none_is_taken_from_a_query`
//! 21. pushed requests: `par::a_request_uri_is_good_once_for_a_minute`
//! 22. DPoP: `dpop::proofs_that_are_for_something_else_are_refused`, `dpop`
//! 23. JWTs: `jwt::a_jwt_for_something_else_is_no_access_token`
//! 24. no implicit, no passwords: `authorize::implicit_and_password_are_not_offered`
//! 25. the broker's own side of it: `crate::callbacks::a_code_for_one_app_is_not_fed_to_another`,
//!     `crate::callbacks::a_victim_who_finishes_an_attackers_link_connects_nothing`

mod assertions;
mod authorize;
mod clients;
mod codes;
mod devices;
mod dpop;
mod external;
mod grants;
mod input;
mod introspection;
mod jwt;
mod metadata;
mod pages;
mod par;
mod refresh;
mod revocation;
mod sweep;

use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokenbroker::pb;
use tonic::Code;

use crate::fixture::browser::{Browser, Page};
use crate::fixture::scene::clients::REDIRECT_URI;
use crate::fixture::scene::issuer::*;
use crate::fixture::*;
use crate::on_both_engines;
use crate::sessions::recorded;
use crate::web::assert_headers;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Opens a request in a browser of its own.
async fn opened(s: &Stage, request: &Form) -> Page {
    s.authorize(&Browser::new(), request).await
}

/// A page that says this, and from which nobody is sent anywhere.
#[track_caller]
fn stays(page: &Page, error: &str) {
    assert_eq!(page.status, 400, "{error}: {}", page.body);
    assert_eq!(page.header("location"), None);
    assert!(page.body.contains(error), "{error}: {}", page.body);
    assert_headers(page);
}

/// Suspends the client.
async fn suspend(s: &Stage) {
    let request = pb::SuspendClientRequest {
        client_id: s.client.id.clone(),
        reason: "complaints".to_owned(),
    };
    let mut registry = s.b.admin.registry.clone();
    registry.suspend_client(request).await.unwrap();
}

/// Switches the person off.
async fn deactivate(s: &Stage) {
    let request = pb::DeactivateUserRequest {
        user_id: s.person.id.clone(),
        ..Default::default()
    };
    let mut administration = s.b.admin.administration.clone();
    administration.deactivate_user(request).await.unwrap();
}

/// Waits until a token is of no use: this server hears of what another, or the registry, did.
async fn dies(s: &Stage, token: &str) {
    eventually("the token is of no use", || async {
        !s.is_active(token).await
    })
    .await;
}
