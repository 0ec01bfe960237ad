//! API keys over the wire: made, listed, rotated, revoked.

use std::time::{Duration, Instant};

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};

use crate::fixture::leaks::Secrets;
use crate::fixture::*;
use crate::on_both_engines;

const HOUR: Duration = Duration::from_secs(60 * 60);
const REQUEST_ID: &str = "7f0c5f0a-2f0d-4d0b-8a52-5a6d6d2f5f11";

fn wanted(name: &str) -> pb::CreateApiKeyRequest {
    pb::CreateApiKeyRequest {
        name: name.to_owned(),
        role: pb::Role::Admin.into(),
        ..Default::default()
    }
}

async fn create(
    caller: &Caller,
    request: pb::CreateApiKeyRequest,
) -> Result<(pb::ApiKey, String), Status> {
    let mut administration = caller.administration.clone();
    let made = administration.create_api_key(request).await?.into_inner();
    Secrets::register_as("API key", &made.secret);
    Ok((made.api_key.unwrap(), made.secret))
}

fn rotation(id: &str, overlap: Duration) -> pb::RotateApiKeyRequest {
    pb::RotateApiKeyRequest {
        api_key_id: id.to_owned(),
        overlap: Some(tokenbroker::grpc::convert::duration(overlap)),
        ..Default::default()
    }
}

async fn rotate(
    caller: &Caller,
    request: pb::RotateApiKeyRequest,
) -> Result<(pb::ApiKey, String), Status> {
    let mut administration = caller.administration.clone();
    let made = administration.rotate_api_key(request).await?.into_inner();
    Secrets::register_as("API key", &made.secret);
    Ok((made.api_key.unwrap(), made.secret))
}

async fn revoke(caller: &Caller, id: &str) -> Result<pb::ApiKey, Status> {
    let request = pb::RevokeApiKeyRequest {
        api_key_id: id.to_owned(),
    };
    let mut administration = caller.administration.clone();
    let answer = administration.revoke_api_key(request).await?;
    Ok(answer.into_inner().api_key.unwrap())
}

async fn who(caller: &Caller) -> Result<pb::GetCallerResponse, Status> {
    let mut administration = caller.administration.clone();
    let answer = administration.get_caller(pb::GetCallerRequest {}).await?;
    Ok(answer.into_inner())
}

/// The ids that are listed, two a page.
async fn listed(caller: &Caller, show_ended: bool) -> Vec<String> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListApiKeysRequest {
            show_ended,
            page_size: 2,
            page_token,
        };
        let mut administration = caller.administration.clone();
        let page = administration.list_api_keys(request).await.unwrap();
        let page = page.into_inner();
        assert!(page.api_keys.len() <= 2);
        ids.extend(page.api_keys.into_iter().map(|key| key.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return ids;
        }
    }
}

/// The audit entries about a key, oldest first: action and actor.
async fn trail(b: &Broker, id: &str) -> Vec<String> {
    let query = format!(
        "SELECT action || ' by ' || actor_id AS line FROM audit_events
         WHERE resource_id = '{id}' ORDER BY id"
    );
    b.ground.lines(&query).await
}

on_both_engines! {
    async fn a_key_works_and_is_told_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let request = pb::CreateApiKeyRequest {
            role: pb::Role::Consumer.into(),
            constraints: Some(pb::Constraints { owners: vec!["team-1/*".to_owned()], ..Default::default() }),
            rate_limit: Some(pb::RateLimit { requests_per_second: 7, burst: 0 }),
            expires_in: Some(tokenbroker::grpc::convert::duration(HOUR)),
            ..wanted("billing")
        };
        let (key, secret) = create(&b.admin, request.clone()).await.unwrap();
        assert!(key.id.starts_with("key_") && secret.starts_with(&key.prefix));
        assert_eq!((key.name.as_str(), key.role(), key.state()), ("billing", pb::Role::Consumer, pb::ApiKeyState::Active));
        assert_eq!(key.rate_limit, Some(pb::RateLimit { requests_per_second: 7, burst: 14 }));
        let admin = who(&b.admin).await.unwrap().caller_id;
        assert_eq!(key.created_by, admin);
        let caller = who(&b.caller_with(&secret)).await.unwrap();
        assert_eq!((caller.caller_id, caller.constraints), (key.id.clone(), request.constraints));
        assert_eq!(trail(&b, &key.id).await, [format!("api_key.created by {admin}")]);
        b.clock.advance(HOUR);
        assert_refused(who(&b.caller_with(&secret)).await, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        b.finish().await;
    }

    async fn callers_are_told_who_they_are(engine: Engine) {
        let b = Broker::start(engine).await;
        let constraints = Constraints { link_only: true, ..Default::default() };
        let told = who(&b.caller_in("acme", Role::Consumer, constraints).await).await.unwrap();
        assert_eq!((told.tenant.as_str(), told.name.as_str(), told.role()), ("acme", "test", pb::Role::Consumer));
        assert_eq!(told.credential_kind(), pb::CredentialKind::ApiKey);
        assert!(told.permissions.contains(&"authorizations.link_only".to_owned()));
        assert!(!told.permissions.contains(&"users.read".to_owned()));
        assert_eq!((told.expire_time, told.session_id.as_str()), (None, ""));
        let worker = who(&b.caller(Role::Worker, Constraints::default()).await).await.unwrap();
        assert_eq!(worker.permissions, ["jobs.read", "jobs.work"]);
        b.finish().await;
    }

    async fn a_repeated_request_makes_one_key(engine: Engine) {
        let b = Broker::start(engine).await;
        let request = pb::CreateApiKeyRequest { request_id: REQUEST_ID.to_owned(), ..wanted("one") };
        let (first, secret) = create(&b.admin, request.clone()).await.unwrap();
        let (again, same) = create(&b.admin, request.clone()).await.unwrap();
        assert_eq!((&first.id, &secret), (&again.id, &same));
        let other = pb::CreateApiKeyRequest { name: "two".to_owned(), ..request.clone() };
        assert_eq!(violations(&create(&b.admin, other).await.unwrap_err()), ["request_id"]);
        // Nobody else gets the secret by sending the same.
        let another = b.caller(Role::Admin, Constraints::default()).await;
        assert_eq!(violations(&create(&another, request.clone()).await.unwrap_err()), ["request_id"]);
        b.clock.advance(Duration::from_secs(601));
        assert_refused(create(&b.admin, request).await, Code::AlreadyExists, "ALREADY_EXISTS");
        assert_eq!(trail(&b, &first.id).await.len(), 1);
        b.finish().await;
    }

    async fn no_key_is_made_for_a_role_of_people_or_for_ever_and_a_day(engine: Engine) {
        let b = Broker::start(engine).await;
        let day = Duration::from_secs(24 * 60 * 60);
        let spoilt = |change: fn(&mut pb::CreateApiKeyRequest)| {
            let mut request = wanted("x");
            change(&mut request);
            request
        };
        for (request, field) in [
            (spoilt(|it| it.role = pb::Role::User.into()), "role"),
            (spoilt(|it| it.role = 0), "role"),
            (spoilt(|it| it.name = "x".repeat(129)), "name"),
            (spoilt(|it| it.rate_limit = Some(pb::RateLimit::default())), "rate_limit.requests_per_second"),
            (pb::CreateApiKeyRequest { expires_in: Some(tokenbroker::grpc::convert::duration(3_651 * day)), ..wanted("x") }, "expires_in"),
            (pb::CreateApiKeyRequest { expires_in: Some(prost_types::Duration::default()), ..wanted("x") }, "expires_in"),
        ] {
            assert_eq!(violations(&create(&b.admin, request).await.unwrap_err()), [field]);
        }
        b.finish().await;
    }

    async fn nobody_gives_away_more_than_they_hold(engine: Engine) {
        let b = Broker::start(engine).await;
        let team = |owner: &str| Constraints { owners: vec![owner.to_owned()], ..Default::default() };
        let narrow = b.caller(Role::Admin, team("team-1/*")).await;
        let wide = create(&narrow, wanted("wide")).await.unwrap_err();
        assert_eq!(violations(&wide), ["constraints.owners"]);
        let within = |owner: &str| pb::CreateApiKeyRequest {
            constraints: Some(pb::Constraints { owners: vec![owner.to_owned()], ..Default::default() }),
            ..wanted("within")
        };
        let beside = create(&narrow, within("team-2/x")).await.unwrap_err();
        assert_eq!(violations(&beside), ["constraints.owners"]);
        let (key, _) = create(&narrow, within("team-1/x")).await.unwrap();
        // Nor is a key of somebody who may more taken over or ended.
        let (mightier, _) = create(&b.admin, wanted("mightier")).await.unwrap();
        for refused in [
            rotate(&narrow, rotation(&mightier.id, HOUR)).await.map(drop),
            revoke(&narrow, &mightier.id).await.map(drop),
        ] {
            assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        }
        rotate(&narrow, rotation(&key.id, HOUR)).await.unwrap();
        b.finish().await;
    }

    async fn keys_are_listed_by_page_and_by_tenant(engine: Engine) {
        let b = Broker::start(engine).await;
        let other = b.caller_in("acme", Role::Admin, Constraints::default()).await;
        let mut made = listed(&b.admin, true).await;
        for name in ["a", "b", "c", "d", "e"] {
            made.push(create(&b.admin, wanted(name)).await.unwrap().0.id);
        }
        assert_eq!(listed(&b.admin, false).await, made);
        let ended = made.pop().unwrap();
        revoke(&b.admin, &ended).await.unwrap();
        assert_eq!(listed(&b.admin, false).await, made);
        assert_eq!(listed(&b.admin, true).await.last(), Some(&ended));
        let theirs = listed(&other, true).await;
        assert_eq!(theirs, [who(&other).await.unwrap().caller_id]);
        b.finish().await;
    }

    async fn a_key_is_revoked_once_and_by_its_own_tenant(engine: Engine) {
        let b = Broker::start(engine).await;
        let other = b.caller_in("acme", Role::Admin, Constraints::default()).await;
        let (key, secret) = create(&b.admin, wanted("x")).await.unwrap();
        assert_refused(revoke(&other, &key.id).await, Code::NotFound, "API_KEY_NOT_FOUND");
        who(&b.caller_with(&secret)).await.unwrap();
        let first = revoke(&b.admin, &key.id).await.unwrap();
        assert_eq!(first.state(), pb::ApiKeyState::Revoked);
        assert_refused(who(&b.caller_with(&secret)).await, Code::Unauthenticated, "CREDENTIALS_REVOKED");
        b.clock.advance(HOUR);
        assert_eq!(revoke(&b.admin, &key.id).await.unwrap(), first);
        assert_eq!(trail(&b, &key.id).await.len(), 2);
        b.finish().await;
    }

    async fn a_successor_has_all_that_the_key_had(engine: Engine) {
        let b = Broker::start(engine).await;
        let request = pb::CreateApiKeyRequest {
            role: pb::Role::Consumer.into(),
            constraints: Some(pb::Constraints { owners: vec!["o".to_owned()], link_only: true, ..Default::default() }),
            rate_limit: Some(pb::RateLimit { requests_per_second: 7, burst: 9 }),
            expires_in: Some(tokenbroker::grpc::convert::duration(3 * HOUR)),
            ..wanted("billing")
        };
        let (old, _) = create(&b.admin, request).await.unwrap();
        b.clock.advance(HOUR);
        let (new, secret) = rotate(&b.admin, rotation(&old.id, HOUR)).await.unwrap();
        assert_eq!(
            (&new.name, new.role, &new.constraints, &new.rate_limit),
            (&old.name, old.role, &old.constraints, &old.rate_limit)
        );
        // It lives as long as the old one was to live.
        let ends = |key: &pb::ApiKey| key.expire_time.unwrap().seconds;
        assert_eq!(ends(&new) - ends(&old), 3_600);
        assert_ne!((&new.id, &new.prefix), (&old.id, &old.prefix));
        assert_eq!(who(&b.caller_with(&secret)).await.unwrap().caller_id, new.id);
        let actions = trail(&b, &old.id).await;
        assert!(actions[1].starts_with("api_key.rotated by key_"), "{actions:?}");
        b.finish().await;
    }

    async fn the_overlap_never_prolongs_a_key(engine: Engine) {
        let b = Broker::start(engine).await;
        let request = pb::CreateApiKeyRequest {
            expires_in: Some(tokenbroker::grpc::convert::duration(HOUR)),
            ..wanted("short")
        };
        let (old, secret) = create(&b.admin, request).await.unwrap();
        rotate(&b.admin, rotation(&old.id, 24 * HOUR)).await.unwrap();
        b.clock.advance(HOUR);
        assert_refused(who(&b.caller_with(&secret)).await, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        b.finish().await;
    }

    async fn an_overlap_of_nothing_ends_the_old_key_at_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let (old, secret) = create(&b.admin, wanted("x")).await.unwrap();
        let caller = b.caller_with(&secret);
        who(&caller).await.unwrap();
        let (new, _) = rotate(&caller, rotation(&old.id, Duration::ZERO)).await.unwrap();
        assert_refused(who(&caller).await, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        assert!(listed(&b.admin, false).await.contains(&new.id));
        b.finish().await;
    }

    async fn what_has_ended_or_has_a_successor_is_not_rotated(engine: Engine) {
        let b = Broker::start(engine).await;
        let (revoked, _) = create(&b.admin, wanted("revoked")).await.unwrap();
        revoke(&b.admin, &revoked.id).await.unwrap();
        let (rotated, _) = create(&b.admin, wanted("rotated")).await.unwrap();
        let (successor, _) = rotate(&b.admin, rotation(&rotated.id, HOUR)).await.unwrap();
        let (expired, _) = create(&b.admin, wanted("expired")).await.unwrap();
        rotate(&b.admin, rotation(&expired.id, Duration::ZERO)).await.unwrap();
        for id in [&revoked.id, &rotated.id, &expired.id] {
            let refused = rotate(&b.admin, rotation(id, HOUR)).await;
            assert_refused(refused, Code::FailedPrecondition, "API_KEY_ENDED");
        }
        rotate(&b.admin, rotation(&successor.id, HOUR)).await.unwrap();
        let other = b.caller_in("acme", Role::Admin, Constraints::default()).await;
        let refused = rotate(&other, rotation(&successor.id, HOUR)).await;
        assert_refused(refused, Code::NotFound, "API_KEY_NOT_FOUND");
        let too_long = rotate(&b.admin, rotation(&successor.id, 169 * HOUR)).await.unwrap_err();
        assert_eq!(violations(&too_long), ["overlap"]);
        b.finish().await;
    }

    async fn a_repeated_rotation_makes_one_successor(engine: Engine) {
        let b = Broker::start(engine).await;
        let (old, _) = create(&b.admin, wanted("x")).await.unwrap();
        let request = pb::RotateApiKeyRequest { request_id: REQUEST_ID.to_owned(), ..rotation(&old.id, Duration::ZERO) };
        let (first, secret) = rotate(&b.admin, request.clone()).await.unwrap();
        let (again, same) = rotate(&b.admin, request).await.unwrap();
        assert_eq!((first.id, secret), (again.id, same));
        b.finish().await;
    }

    async fn two_who_rotate_one_key_at_once_make_one_successor(engine: Engine) {
        let b = Broker::start(engine).await;
        let (old, _) = create(&b.admin, wanted("x")).await.unwrap();
        let (one, two) = tokio::join!(
            rotate(&b.admin, rotation(&old.id, HOUR)),
            rotate(&b.admin, rotation(&old.id, HOUR)),
        );
        let (made, refused): (Vec<_>, Vec<_>) = [one, two].into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 1);
        let refused = refused.into_iter().next().unwrap();
        assert_refused(refused, Code::FailedPrecondition, "API_KEY_ENDED");
        b.finish().await;
    }

    async fn a_rotated_key_works_until_its_overlap_ends_and_never_after(engine: Engine) {
        let b = Broker::start(engine).await;
        let (old, secret) = create(&b.admin, wanted("x")).await.unwrap();
        let (caller, request) = (b.caller_with(&secret), rotation(&old.id, HOUR));
        who(&caller).await.unwrap();
        let (new, successor) = rotate(&b.admin, request).await.unwrap();
        b.clock.advance(HOUR - Duration::from_secs(1));
        who(&caller).await.unwrap();
        b.clock.advance(Duration::from_secs(1));
        assert_refused(who(&caller).await, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        assert_eq!(who(&b.caller_with(&successor)).await.unwrap().caller_id, new.id);
        b.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_ends_on_every_replica_when_its_overlap_does() {
    let a = Broker::start(Engine::Postgres).await;
    let b = a.replica("b", |_| {}).await;
    let (old, secret) = create(&a.admin, wanted("x")).await.unwrap();
    let callers = [a.caller_with(&secret), b.caller_with(&secret)];
    for caller in &callers {
        who(caller).await.unwrap();
    }
    let (_, successor) = rotate(&a.admin, rotation(&old.id, HOUR)).await.unwrap();
    let since = Instant::now();
    who(&b.caller_with(&successor)).await.unwrap();
    a.clock.advance(HOUR - Duration::from_secs(1));
    for caller in &callers {
        who(caller).await.unwrap();
    }
    a.clock.advance(Duration::from_secs(1));
    let refused = who(&callers[0]).await;
    assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
    // There memory may hold the key as it was before, within the stated bound.
    eventually("the other replica has heard", || async {
        who(&callers[1]).await.is_err()
    })
    .await;
    assert!(since.elapsed() <= a.config.cache.max_staleness + Duration::from_secs(1));
    let refused = who(&callers[1]).await;
    assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
    b.finish().await;
    a.finish().await;
}
