//! How often callers may call, and how many streams they may hold.

use std::time::Duration;

use tokenbroker::access::bearer::{BearerSecret, Prefix};
use tokenbroker::config::RoleLimit;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::callers::keys;
use crate::fixture::leaks::Secrets;
use crate::fixture::*;
use crate::on_both_engines;

async fn call(caller: &Caller) -> Result<(), Status> {
    let mut administration = caller.administration.clone();
    let answer = administration.get_caller(pb::GetCallerRequest {}).await;
    answer.map(drop)
}

/// How long the caller is told to wait, and because of which limit.
async fn told(caller: &Caller) -> (Duration, String) {
    told_by(&call(caller).await.unwrap_err())
}

fn told_by(status: &Status) -> (Duration, String) {
    assert_eq!(
        (status.code(), reason(status).as_str()),
        (Code::ResourceExhausted, "RATE_LIMITED"),
        "{status:?}"
    );
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    let info = status.get_details_error_info().unwrap();
    (delay.unwrap(), info.metadata["limit"].clone())
}

/// A caller with a key whose own limit is this.
async fn limited(b: &Broker, requests_per_second: i32, burst: i32) -> Caller {
    let request = pb::CreateApiKeyRequest {
        name: "limited".to_owned(),
        role: pb::Role::Consumer.into(),
        rate_limit: Some(pb::RateLimit {
            requests_per_second,
            burst,
        }),
        ..Default::default()
    };
    let mut admin = b.admin.administration.clone();
    let made = admin.create_api_key(request).await.unwrap().into_inner();
    Secrets::register_as("API key", &made.secret);
    b.caller_with(&made.secret)
}

fn consumers(
    requests_per_second: u32,
    burst: u32,
) -> impl FnOnce(&mut tokenbroker::config::Config) {
    move |config| {
        let limit = RoleLimit {
            requests_per_second,
            burst,
        };
        config.limits.set_role("consumer", limit);
    }
}

/// Returns when the server has heard of all that happened before.
async fn heard(b: &Broker) {
    let mut broker = b.admin.broker.clone();
    let watch = broker.watch_token_events(pb::WatchTokenEventsRequest::default());
    let mut stream = watch.await.unwrap().into_inner();
    b.connected().await;
    while stream.message().await.unwrap().unwrap().event.is_none() {}
}

const RATE: &str = "requests_per_second";

on_both_engines! {
    async fn a_bucket_refuses_at_its_burst_and_refills_with_the_clock(engine: Engine) {
        let b = Broker::start(engine).await;
        let caller = limited(&b, 4, 3).await;
        for _ in 0..3 {
            call(&caller).await.unwrap();
        }
        assert_eq!(told(&caller).await, (Duration::from_millis(250), RATE.to_owned()));
        b.clock.advance(Duration::from_millis(100));
        assert_eq!(told(&caller).await, (Duration::from_millis(150), RATE.to_owned()));
        b.clock.advance(Duration::from_millis(150));
        call(&caller).await.unwrap();
        told(&caller).await;
        b.finish().await;
    }

    async fn a_limit_without_a_burst_allows_twice_the_rate_at_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let caller = limited(&b, 2, 0).await;
        for _ in 0..4 {
            call(&caller).await.unwrap();
        }
        told(&caller).await;
        b.finish().await;
    }

    async fn each_caller_of_a_role_has_a_bucket_of_its_own(engine: Engine) {
        let b = Broker::start_with(engine, consumers(1, 2)).await;
        let one = b.caller(Role::Consumer, Constraints::default()).await;
        let two = b.caller(Role::Consumer, Constraints::default()).await;
        for caller in [&one, &two] {
            call(caller).await.unwrap();
            call(caller).await.unwrap();
            told(caller).await;
        }
        let own = limited(&b, 1, 5).await;
        for _ in 0..5 {
            call(&own).await.unwrap();
        }
        told(&own).await;
        call(&b.admin).await.unwrap();
        b.finish().await;
    }

    async fn forgetting_keys_refills_nothing(engine: Engine) {
        let b = Broker::start_with(engine, consumers(1, 2)).await;
        let caller = b.caller(Role::Consumer, Constraints::default()).await;
        call(&caller).await.unwrap();
        call(&caller).await.unwrap();
        told(&caller).await;
        // Every key is looked up anew from here on.
        let (another, _) = keys::make(&b, None).await;
        b.running().keys().revoke(&another).await.unwrap();
        told(&caller).await;
        b.finish().await;
    }

    async fn what_is_denied_was_a_call_too(engine: Engine) {
        let b = Broker::start_with(engine, consumers(1, 2)).await;
        let caller = b.caller(Role::Consumer, Constraints::default()).await;
        for _ in 0..2 {
            let denied = caller.administration.clone().list_users(pb::ListUsersRequest::default()).await;
            assert_refused(denied, Code::PermissionDenied, "PERMISSION_DENIED");
        }
        told(&caller).await;
        b.finish().await;
    }

    async fn one_caller_can_not_take_all_streams(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.limits.streams_per_caller = 1).await;
        let watch = |caller: &Caller| {
            let mut broker = caller.broker.clone();
            async move { broker.watch_token_events(pb::WatchTokenEventsRequest::default()).await }
        };
        let first = watch(&b.admin).await.unwrap();
        let refused = watch(&b.admin).await.unwrap_err();
        assert_eq!(told_by(&refused).1, "streams_per_caller");
        let other = b.caller(Role::Consumer, Constraints::default()).await;
        let others = watch(&other).await.unwrap();
        drop(first);
        eventually("there is room again", || async { watch(&b.admin).await.is_ok() }).await;
        drop(others);
        b.finish().await;
    }

    async fn guessing_keys_costs_the_address_its_look_ups(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.limits.failed_authentications_per_address = 3;
        }).await;
        let cold = b.caller(Role::Consumer, Constraints::default()).await;
        // Whoever is known from here on stays so: all that was made before is heard of.
        heard(&b).await;
        call(&b.admin).await.unwrap();
        let guess = || b.caller_with(&keys::text(&BearerSecret::generate(Prefix::ApiKey)));
        for _ in 0..3 {
            assert_refused(call(&guess()).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
        }
        let which = "failed_authentications_per_address".to_owned();
        assert_eq!(told(&guess()).await, (Duration::from_secs(20), which.clone()));
        // A good key that was not seen here before is not looked up either; one that was works.
        assert_eq!(told(&cold).await.1, which);
        call(&b.admin).await.unwrap();
        b.clock.advance(Duration::from_secs(20));
        call(&cold).await.unwrap();
        b.finish().await;
    }
}
