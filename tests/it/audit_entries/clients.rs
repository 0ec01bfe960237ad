//! What the entries of an OAuth client say beyond what every entry says.

use super::*;
use crate::fixture::rpcs::{Descriptors, call, channel};
use crate::fixture::scene::Scene;

/// Sends the scene's requests of these RPCs, as an admin.
async fn send(b: &Broker, scene: &Scene, names: &[&str]) {
    let bearer = format!("Bearer {}", known(b, Role::Admin).await.0);
    let channel = channel(b.grpc_address());
    let (requests, rpcs) = (scene.requests(), Descriptors::own().rpcs());
    for name in names {
        let rpc = rpcs.iter().find(|rpc| rpc.name == *name).unwrap();
        let request = requests[name].clone();
        let answer = call(&channel, Some(&bearer), &rpc.path, request).await;
        answer.unwrap_or_else(|status| panic!("{name}: {status:?}"));
    }
}

on_both_engines! {
    async fn a_change_of_a_client_tells_what_changed(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        // It is active already, so that its approval is none and is not told.
        send(&b, &scene, &["UpdateClient", "RotateClientSecret", "ApproveClient", "RevokeClient"]).await;
        let all = told(&b.ground).await;
        let of = |action: &str| {
            let mut found = all.iter().filter(|it| it.action == action);
            let it = found.next().unwrap();
            assert!(found.next().is_none(), "{action} is told twice");
            it
        };
        assert!(of("client.created").detail("secret_prefix").starts_with("tbc_"));
        assert_eq!(of("client.approved").detail("from"), "pending");
        assert_eq!(of("client.updated").detail("fields"), "description");
        assert!(of("client.secret_rotated").detail("secret_prefix").starts_with("tbc_"));
        assert_eq!(of("client.revoked").detail("from"), "active");
        b.finish().await;
    }
}
