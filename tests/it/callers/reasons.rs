//! What errors look like on the wire, and that docs/error-reasons.md says so.

use std::collections::BTreeSet;
use std::time::Duration;

use tokenbroker::error::{Error, FieldViolation, Precondition, Resource, Unknown};
use tokenbroker::grpc::status::wire;
use tokenbroker::model::{Constraints, OauthErrorCode, Role};
use tokenbroker::{pb, store};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::fixture::provider::{Fault, Target};
use crate::fixture::*;
use crate::on_both_engines;

const DOCUMENT: &str = include_str!("../../../docs/error-reasons.md");

/// A cause, which is for the log alone.
const HIDDEN: &str = "the disk is on fire";

/// One of every kind of error. The match fails to compile when a variant is missing here.
fn every_error() -> Vec<Error> {
    let mut all = Vec::new();
    let mut kind = Some(Error::InvalidArgument(vec![FieldViolation::new(
        "app",
        "is required",
    )]));
    while let Some(error) = kind {
        kind = match &error {
            Error::InvalidArgument(_) => {
                use Unknown as U;
                let unknown = [
                    U::Missing,
                    U::Invalid,
                    U::Expired,
                    U::Revoked,
                    U::SignInFailed,
                    U::RefreshTokenInvalid,
                    U::Unmapped,
                ];
                all.extend(unknown.map(Error::Unauthenticated));
                Some(Error::PermissionDenied("tokens.read"))
            }
            Error::PermissionDenied(_) => Some(Error::Constrained("audit.read")),
            Error::Constrained(_) => {
                use Resource as R;
                let resources = [
                    R::App,
                    R::Authorization,
                    R::Connection,
                    R::Provider,
                    R::ApiKey,
                    R::User,
                    R::Session,
                    R::Client,
                    R::AuthorizationRequest,
                    R::IssuedGrant,
                    R::Account,
                    R::Profile,
                    R::Job,
                    R::Batch,
                ];
                all.extend(resources.map(|it| Error::NotFound(it, "name".to_owned())));
                Some(Error::AlreadyExists {
                    resource: R::App,
                    name: "name".to_owned(),
                    detail: "taken".to_owned(),
                })
            }
            Error::AlreadyExists { .. } => {
                all.extend(every_precondition().map(|it| Error::precondition(it, "message")));
                Some(Error::ReauthorizationRequired {
                    connection_id: "conn".to_owned(),
                    reason: "invalid_grant".to_owned(),
                })
            }
            Error::ReauthorizationRequired { .. } => Some(Error::ScopesMissing {
                connection_id: "conn".to_owned(),
                missing: vec!["read".to_owned()],
            }),
            Error::ScopesMissing { .. } => Some(Error::ProviderUnavailable {
                retry_after: Duration::from_secs(9),
                detail: "down".to_owned(),
            }),
            Error::ProviderUnavailable { .. } => {
                Some(Error::Conflict(Resource::App, "app".to_owned()))
            }
            Error::Conflict(..) => Some(Error::ResourceExhausted {
                message: "message".to_owned(),
                retry_after: Duration::from_secs(9),
            }),
            Error::ResourceExhausted { .. } => Some(Error::RateLimited {
                limit: "requests_per_second",
                message: "message".to_owned(),
                retry_after: Duration::from_secs(9),
            }),
            Error::RateLimited { .. } => Some(Error::OutOfRange("message".to_owned())),
            Error::OutOfRange(_) => Some(Error::WatcherTooSlow),
            Error::WatcherTooSlow => Some(Error::Unavailable("message".to_owned(), None)),
            Error::Unavailable(..) => {
                all.extend(every_oauth_code().map(|code| Error::oauth(code, "message")));
                all.push(Error::Store(store::Error::Busy(HIDDEN.into())));
                all.push(Error::Store(store::Error::Unavailable(HIDDEN.into())));
                Some(Error::Store(store::Error::Internal(HIDDEN.into())))
            }
            Error::Store(_) => Some(Error::internal(HIDDEN)),
            // Told above, several at once.
            Error::Unauthenticated(_)
            | Error::NotFound(..)
            | Error::FailedPrecondition { .. }
            | Error::Oauth(_) => None,
            Error::Internal(_) => None,
        };
        all.push(error);
    }
    all
}

/// The same way: every precondition leads to the next.
fn every_precondition() -> impl Iterator<Item = Precondition> {
    use Precondition as P;
    std::iter::successors(Some(P::AppInactive), |before| match before {
        P::AppInactive => Some(P::AppMisconfigured),
        P::AppMisconfigured => Some(P::AppInUse),
        P::AppInUse => Some(P::ConnectionPending),
        P::ConnectionPending => Some(P::ConnectionRevoked),
        P::ConnectionRevoked => Some(P::NotRefreshable),
        P::NotRefreshable => Some(P::NotAuthorizable),
        P::NotAuthorizable => Some(P::AmbiguousConnection),
        P::AmbiguousConnection => Some(P::AuthorizationState),
        P::AuthorizationState => Some(P::ConfirmationCode),
        P::ConfirmationCode => Some(P::State),
        P::State => Some(P::BrowserMismatch),
        P::BrowserMismatch => Some(P::OwnerMismatch),
        P::OwnerMismatch => Some(P::AccountMismatch),
        P::AccountMismatch => Some(P::ProviderBuiltin),
        P::ProviderBuiltin => Some(P::ProviderInUse),
        P::ProviderInUse => Some(P::UserInactive),
        P::UserInactive => Some(P::ApiKeyEnded),
        P::ApiKeyEnded => Some(P::NotASignInProvider),
        P::NotASignInProvider => Some(P::ClientState),
        P::ClientState => Some(P::AuthorizationRequestState),
        P::AuthorizationRequestState => Some(P::JobState),
        P::JobState => Some(P::LeaseLost),
        P::LeaseLost => Some(P::HasOpenJobs),
        P::HasOpenJobs => Some(P::NoCredentials),
        P::NoCredentials => None,
    })
}

fn every_oauth_code() -> impl Iterator<Item = OauthErrorCode> {
    use OauthErrorCode as C;
    std::iter::successors(Some(C::InvalidRequest), |before| match before {
        C::InvalidRequest => Some(C::InvalidClient),
        C::InvalidClient => Some(C::InvalidGrant),
        C::InvalidGrant => Some(C::UnauthorizedClient),
        C::UnauthorizedClient => Some(C::UnsupportedGrantType),
        C::UnsupportedGrantType => Some(C::UnsupportedResponseType),
        C::UnsupportedResponseType => Some(C::InvalidScope),
        C::InvalidScope => Some(C::AccessDenied),
        C::AccessDenied => Some(C::ServerError),
        C::ServerError => Some(C::TemporarilyUnavailable),
        C::TemporarilyUnavailable => Some(C::InvalidTarget),
        C::InvalidTarget => Some(C::InvalidToken),
        C::InvalidToken => Some(C::InsufficientScope),
        C::InsufficientScope => Some(C::InvalidDpopProof),
        C::InvalidDpopProof => Some(C::UseDpopNonce),
        C::UseDpopNonce => Some(C::AuthorizationPending),
        C::AuthorizationPending => Some(C::SlowDown),
        C::SlowDown => Some(C::ExpiredToken),
        C::ExpiredToken => Some(C::LoginRequired),
        C::LoginRequired => Some(C::RequestNotSupported),
        C::RequestNotSupported => Some(C::InvalidRequestUri),
        C::InvalidRequestUri => None,
    })
}

fn code_name(code: Code) -> String {
    let name = format!("{code:?}");
    let mut spelt = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !spelt.is_empty() {
            spelt.push('_');
        }
        spelt.push(letter.to_ascii_uppercase());
    }
    spelt
}

#[test]
fn the_document_has_every_reason_with_its_code() {
    let made: BTreeSet<_> = every_error()
        .iter()
        .map(|error| {
            let wire = wire(error);
            let retry = if wire.retry_delay.is_some() {
                "yes"
            } else {
                ""
            };
            (
                wire.reason.to_owned(),
                code_name(wire.code),
                retry.to_owned(),
            )
        })
        .collect();
    let mut written = Vec::new();
    let (reasons, _) = DOCUMENT.split_once("## Statuses without a reason").unwrap();
    for line in reasons.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [reason, code, retry, when, what] = cells.as_slice() else {
            panic!("not five cells: {line}")
        };
        assert!(
            when.len() > 10 && what.len() > 10,
            "says too little: {line}"
        );
        let bare = |cell: &str| cell.trim_matches('`').to_owned();
        written.push((bare(reason), bare(code), (*retry).to_owned()));
    }
    let listed: BTreeSet<_> = written.iter().cloned().collect();
    assert_eq!(
        listed.len(),
        written.len(),
        "docs/error-reasons.md has a row twice"
    );
    let missing: Vec<_> = made.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "docs/error-reasons.md lacks {missing:#?}"
    );
    let left: Vec<_> = listed.difference(&made).collect();
    assert!(
        left.is_empty(),
        "docs/error-reasons.md has what is never sent: {left:#?}"
    );
}

#[test]
fn causes_stay_behind() {
    for error in every_error() {
        let status = Status::from(error);
        let shown = format!("{} {:?}", status.message(), status.get_error_details());
        assert!(!shown.contains(HIDDEN), "{shown}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, "tokenbroker");
    }
}

/// grpc-java takes 8 KiB of headers by default, and the others not for ever more.
#[test]
fn no_status_outgrows_what_clients_take() {
    let long = "ü".repeat(4_000);
    let violation = FieldViolation::new("scopes[0]", "is not as it must be in several ways");
    let mut errors = vec![
        Error::InvalidArgument(vec![violation; 1_000]),
        Error::InvalidArgument(vec![FieldViolation::new(&long, &long); 2]),
        Error::NotFound(Resource::App, long.clone()),
        Error::AlreadyExists {
            resource: Resource::App,
            name: long.clone(),
            detail: long.clone(),
        },
        Error::ScopesMissing {
            connection_id: long.clone(),
            missing: vec![long.clone(); 100],
        },
    ];
    errors.extend(every_error());
    for error in errors {
        let what = format!("{error:?}").chars().take(60).collect::<String>();
        let status = Status::from(error);
        if reason(&status) == "INVALID_ARGUMENT" {
            assert!(!violations(&status).is_empty(), "{what}");
        }
        let answer = status.into_http::<tonic::body::Body>();
        let headers = answer.headers().iter();
        // RFC 9113 section 10.5.1: a field counts 32 bytes more than it has.
        let size: usize = headers
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        assert!(size < 8_000, "{what}: {size}");
    }
}

on_both_engines! {
    async fn a_bad_request_names_every_field(engine: Engine) {
        let b = Broker::start(engine).await;
        let request = pb::StartAuthorizationRequest {
            scopes: vec!["two words".to_owned()],
            return_url: "ftp://nowhere.example".to_owned(),
            mode: 9,
            ..Default::default()
        };
        let refused = b.admin.broker.clone().start_authorization(request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_ARGUMENT"));
        assert_eq!(violations(&refused), ["app", "owner", "scopes[0]", "return_url", "mode"]);
        b.finish().await;
    }

    async fn waiting_is_told_how_long(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        b.provider.fail_always(Target::Refresh, Fault::TooManyRequests { retry_after: 30 });
        b.clock.advance(Duration::from_secs(3_600));
        let caller = b.caller(Role::Consumer, Constraints::default()).await;
        let request = pb::GetAccessTokenRequest { connection_id: c.id, ..Default::default() };
        let refused = caller.get_token(request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "PROVIDER_UNAVAILABLE"));
        let delay = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!((Duration::from_secs(29)..Duration::from_secs(60)).contains(&delay), "{delay:?}");
        b.finish().await;
    }
}
