//! Bad input: every field of every request has bounds, and what is out of bounds changes nothing.

mod probes;

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::FieldDescriptorProto;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};

use crate::fixture::rpcs::{Descriptors, Rpc, call, channel};
use crate::fixture::scene::Scene;
use crate::fixture::*;
use crate::on_both_engines;
use probes::{Probe, delimited};

/// Fields that are deliberately not judged, by RPC, message and field, with the reason.
const EXCEPTIONS: [(&str, &str, &str, &str); 6] = [
    (
        "UpdateAccount",
        "tokenbroker.v1.Account",
        "provider",
        "immutable: an account is taken as it was read, and the field refused only in the mask",
    ),
    (
        "UpdateAccount",
        "tokenbroker.v1.Account",
        "username",
        "the same",
    ),
    (
        "UpdateProfile",
        "tokenbroker.v1.Profile",
        "external_id",
        "the same",
    ),
    (
        "CompleteAuthorization",
        "tokenbroker.v1.CompleteAuthorizationRequest",
        "parameters",
        "a provider's own words are taken as they came; only their length and number are judged",
    ),
    (
        "UpdateApp",
        "tokenbroker.v1.App",
        "provider",
        "immutable: an app is taken as it was read, and the field refused only in the mask",
    ),
    (
        "CreateApp",
        "tokenbroker.v1.App",
        "etag",
        "a new app has none; one that was copied from another app is not looked at",
    ),
];

/// Documented as output, and required in an update all the same, to name what is updated.
const NAMED_BY_OUTPUT: [(&str, &str); 5] = [
    ("UpdateAccount", "id"),
    ("UpdateProfile", "id"),
    ("UpdateConnection", "id"),
    ("UpdateApp", "id"),
    ("UpdateClient", "id"),
];

fn is_exempt(
    descriptors: &Descriptors,
    rpc: &Rpc,
    message: &str,
    field: &FieldDescriptorProto,
) -> bool {
    let message = message.trim_start_matches('.');
    let name = field.name();
    let output = descriptors
        .comment(message, field)
        .trim_start()
        .starts_with("Output only.");
    let excepted = EXCEPTIONS
        .iter()
        .any(|(by, of, which, _)| *by == rpc.name && *of == message && *which == name);
    excepted || (output && !NAMED_BY_OUTPUT.contains(&(&rpc.name, name)))
}

/// Whether a value is fine where it stands: JSON of the caller's own may hold line breaks, and jobs may
/// go behind all others.
fn is_fine(probe: &Probe) -> bool {
    let own = ["payload", "checkpoint", "result"];
    let field = probe.field.rsplit('.').next().unwrap();
    own.contains(&field) && probe.fault.contains("control character")
        || field == "priority" && probe.fault == "is negative"
}

/// Whether a violation is about a field: it, something in it, or what it is in.
fn is_about(violation: &str, field: &str) -> bool {
    let mut bare = String::new();
    let mut depth = 0_u32;
    for letter in violation.chars() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => bare.push(letter),
            _ => {}
        }
    }
    let within = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    within(&bare, field) || within(field, &bare)
}

/// Why an answer is not the refusal that it should be.
fn complaint(rpc: &Rpc, probe: &Probe, answer: Result<Vec<u8>, Status>) -> Option<String> {
    let what = |text: String| {
        Some(format!(
            "{}: {} {}: {text}",
            rpc.name, probe.field, probe.fault
        ))
    };
    let status = match answer {
        Err(status) => status,
        // Each request of a batch is answered on its own.
        Ok(message) if rpc.name == "BatchGetAccessTokens" => {
            let answer = pb::BatchGetAccessTokensResponse::decode(message.as_slice()).unwrap();
            let last = answer.results.last().and_then(|it| it.result.clone());
            let Some(pb::access_token_result::Result::Error(error)) = last else {
                return what("is taken".to_owned());
            };
            let field = probe.field.strip_prefix("requests.").unwrap_or("requests");
            let refused =
                error.code == i32::from(Code::InvalidArgument) && error.message.contains(field);
            return if refused {
                None
            } else {
                what(format!("{error:?}"))
            };
        }
        Ok(_) => return what("is taken".to_owned()),
    };
    if status.code() != Code::InvalidArgument {
        return what(format!("{:?} {}", status.code(), status.message()));
    }
    let fields = violations(&status);
    if fields
        .iter()
        .any(|violation| is_about(violation, &probe.field))
    {
        None
    } else {
        what(format!("another field is named: {fields:?}"))
    }
}

/// The database, as far as refused requests could have changed it; no event came of them either.
async fn contents(b: &Broker) -> BTreeMap<String, Vec<String>> {
    let mut all = tables::settled(b).await;
    let events = tables::rows(b).await["events"].len();
    all.insert("events".to_owned(), vec![format!("{events} rows")]);
    all
}

on_both_engines! {
    async fn no_bad_value_of_any_field_is_taken_or_changes_anything(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        // The use of the token is stored.
        eventually("the use is stored", || async { b.connection(&scene.connection.id).await.use_count == 1 }).await;
        let descriptors = Descriptors::own();
        let channel = channel(b.grpc_address());
        let key = format!("Bearer {}", b.key(Role::Admin, Constraints::default()).await);
        let requests = scene.requests();
        let before = contents(&b).await;
        let mut complaints = Vec::new();
        let mut sent = 0;
        for rpc in descriptors.rpcs() {
            let sound = &requests[rpc.name.as_str()];
            let skipped = |message: &str, field: &FieldDescriptorProto| is_exempt(&descriptors, &rpc, message, field);
            let probes = probes::of(&descriptors, &rpc.input, &skipped).into_iter();
            for probe in probes.filter(|probe| !is_fine(probe)) {
                let request = [sound.as_slice(), &probe.bytes].concat();
                let answer = call(&channel, Some(&key), &rpc.path, request).await;
                complaints.extend(complaint(&rpc, &probe, answer));
                sent += 1;
            }
        }
        assert!(complaints.is_empty(), "of {sent} bad values:\n{}", complaints.join("\n"));
        assert!(sent > 400, "{sent}");
        assert_eq!(contents(&b).await, before);
        b.finish().await;
    }

    async fn the_requests_that_were_spoilt_are_sound(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        let channel = channel(b.grpc_address());
        let key = format!("Bearer {}", b.key(Role::Admin, Constraints::default()).await);
        let mut requests: Vec<_> = Descriptors::own().rpcs().into_iter().map(|rpc| {
            let request = scene.requests()[rpc.name.as_str()].clone();
            (rpc, request)
        }).collect();
        // What destroys comes last.
        requests.sort_by_key(|(rpc, _)| {
            let last = ["RevokeApp", "Revoke", "Delete"];
            last.iter().any(|verb| rpc.name.starts_with(verb))
        });
        for (rpc, request) in requests {
            let answer = call(&channel, Some(&key), &rpc.path, request).await;
            if let Err(status) = answer {
                assert_ne!(status.code(), Code::InvalidArgument, "{}: {status:?}", rpc.name);
                assert_ne!(status.code(), Code::Internal, "{}: {status:?}", rpc.name);
            }
        }
        b.finish().await;
    }

    async fn a_page_token_is_good_for_its_own_request_only(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        let request = pb::ListProvidersRequest { page_size: 1, ..Default::default() };
        let page = b.admin.registry.clone().list_providers(request).await.unwrap().into_inner();
        assert!(!page.next_page_token.is_empty());
        let descriptors = Descriptors::own();
        let channel = channel(b.grpc_address());
        let key = format!("Bearer {}", b.key(Role::Admin, Constraints::default()).await);
        let mut lists = 0;
        for rpc in descriptors.rpcs() {
            let fields = &descriptors.message(&rpc.input).field;
            let Some(field) = fields.iter().find(|field| field.name() == "page_token") else {
                continue;
            };
            lists += 1;
            let tag = u32::try_from(field.number()).unwrap();
            for token in [page.next_page_token.as_str(), "nonsense", "====", "AAAAAAAAAAA"] {
                let mut request = scene.requests()[rpc.name.as_str()].clone();
                request.extend(delimited(tag, token.as_bytes()));
                let answer = call(&channel, Some(&key), &rpc.path, request).await;
                if rpc.name == "ListProviders" && token == page.next_page_token {
                    answer.unwrap();
                    continue;
                }
                let refused = answer.expect_err(&rpc.name);
                assert_eq!(refused.code(), Code::InvalidArgument, "{}: {token}", rpc.name);
                assert_eq!(violations(&refused), ["page_token"], "{}: {token}", rpc.name);
            }
        }
        assert!(lists >= 7, "{lists}");
        b.finish().await;
    }

    async fn a_callback_may_say_anything_and_breaks_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        let bad = ["a\u{0}b".to_owned(), "\u{1b}[31m".to_owned(), "x".repeat(8_192)];
        for text in bad {
            for name in ["state", "code", "error", "error_description", "iss", text.as_str()] {
                if name.len() > 255 {
                    continue;
                }
                let mut parameters = std::collections::HashMap::from([("state".to_owned(), "s".repeat(43))]);
                parameters.insert(name.to_owned(), text.clone());
                let request = pb::CompleteAuthorizationRequest {
                    authorization_id: scene.authorization_id.clone(),
                    owner: scene::OWNER.to_owned(),
                    parameters,
                };
                let refused = b.admin.broker.clone().complete_authorization(request).await.map(drop).unwrap_err();
                assert!(matches!(refused.code(), Code::FailedPrecondition | Code::InvalidArgument), "{name}: {refused:?}");
            }
        }
        b.finish().await;
    }

    async fn a_providers_own_words_are_kept_whatever_they_are(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let redirect_uri = "http://127.0.0.1:9/own-callback".to_owned();
        let request = pb::UpdateAppRequest {
            app: Some(pb::App { id: app.id.clone(), redirect_uris: vec![redirect_uri.clone()], ..Default::default() }),
            update_mask: None,
        };
        b.admin.registry.clone().update_app(request).await.unwrap();
        for text in ["a\u{0}b".to_owned(), "\u{1b}[31m".to_owned(), "ü".repeat(8_192)] {
            let request = pb::StartAuthorizationRequest {
                app: app.id.clone(),
                owner: scene::OWNER.to_owned(),
                redirect_uri: redirect_uri.clone(),
                ..Default::default()
            };
            let started = b.start_authorization(request).await.unwrap();
            let url: url::Url = started.authorization_url.parse().unwrap();
            let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
            let id = started.authorization.unwrap().id;
            let parameters = [("state", state), ("iss", b.provider.base_url()), ("error", text.clone()), ("error_description", text)];
            let request = pb::CompleteAuthorizationRequest {
                authorization_id: id.clone(),
                owner: scene::OWNER.to_owned(),
                parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
            };
            let answer = b.admin.broker.clone().complete_authorization(request).await;
            if let Err(status) = answer {
                assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
            }
            let request = pb::GetAuthorizationRequest { authorization_id: id };
            let found = b.admin.broker.clone().get_authorization(request).await.unwrap().into_inner().authorization.unwrap();
            assert_eq!(found.state(), pb::AuthorizationState::Failed);
            let failure = found.failure.unwrap();
            assert!(!failure.provider_error.contains(char::is_control), "{failure:?}");
            assert!(!failure.provider_error_description.contains(char::is_control), "{failure:?}");
        }
        b.finish().await;
    }

    async fn what_is_too_large_or_no_message_is_refused(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.grpc.max_message_bytes = 64 << 10).await;
        let descriptors = Descriptors::own();
        let channel = channel(b.grpc_address());
        let key = format!("Bearer {}", b.key(Role::Admin, Constraints::default()).await);
        let before = contents(&b).await;
        for rpc in descriptors.rpcs() {
            // A field that nobody knows: only the size is wrong.
            let large = delimited(1_000, &vec![0; 65 << 10]);
            let refused = call(&channel, Some(&key), &rpc.path, large).await.expect_err(&rpc.name);
            assert_eq!(refused.code(), Code::OutOfRange, "{}: {refused:?}", rpc.name);
            let empty = descriptors.message(&rpc.input).field.is_empty();
            // To a message without fields the second is a field that it does not know.
            let unknown = (!empty).then(|| delimited(1, &[0xff, 0xfe]));
            for garbage in [vec![0xff; 40], vec![0x0a, 0x7f]].into_iter().chain(unknown) {
                let refused = call(&channel, Some(&key), &rpc.path, garbage).await.expect_err(&rpc.name);
                assert!(matches!(refused.code(), Code::Internal | Code::InvalidArgument), "{}: {refused:?}", rpc.name);
            }
        }
        assert_eq!(contents(&b).await, before);
        b.finish().await;
    }
}
