//! Users: made, named, changed, switched off, deleted.

mod command_line;
mod guesses;
mod passwords;
mod preferences;

use std::sync::Arc;
use std::time::Duration;

use tokenbroker::access::audit::Trail;
use tokenbroker::access::limits::Limiter;
use tokenbroker::access::{self, Credential, Origin, Principal};
use tokenbroker::maintenance::Retention;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::fixture::leaks::Secrets;
use crate::fixture::*;
use crate::on_both_engines;

/// A password that nobody else has, for the search for leaks.
pub fn phrase() -> String {
    let phrase = format!("quite uncommon {:016x}", fastrand::u64(..));
    Secrets::register_as("password", &phrase);
    phrase
}

/// A user without anything that must not be left out.
pub fn named(email: &str) -> pb::CreateUserRequest {
    pb::CreateUserRequest {
        email: email.to_owned(),
        ..Default::default()
    }
}

pub async fn create(caller: &Caller, new: pb::CreateUserRequest) -> Result<pb::User, Status> {
    let answer = caller.administration.clone().create_user(new).await?;
    Ok(answer.into_inner().user.unwrap())
}

/// A user with this password.
pub async fn with_password(b: &Broker, email: &str, password: &str) -> pb::User {
    let new = pb::CreateUserRequest {
        password: password.to_owned(),
        ..named(email)
    };
    create(&b.admin, new).await.unwrap()
}

pub async fn get(caller: &Caller, user_id: &str) -> Result<pb::User, Status> {
    let request = pb::GetUserRequest {
        user_id: user_id.to_owned(),
        ..Default::default()
    };
    let answer = caller.administration.clone().get_user(request).await?;
    Ok(answer.into_inner().user.unwrap())
}

async fn get_by_email(caller: &Caller, email: &str) -> Result<pb::User, Status> {
    let request = pb::GetUserRequest {
        email: email.to_owned(),
        ..Default::default()
    };
    let answer = caller.administration.clone().get_user(request).await?;
    Ok(answer.into_inner().user.unwrap())
}

async fn list(
    caller: &Caller,
    request: pb::ListUsersRequest,
) -> Result<pb::ListUsersResponse, Status> {
    let answer = caller.administration.clone().list_users(request).await?;
    Ok(answer.into_inner())
}

async fn emails(caller: &Caller, query: &str) -> Vec<String> {
    let request = pb::ListUsersRequest {
        query: query.to_owned(),
        ..Default::default()
    };
    let listed = list(caller, request).await.unwrap().users;
    listed.into_iter().map(|user| user.email).collect()
}

async fn update(caller: &Caller, user: pb::User, paths: &[&str]) -> Result<pb::User, Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = pb::UpdateUserRequest {
        user: Some(user),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let answer = caller.administration.clone().update_user(request).await?;
    Ok(answer.into_inner().user.unwrap())
}

pub async fn deactivate(caller: &Caller, id: &str) -> Result<pb::User, Status> {
    let request = pb::DeactivateUserRequest {
        user_id: id.to_owned(),
        reason: "on leave".to_owned(),
    };
    let answer = caller
        .administration
        .clone()
        .deactivate_user(request)
        .await?;
    Ok(answer.into_inner().user.unwrap())
}

async fn reactivate(caller: &Caller, id: &str) -> Result<pb::User, Status> {
    let request = pb::ReactivateUserRequest {
        user_id: id.to_owned(),
    };
    let answer = caller
        .administration
        .clone()
        .reactivate_user(request)
        .await?;
    Ok(answer.into_inner().user.unwrap())
}

async fn delete(caller: &Caller, id: &str, etag: &str) -> Result<(), Status> {
    let request = pb::DeleteUserRequest {
        user_id: id.to_owned(),
        etag: etag.to_owned(),
    };
    let answer = caller.administration.clone().delete_user(request).await;
    answer.map(drop)
}

/// A user as their session would make them known, below the wire.
pub fn signed_in(user: &pb::User, role: Role) -> access::Caller {
    let principal = Principal {
        id: user.id.clone(),
        name: user.email.clone(),
        tenant: "default".to_owned(),
        role,
        constraints: Constraints {
            owners: vec![user.owner.clone()],
            ..Default::default()
        },
        credential: Credential::Session {
            hash: [7; 32],
            session_id: "sess_of_a_test".to_owned(),
        },
        expires_at: None,
        limiter: Arc::new(Limiter::unlimited()),
    };
    let origin = Origin {
        ip: Some("192.0.2.1".parse().unwrap()),
        ..Default::default()
    };
    access::Caller::new(Arc::new(principal), origin)
}

/// What the trail says was done, with the reasons.
pub async fn trail(b: &Broker, action: &str) -> Vec<String> {
    let query = format!(
        "SELECT action || ' ' || success || ' ' || reason AS line FROM audit_events
         WHERE action LIKE '{action}' ORDER BY id"
    );
    let lines = b.ground.lines(&query).await;
    let plain = |line: String| line.replace(" 1 ", " true ").replace(" 0 ", " false ");
    lines.into_iter().map(plain).collect()
}

fn only(owners: &[&str]) -> Constraints {
    Constraints {
        owners: owners.iter().map(|owner| (*owner).to_owned()).collect(),
        ..Default::default()
    }
}

on_both_engines! {
    async fn a_user_is_found_by_id_and_address_in_any_case(engine: Engine) {
        let b = Broker::start(engine).await;
        let made = create(&b.admin, pb::CreateUserRequest {
            display_name: "Ada".to_owned(), email_verified: true, ..named("Ada@Example.COM")
        }).await.unwrap();
        assert_eq!((made.email.as_str(), made.role()), ("ada@example.com", pb::Role::User));
        assert_eq!((made.owner.as_str(), made.state()), (made.id.as_str(), pb::UserState::Active));
        assert!(!made.has_password && made.email_verified && made.last_sign_in_time.is_none());
        assert_eq!(get(&b.admin, &made.id).await.unwrap(), made);
        assert_eq!(get_by_email(&b.admin, "ADA@example.com").await.unwrap(), made);
        assert_refused(get_by_email(&b.admin, "bob@example.com").await, Code::NotFound, "USER_NOT_FOUND");
        assert_eq!(trail(&b, "user.%").await, ["user.created true "]);
        b.finish().await;
    }

    async fn every_fault_of_a_new_user_is_told_at_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let refused = create(&b.admin, pb::CreateUserRequest {
            email: "no address".to_owned(), display_name: "a\u{7}".to_owned(), password: "tiny words".to_owned(),
            owner: "any*".to_owned(), request_id: "mine".to_owned(), role: 99, ..Default::default()
        }).await.unwrap_err();
        assert_eq!(violations(&refused), ["request_id", "role", "email", "display_name", "owner", "password"]);
        assert!(!refused.message().contains("tiny words"), "{}", refused.message());
        b.finish().await;
    }

    async fn an_address_and_an_owner_are_one_users(engine: Engine) {
        let b = Broker::start(engine).await;
        let new = |email: &str, owner: &str| pb::CreateUserRequest { owner: owner.to_owned(), ..named(email) };
        let ada = create(&b.admin, new("ada@example.com", "owner-1")).await.unwrap();
        let bob = create(&b.admin, new("bob@example.com", "owner-2")).await.unwrap();
        for (email, owner, taken) in [("ADA@example.com", "owner-3", "ada@example.com"), ("eve@example.com", "owner-1", "owner-1")] {
            let refused = create(&b.admin, new(email, owner)).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "ALREADY_EXISTS"));
            assert_eq!(refused.get_details_error_info().unwrap().metadata["name"], taken);
            let field = if taken == "owner-1" { "owner" } else { "email" };
            assert!(refused.message().contains(field), "{}", refused.message());
            let changed = pb::User { id: bob.id.clone(), email: email.to_owned(), owner: owner.to_owned(), ..Default::default() };
            assert_refused(update(&b.admin, changed, &["email", "owner"]).await, Code::AlreadyExists, "ALREADY_EXISTS");
        }
        // Another tenant's users have nothing to do with these.
        let other = b.caller_in("acme", Role::Admin, Constraints::default()).await;
        create(&other, new("ada@example.com", "owner-1")).await.unwrap();
        assert_eq!(get(&b.admin, &bob.id).await.unwrap(), bob);
        assert_refused(get(&other, &ada.id).await, Code::NotFound, "USER_NOT_FOUND");
        b.finish().await;
    }

    async fn of_many_who_take_an_address_at_once_one_gets_it(engine: Engine) {
        let b = Broker::start(engine).await;
        let racing: Vec<_> = (0..8).map(|_| {
            let admin = b.admin.clone();
            tokio::spawn(async move { create(&admin, named("contested@example.com")).await })
        }).collect();
        let mut made = 0;
        for outcome in racing {
            match outcome.await.unwrap() {
                Ok(_) => made += 1,
                Err(status) => assert_eq!(reason(&status), "ALREADY_EXISTS", "{status:?}"),
            }
        }
        assert_eq!(made, 1);
        b.finish().await;
    }

    async fn a_repeated_create_makes_one_user(engine: Engine) {
        let b = Broker::start(engine).await;
        let new = pb::CreateUserRequest {
            password: phrase(), request_id: Uuid::now_v7().to_string(), ..named("ada@example.com")
        };
        let made = create(&b.admin, new.clone()).await.unwrap();
        let before = b.running().users().passwords().computed();
        assert_eq!(create(&b.admin, new.clone()).await.unwrap(), made);
        assert_eq!(b.running().users().passwords().computed(), before);
        let other = create(&b.admin, pb::CreateUserRequest { password: phrase(), ..new }).await.unwrap_err();
        assert_eq!(violations(&other), ["request_id"]);
        b.finish().await;
    }

    async fn users_are_listed_by_state_and_by_what_their_names_contain(engine: Engine) {
        let b = Broker::start(engine).await;
        let mut all = Vec::new();
        for (email, name) in [("ada@example.com", "Ada ЁЖ"), ("b_b@example.com", "100% Bob"), ("eve@example.org", "Eve\\")] {
            all.push(create(&b.admin, pb::CreateUserRequest { display_name: name.to_owned(), ..named(email) }).await.unwrap());
        }
        assert_eq!(emails(&b.admin, "").await, ["ada@example.com", "b_b@example.com", "eve@example.org"]);
        for (query, found) in [("EXAMPLE.org", 2), ("ёж", 0), ("%", 1), ("_", 1), ("\\", 2), ("com\nada", 9)] {
            let listed = list(&b.admin, pb::ListUsersRequest { query: query.to_owned(), ..Default::default() }).await;
            match all.get(found) {
                Some(user) => assert_eq!(listed.unwrap().users, std::slice::from_ref(user), "{query:?}"),
                None => assert_eq!(violations(&listed.unwrap_err()), ["query"]),
            }
        }
        deactivate(&b.admin, &all[1].id).await.unwrap();
        let inactive = pb::ListUsersRequest { state: pb::UserState::Inactive.into(), ..Default::default() };
        assert_eq!(list(&b.admin, inactive).await.unwrap().users[0].email, "b_b@example.com");
        let mut page = pb::ListUsersRequest { page_size: 2, ..Default::default() };
        let first = list(&b.admin, page.clone()).await.unwrap();
        page.page_token = first.next_page_token.clone();
        let last = list(&b.admin, page).await.unwrap();
        assert_eq!((first.users.len(), last.users.len(), last.next_page_token.as_str()), (2, 1, ""));
        assert_eq!(last.users[0], all[2]);
        b.finish().await;
    }

    async fn a_mask_names_what_changes_and_an_etag_what_was_read(engine: Engine) {
        let b = Broker::start(engine).await;
        let made = create(&b.admin, pb::CreateUserRequest { email_verified: true, display_name: "Ada".to_owned(), ..named("ada@example.com") }).await.unwrap();
        b.clock.advance(std::time::Duration::from_secs(1));
        let wanted = pb::User { email: "Lovelace@example.com".to_owned(), display_name: "Not asked for".to_owned(), ..made.clone() };
        let changed = update(&b.admin, wanted, &["email"]).await.unwrap();
        assert_eq!((changed.email.as_str(), changed.display_name.as_str()), ("lovelace@example.com", "Ada"));
        assert!(!changed.email_verified && changed.etag != made.etag && changed.update_time != made.update_time);
        let stale = pb::User { display_name: "Countess".to_owned(), ..made.clone() };
        assert_refused(update(&b.admin, stale.clone(), &["display_name"]).await, Code::Aborted, "ETAG_MISMATCH");
        assert_refused(delete(&b.admin, &made.id, &made.etag).await, Code::Aborted, "ETAG_MISMATCH");
        let forced = update(&b.admin, pb::User { etag: String::new(), ..stale }, &["display_name"]).await.unwrap();
        assert_eq!(forced.display_name, "Countess");
        assert_eq!(update(&b.admin, forced.clone(), &["*"]).await.unwrap(), forced, "nothing to change");
        assert_eq!(trail(&b, "user.updated").await.len(), 2);
        b.finish().await;
    }

    async fn a_user_is_switched_off_and_on(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, named("ada@example.com")).await.unwrap().id;
        let off = deactivate(&b.admin, &id).await.unwrap();
        assert_eq!(off.state(), pb::UserState::Inactive);
        assert_eq!(deactivate(&b.admin, &id).await.unwrap(), off);
        assert_eq!(reactivate(&b.admin, &id).await.unwrap().state(), pb::UserState::Active);
        let expected = ["user.created true ", "user.deactivated true on leave", "user.reactivated true "];
        assert_eq!(trail(&b, "user.%").await, expected);
        b.finish().await;
    }

    async fn deletion_is_soft_and_frees_the_address_and_the_owner(engine: Engine) {
        let b = Broker::start(engine).await;
        let new = pb::CreateUserRequest { owner: "owner-1".to_owned(), password: phrase(), ..named("ada@example.com") };
        let first = create(&b.admin, new.clone()).await.unwrap();
        delete(&b.admin, &first.id, &first.etag).await.unwrap();
        assert_refused(get(&b.admin, &first.id).await, Code::NotFound, "USER_NOT_FOUND");
        assert_refused(delete(&b.admin, &first.id, "").await, Code::NotFound, "USER_NOT_FOUND");
        assert!(emails(&b.admin, "").await.is_empty());
        let kept = "SELECT id AS line FROM users WHERE deleted_at IS NOT NULL AND password_hash IS NULL";
        assert_eq!(b.ground.lines(kept).await, std::slice::from_ref(&first.id));
        let second = create(&b.admin, new).await.unwrap();
        assert_ne!(second.id, first.id);
        b.finish().await;
    }

    async fn who_may_only_read_users_changes_none(engine: Engine) {
        let b = Broker::start(engine).await;
        let user = create(&b.admin, named("ada@example.com")).await.unwrap();
        let operator = b.caller(Role::Operator, Constraints::default()).await;
        assert_eq!(get(&operator, &user.id).await.unwrap(), user);
        let denied = "PERMISSION_DENIED";
        assert_refused(create(&operator, named("eve@example.com")).await, Code::PermissionDenied, denied);
        assert_refused(update(&operator, user.clone(), &["display_name"]).await, Code::PermissionDenied, denied);
        assert_refused(deactivate(&operator, &user.id).await, Code::PermissionDenied, denied);
        assert_refused(delete(&operator, &user.id, "").await, Code::PermissionDenied, denied);
        assert_refused(passwords::set(&operator, &user.id, &phrase()).await, Code::PermissionDenied, denied);
        let consumer = b.caller(Role::Consumer, Constraints::default()).await;
        for id in [user.id.as_str(), "user_01h455vb4pex5vsknk084sn02q"] {
            assert_refused(get(&consumer, id).await, Code::PermissionDenied, denied);
        }
        b.finish().await;
    }

    async fn nobody_makes_or_takes_over_a_user_who_may_more(engine: Engine) {
        let b = Broker::start(engine).await;
        let chief = create(&b.admin, pb::CreateUserRequest { role: pb::Role::Admin.into(), owner: "acme-0".to_owned(), ..named("chief@example.com") }).await.unwrap();
        let branch = b.caller(Role::Admin, only(&["acme-*"])).await;
        // Nobody gives more than they hold.
        for (role, owner, owners, field) in [
            (pb::Role::Admin, "acme-1", vec![], "constraints.owners"),
            (pb::Role::Admin, "acme-1", vec!["*"], "constraints.owners"),
            (pb::Role::User, "other-1", vec![], "owner"),
            (pb::Role::User, "", vec![], "owner"),
        ] {
            let constraints = pb::Constraints { owners: owners.into_iter().map(str::to_owned).collect(), ..Default::default() };
            let new = pb::CreateUserRequest { role: role.into(), owner: owner.to_owned(), constraints: Some(constraints), ..named("eve@example.com") };
            assert_eq!(violations(&create(&branch, new).await.unwrap_err()), [field]);
        }
        let own = create(&branch, pb::CreateUserRequest { owner: "acme-1".to_owned(), ..named("eve@example.com") }).await.unwrap();
        let wider = pb::User { role: pb::Role::Admin.into(), etag: String::new(), ..own.clone() };
        assert_eq!(violations(&update(&branch, wider, &["role"]).await.unwrap_err()), ["user.constraints.owners"]);
        let moved = pb::User { owner: "other-1".to_owned(), ..own };
        assert_eq!(violations(&update(&branch, moved, &["owner"]).await.unwrap_err()), ["user.owner"]);
        // Nor becomes who does, nor keeps them out.
        let denied = "PERMISSION_DENIED";
        assert_refused(passwords::set(&branch, &chief.id, &phrase()).await, Code::PermissionDenied, denied);
        let renamed = pb::User { email: "eve2@example.com".to_owned(), ..chief.clone() };
        assert_refused(update(&branch, renamed, &["email"]).await, Code::PermissionDenied, denied);
        assert_refused(deactivate(&branch, &chief.id).await, Code::PermissionDenied, denied);
        assert_refused(delete(&branch, &chief.id, "").await, Code::PermissionDenied, denied);
        b.finish().await;
    }

    async fn a_constrained_caller_sees_only_the_users_of_its_owners(engine: Engine) {
        let b = Broker::start(engine).await;
        let new = |email: &str, owner: &str| pb::CreateUserRequest { owner: owner.to_owned(), ..named(email) };
        create(&b.admin, new("ada@example.com", "acme-1")).await.unwrap();
        let hidden = create(&b.admin, new("bob@example.com", "other-1")).await.unwrap();
        let branch = b.caller(Role::Operator, only(&["acme-*"])).await;
        assert_eq!(emails(&branch, "").await, ["ada@example.com"]);
        for id in [hidden.id.as_str(), "user_01h455vb4pex5vsknk084sn02q"] {
            assert_refused(get(&branch, id).await, Code::PermissionDenied, "PERMISSION_DENIED");
        }
        for email in ["bob@example.com", "nobody@example.com"] {
            assert_refused(get_by_email(&branch, email).await, Code::PermissionDenied, "PERMISSION_DENIED");
        }
        b.finish().await;
    }

    async fn a_signed_in_user_may_ask_for_themselves_alone(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, bob) = (create(&b.admin, named("ada@example.com")).await.unwrap(), create(&b.admin, named("bob@example.com")).await.unwrap());
        let caller = signed_in(&ada, Role::User);
        let users = b.running().users();
        use access::users::UserName::{Email, Id};
        for own in [Id("me".to_owned()), Id(ada.id.clone()), Email("ADA@example.com".to_owned())] {
            assert_eq!(users.get(&caller, &own).await.unwrap().id, ada.id);
        }
        for other in [Id(bob.id), Email("bob@example.com".to_owned()), Email("nobody@example.com".to_owned())] {
            assert!(matches!(users.get(&caller, &other).await, Err(tokenbroker::Error::PermissionDenied("users.read"))));
        }
        assert_eq!(violations(&get(&b.admin, "me").await.unwrap_err()), ["user_id"]);
        b.finish().await;
    }

    async fn an_admin_does_not_lose_their_own_role_by_mistake(engine: Engine) {
        let b = Broker::start(engine).await;
        let admin = create(&b.admin, pb::CreateUserRequest { role: pb::Role::Admin.into(), ..named("ada@example.com") }).await.unwrap();
        let mut caller = signed_in(&admin, Role::Admin);
        let unconstrained = Principal { constraints: Constraints::default(), ..Principal::clone(&caller) };
        caller = access::Caller::new(Arc::new(unconstrained), Origin::default());
        let changes = access::users::UserChanges { role: Some(Role::User), ..Default::default() };
        let refused = b.running().users().update(&caller, &admin.id, &changes, None).await;
        assert!(matches!(refused, Err(tokenbroker::Error::InvalidArgument(faults)) if faults[0].field == "user.role"));
        let renamed = access::users::UserChanges { display_name: Some("Ada".to_owned()), ..Default::default() };
        b.running().users().update(&caller, &admin.id, &renamed, None).await.unwrap();
        b.finish().await;
    }

    async fn replicas_that_purge_a_user_at_once_record_it_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let user = create(&b.admin, named("ada@example.com")).await.unwrap();
        delete(&b.admin, &user.id, "").await.unwrap();
        b.clock.advance(b.config.retention.deleted_users + Duration::from_secs(1));
        let keyring = tokenbroker::bootstrap::keyring(&b.config).unwrap();
        let store = b.ground.store().await;
        let trail = Trail::new(store.clone(), keyring, b.clock.clone(), &b.config, Default::default());
        let (trail, config) = (Arc::new(trail), &b.config);
        let replica = || Retention::new(store.clone(), b.clock.clone(), config.retention.clone(), config.events.retention, trail.clone());
        let (one, other) = (replica(), replica());
        let (one, other) = tokio::join!(one.sweep(), other.sweep());
        assert!(one.unwrap().users + other.unwrap().users <= 1);
        assert_eq!(self::trail(&b, "user.purged").await, ["user.purged true "]);
        b.finish().await;
    }
}
