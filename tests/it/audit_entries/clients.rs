//! Every change of an OAuth client is told.

use super::*;
use crate::fixture::scene::Scene;

fn steps(client_id: &str) -> Vec<Step> {
    let id = client_id.to_owned();
    let reason = "too many complaints".to_owned();
    vec![
        step(
            "CreateClient",
            &pb::CreateClientRequest {
                client: Some(pb::Client {
                    name: "Another".to_owned(),
                    auth_method: pb::ClientAuthMethod::None.into(),
                    redirect_uris: vec!["com.acme.app:/callback".to_owned()],
                    ..Default::default()
                }),
                ..Default::default()
            },
            &[("client.created", "client", "client_")],
        ),
        step(
            "UpdateClient",
            &pb::UpdateClientRequest {
                client: Some(pb::Client {
                    id: id.clone(),
                    description: "Changed".to_owned(),
                    ..Default::default()
                }),
                update_mask: None,
            },
            &[("client.updated", "client", &id)],
        ),
        step(
            "RotateClientSecret",
            &pb::RotateClientSecretRequest {
                client_id: id.clone(),
                ..Default::default()
            },
            &[("client.secret_rotated", "client", &id)],
        ),
        step(
            "SuspendClient",
            &pb::SuspendClientRequest {
                client_id: id.clone(),
                reason: reason.clone(),
            },
            &[("client.suspended", "client", &id)],
        ),
        step(
            "ReactivateClient",
            &pb::ReactivateClientRequest {
                client_id: id.clone(),
                ..Default::default()
            },
            &[("client.reactivated", "client", &id)],
        ),
        // It is active: nothing comes of it, and nothing is told.
        step(
            "ApproveClient",
            &pb::ApproveClientRequest {
                client_id: id.clone(),
                ..Default::default()
            },
            &[],
        ),
        step(
            "RevokeClient",
            &pb::RevokeClientRequest {
                client_id: id.clone(),
                reason,
            },
            &[("client.revoked", "client", &id)],
        ),
        step(
            "DeleteClient",
            &pb::DeleteClientRequest {
                client_id: id.clone(),
                ..Default::default()
            },
            &[("client.deleted", "client", &id)],
        ),
    ]
}

on_both_engines! {
    async fn every_change_of_a_client_is_told(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        run(&b, steps(&scene.client_id)).await;
        let all = told(&b.ground).await;
        let of = |action: &str| all.iter().find(|it| it.action == action).unwrap();
        assert_eq!(of("client.approved").detail("from"), "pending");
        assert_eq!(of("client.updated").detail("fields"), "description");
        assert!(of("client.secret_rotated").detail("secret_prefix").starts_with("tbc_"));
        assert_eq!(of("client.suspended").reason, "too many complaints");
        assert_eq!(of("client.revoked").detail("from"), "active");
        b.finish().await;
    }
}
