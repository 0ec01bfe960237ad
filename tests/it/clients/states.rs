//! Pending, active, suspended, revoked.

use super::*;

pub async fn approve(caller: &Caller, id: &str, etag: &str) -> Result<pb::Client, Status> {
    let request = pb::ApproveClientRequest {
        client_id: id.to_owned(),
        etag: etag.to_owned(),
        ..Default::default()
    };
    let answer = caller.registry.clone().approve_client(request).await?;
    Ok(answer.into_inner().client.unwrap())
}

async fn suspend(caller: &Caller, id: &str) -> Result<pb::Client, Status> {
    let request = pb::SuspendClientRequest {
        client_id: id.to_owned(),
        reason: "complaints".to_owned(),
    };
    let answer = caller.registry.clone().suspend_client(request).await?;
    Ok(answer.into_inner().client.unwrap())
}

async fn reactivate(caller: &Caller, id: &str) -> Result<pb::Client, Status> {
    let request = pb::ReactivateClientRequest {
        client_id: id.to_owned(),
        reason: "settled".to_owned(),
    };
    let answer = caller.registry.clone().reactivate_client(request).await?;
    Ok(answer.into_inner().client.unwrap())
}

async fn revoke(caller: &Caller, id: &str) -> Result<pb::Client, Status> {
    let request = pb::RevokeClientRequest {
        client_id: id.to_owned(),
        reason: "abuse".to_owned(),
    };
    let answer = caller.registry.clone().revoke_client(request).await?;
    Ok(answer.into_inner().client.unwrap())
}

async fn active(b: &Broker) -> Vec<String> {
    let view = "SELECT id AS line FROM active_oauth_clients";
    b.ground.lines(view).await
}

on_both_engines! {
    async fn a_client_is_let_in_and_out(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, zapier()).await.unwrap().id;
        assert!(active(&b).await.is_empty());
        let approved = approve(&b.admin, &id, "").await.unwrap();
        assert_eq!(approved.state(), pb::ClientState::Active);
        assert_eq!(active(&b).await, [id.as_str()]);
        let operator = b.caller(Role::Operator, Constraints::default()).await;
        let suspended = suspend(&operator, &id).await.unwrap();
        assert_eq!((suspended.state(), suspended.state_reason.as_str()), (pb::ClientState::Suspended, "complaints"));
        assert!(active(&b).await.is_empty());
        assert_refused(reactivate(&operator, &id).await, Code::PermissionDenied, "PERMISSION_DENIED");
        let again = reactivate(&b.admin, &id).await.unwrap();
        assert_eq!((again.state(), again.state_reason.as_str()), (pb::ClientState::Active, "settled"));
        let revoked = revoke(&b.admin, &id).await.unwrap();
        assert_eq!((revoked.state(), revoked.secrets.len()), (pb::ClientState::Revoked, 0));
        b.finish().await;
    }

    async fn no_way_leads_past_an_approval_or_back_from_a_revocation(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, zapier()).await.unwrap().id;
        let refuse = |outcome: Result<pb::Client, Status>| {
            assert_refused(outcome, Code::FailedPrecondition, "CLIENT_STATE");
        };
        refuse(suspend(&b.admin, &id).await);
        refuse(reactivate(&b.admin, &id).await);
        approve(&b.admin, &id, "").await.unwrap();
        suspend(&b.admin, &id).await.unwrap();
        refuse(approve(&b.admin, &id, "").await);
        revoke(&b.admin, &id).await.unwrap();
        refuse(approve(&b.admin, &id, "").await);
        refuse(suspend(&b.admin, &id).await);
        refuse(reactivate(&b.admin, &id).await);
        let named = pb::Client { id: id.clone(), name: "Anew".to_owned(), ..Default::default() };
        assert_refused(update(&b.admin, named, &["name"]).await.map(drop), Code::FailedPrecondition, "CLIENT_STATE");
        assert_refused(secrets::rotate(&b.admin, &id, None).await.map(drop), Code::FailedPrecondition, "CLIENT_STATE");
        b.finish().await;
    }

    async fn a_step_taken_twice_is_one(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, zapier()).await.unwrap().id;
        let first = approve(&b.admin, &id, "").await.unwrap();
        assert_eq!(approve(&b.admin, &id, "").await.unwrap(), first);
        assert_eq!(reactivate(&b.admin, &id).await.unwrap(), first);
        let revoked = revoke(&b.admin, &id).await.unwrap();
        assert_eq!(revoke(&b.admin, &id).await.unwrap(), revoked);
        b.finish().await;
    }

    async fn what_is_approved_is_what_was_read(engine: Engine) {
        let b = Broker::start(engine).await;
        let read = create(&b.admin, zapier()).await.unwrap();
        let elsewhere = pb::Client {
            id: read.id.clone(),
            redirect_uris: vec!["https://evil.example/cb".to_owned()],
            ..Default::default()
        };
        update(&b.admin, elsewhere, &["redirect_uris"]).await.unwrap();
        assert_refused(approve(&b.admin, &read.id, &read.etag).await, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(get(&b.admin, &read.id).await.unwrap().state(), pb::ClientState::Pending);
        b.finish().await;
    }
}
