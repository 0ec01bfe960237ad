//! Preferences: replaced, merged, limited.

use serde_json::{Value, json};
use tokenbroker::grpc::convert::{from_structure, structure};
use tokenbroker::model::Role;

use super::*;

fn wanted(user_id: &str, values: &Value) -> pb::Preferences {
    pb::Preferences {
        user_id: user_id.to_owned(),
        values: Some(structure(values.as_object().unwrap())),
        ..Default::default()
    }
}

async fn set(
    caller: &Caller,
    preferences: pb::Preferences,
    merge: bool,
) -> Result<pb::Preferences, Status> {
    let request = pb::UpdatePreferencesRequest {
        preferences: Some(preferences),
        merge,
    };
    let mut client = caller.administration.clone();
    let answer = client.update_preferences(request).await?;
    Ok(answer.into_inner().preferences.unwrap())
}

async fn read(caller: &Caller, user_id: &str) -> Result<pb::Preferences, Status> {
    let request = pb::GetPreferencesRequest {
        user_id: user_id.to_owned(),
    };
    let answer = caller
        .administration
        .clone()
        .get_preferences(request)
        .await?;
    Ok(answer.into_inner().preferences.unwrap())
}

fn values(preferences: pb::Preferences) -> Value {
    Value::Object(from_structure(preferences.values.unwrap()))
}

on_both_engines! {
    async fn preferences_are_replaced_and_merged(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, named("ada@example.com")).await.unwrap().id;
        let none = read(&b.admin, &id).await.unwrap();
        assert_eq!((none.update_time, values(none.clone())), (None, json!({})));
        let first = json!({ "theme": "dark", "lists": { "size": 20, "open": [1, "a", null] }, "off": null });
        let set_first = set(&b.admin, pb::Preferences { etag: none.etag.clone(), ..wanted(&id, &first) }, false).await.unwrap();
        assert_eq!(values(set_first.clone()), first);
        let patch = json!({ "theme": null, "lists": { "size": 0.5 }, "new": { "gone": null } });
        let merged = set(&b.admin, pb::Preferences { etag: set_first.etag, ..wanted(&id, &patch) }, true).await.unwrap();
        let both = json!({ "lists": { "size": 0.5, "open": [1, "a", null] }, "off": null, "new": {} });
        assert_eq!(values(merged.clone()), both);
        assert_eq!(read(&b.admin, &id).await.unwrap(), merged);
        let stale = pb::Preferences { etag: none.etag, ..wanted(&id, &json!({})) };
        assert_refused(set(&b.admin, stale, false).await, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(values(set(&b.admin, wanted(&id, &json!({})), false).await.unwrap()), json!({}));
        assert_eq!(trail(&b, "user.preferences%").await.len(), 3);
        b.finish().await;
    }

    async fn of_many_merges_at_once_none_is_lost(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, named("ada@example.com")).await.unwrap().id;
        let racing: Vec<_> = (0..10).map(|number| {
            let (admin, patch) = (b.admin.clone(), wanted(&id, &json!({ format!("key-{number}"): number })));
            tokio::spawn(async move { set(&admin, patch, true).await })
        }).collect();
        for outcome in racing {
            outcome.await.unwrap().unwrap();
        }
        let all = read(&b.admin, &id).await.unwrap();
        assert_eq!((all.etag.as_str(), all.values.unwrap().fields.len()), ("v10", 10));
        b.finish().await;
    }

    async fn preferences_are_limited_in_size_and_depth_merged_or_not(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, named("ada@example.com")).await.unwrap().id;
        let half = |key: &str| json!({ key: "x".repeat(40_000) });
        set(&b.admin, wanted(&id, &half("one")), true).await.unwrap();
        let nested = (0..20).fold(json!(1), |inner, _| json!({ "a": inner }));
        let mut endless = wanted(&id, &json!({ "a": 1 }));
        endless.values.as_mut().unwrap().fields.insert("b".to_owned(), prost_types::Value::from(f64::INFINITY));
        for (bad, merge) in [
            (wanted(&id, &half("two")), true), (wanted(&id, &json!({ "a": "x".repeat(65_536) })), false),
            (wanted(&id, &json!({ "a": nested })), true), (wanted(&id, &json!({ "a": "\0" })), false), (endless, false),
        ] {
            assert_eq!(violations(&set(&b.admin, bad, merge).await.unwrap_err()), ["preferences.values"]);
        }
        set(&b.admin, wanted(&id, &nested), false).await.unwrap();
        set(&b.admin, wanted(&id, &half("two")), false).await.unwrap();
        b.finish().await;
    }

    async fn preferences_are_the_users_own(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, bob) = (create(&b.admin, named("ada@example.com")).await.unwrap(), create(&b.admin, named("bob@example.com")).await.unwrap());
        let users = b.running().users();
        let caller = signed_in(&ada, Role::User);
        let theirs = json!({ "theme": "dark" });
        let map = theirs.as_object().unwrap();
        let (id, set_own) = users.set_preferences(&caller, "me", map, false, None).await.unwrap();
        assert_eq!((id.as_str(), &set_own.values), (ada.id.as_str(), map));
        assert_eq!(&users.preferences(&caller, &ada.id).await.unwrap().1.values, map);
        assert!(matches!(users.preferences(&caller, &bob.id).await, Err(tokenbroker::Error::PermissionDenied(_))));
        assert!(matches!(users.set_preferences(&caller, &bob.id, map, false, None).await, Err(tokenbroker::Error::PermissionDenied(_))));
        let operator = b.caller(Role::Operator, Constraints::default()).await;
        assert_eq!(values(read(&operator, &ada.id).await.unwrap()), theirs);
        assert_refused(set(&operator, wanted(&ada.id, &json!({})), false).await, Code::PermissionDenied, "PERMISSION_DENIED");
        b.finish().await;
    }
}
