//! OAuth clients: registered, changed, listed, deleted.

mod secrets;
mod states;

use std::time::Duration;

use tokenbroker::grpc::convert::duration;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::fixture::leaks::Secrets;
use crate::fixture::rpcs::{Descriptors, call, channel};
use crate::fixture::scene::Scene;
use crate::fixture::*;
use crate::on_both_engines;

const HOUR: Duration = Duration::from_secs(3_600);

/// A third party that signs people in, with a secret.
fn zapier() -> pb::Client {
    pb::Client {
        name: "Zapier".to_owned(),
        auth_method: pb::ClientAuthMethod::ClientSecretPost.into(),
        redirect_uris: vec![
            "https://zapier.com/dashboard/auth/oauth/return/App1CLIAPI/".to_owned(),
        ],
        allowed_scopes: vec!["openid".to_owned(), "connections.read".to_owned()],
        ..Default::default()
    }
}

async fn create_once(
    caller: &Caller,
    client: pb::Client,
    request_id: &str,
) -> Result<pb::CreateClientResponse, Status> {
    let request = pb::CreateClientRequest {
        client: Some(client),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let made = caller.registry.clone().create_client(request).await?;
    let made = made.into_inner();
    for secret in [&made.client_secret, &made.webhook_secret] {
        if !secret.is_empty() {
            Secrets::register(secret);
        }
    }
    Ok(made)
}

async fn create(caller: &Caller, client: pb::Client) -> Result<pb::Client, Status> {
    let made = create_once(caller, client, "").await?;
    Ok(made.client.unwrap())
}

async fn get(caller: &Caller, id: &str) -> Result<pb::Client, Status> {
    let request = pb::GetClientRequest {
        client_id: id.to_owned(),
    };
    let found = caller.registry.clone().get_client(request).await?;
    Ok(found.into_inner().client.unwrap())
}

async fn update(
    caller: &Caller,
    client: pb::Client,
    paths: &[&str],
) -> Result<pb::UpdateClientResponse, Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = pb::UpdateClientRequest {
        client: Some(client),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let answer = caller.registry.clone().update_client(request).await?;
    Ok(answer.into_inner())
}

async fn delete(caller: &Caller, id: &str, etag: &str) -> Result<(), Status> {
    let request = pb::DeleteClientRequest {
        client_id: id.to_owned(),
        etag: etag.to_owned(),
    };
    let answer = caller.registry.clone().delete_client(request).await;
    answer.map(drop)
}

async fn list(
    caller: &Caller,
    request: pb::ListClientsRequest,
) -> Result<pb::ListClientsResponse, Status> {
    let answer = caller.registry.clone().list_clients(request).await?;
    Ok(answer.into_inner())
}

async fn stats(caller: &Caller, id: &str) -> pb::ClientStats {
    let request = pb::GetClientStatsRequest {
        client_id: id.to_owned(),
    };
    let answer = caller.registry.clone().get_client_stats(request).await;
    answer.unwrap().into_inner().stats.unwrap()
}

on_both_engines! {
    async fn a_client_comes_back_as_it_was_registered(engine: Engine) {
        let b = Broker::start(engine).await;
        let wanted = pb::Client {
            description: "Workflows".to_owned(),
            logo_url: "https://zapier.com/logo.png".to_owned(),
            homepage_url: "https://zapier.com/".to_owned(),
            access_token_lifetime: Some(duration(Duration::from_secs(600))),
            require_pkce: Some(false),
            trusted: true,
            rate_limit_per_hour: 1_000,
            webhook_url: "https://hooks.zapier.com/1".to_owned(),
            webhook_events: vec!["token.revoked".to_owned()],
            ..zapier()
        };
        let made = create(&b.admin, wanted.clone()).await.unwrap();
        assert!(made.id.starts_with("client_"));
        assert_eq!(made.state(), pb::ClientState::Pending);
        assert!(made.has_webhook_secret);
        let expected = pb::Client {
            grant_types: vec![
                pb::ClientGrantType::AuthorizationCode.into(),
                pb::ClientGrantType::RefreshToken.into(),
            ],
            response_types: vec![pb::ClientResponseType::Code.into()],
            refresh_token_lifetime: Some(duration(30 * 24 * HOUR)),
            access_token_format: pb::AccessTokenFormat::Opaque.into(),
            id: made.id.clone(),
            state: made.state,
            state_change_time: made.state_change_time,
            secrets: made.secrets.clone(),
            has_webhook_secret: true,
            created_by: made.created_by.clone(),
            create_time: made.create_time,
            update_time: made.update_time,
            etag: made.etag.clone(),
            ..wanted
        };
        assert_eq!(made, expected);
        assert_eq!(get(&b.admin, &made.id).await.unwrap(), made);
        b.finish().await;
    }

    async fn unsafe_clients_are_refused_with_every_fault(engine: Engine) {
        let b = Broker::start(engine).await;
        let refused = create(&b.admin, pb::Client {
            name: String::new(),
            auth_method: pb::ClientAuthMethod::None.into(),
            redirect_uris: vec!["http://acme.example/cb".to_owned(), "https://acme.example/*".to_owned()],
            require_pkce: Some(false),
            webhook_url: "http://acme.example/".to_owned(),
            ..Default::default()
        }).await.unwrap_err();
        assert_eq!(violations(&refused), [
            "client.name", "client.redirect_uris[0]", "client.redirect_uris[1]", "client.require_pkce", "client.webhook_url",
        ]);
        let unset = create(&b.admin, pb::Client { auth_method: 0, ..zapier() }).await.unwrap_err();
        assert_eq!(violations(&unset), ["client.auth_method"]);
        assert!(list(&b.admin, pb::ListClientsRequest::default()).await.unwrap().clients.is_empty());
        b.finish().await;
    }

    async fn nothing_is_to_be_called_in_our_own_network(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.providers.allow_private_networks = false).await;
        let refused = create(&b.admin, pb::Client {
            auth_method: pb::ClientAuthMethod::PrivateKeyJwt.into(),
            jwks_uri: "https://169.254.169.254/keys".to_owned(),
            webhook_url: "https://localhost/hook".to_owned(),
            ..zapier()
        }).await.unwrap_err();
        assert_eq!(violations(&refused), ["client.jwks_uri", "client.webhook_url"]);
        b.finish().await;
    }

    async fn a_mask_says_what_changes_of_a_client(engine: Engine) {
        let b = Broker::start(engine).await;
        let first = create(&b.admin, zapier()).await.unwrap();
        let changed = pb::Client { id: first.id.clone(), etag: first.etag.clone(), name: "Acme".to_owned(), ..Default::default() };
        let second = update(&b.admin, changed.clone(), &["name", "allowed_scopes"]).await.unwrap().client.unwrap();
        assert_eq!((second.name.as_str(), second.allowed_scopes.len()), ("Acme", 0));
        assert_eq!(second.redirect_uris, first.redirect_uris);
        assert_refused(update(&b.admin, changed, &["name"]).await, Code::Aborted, "ETAG_MISMATCH");
        // What is changed has to go with what is not.
        let named = pb::Client { id: first.id.clone(), ..Default::default() };
        let refused = update(&b.admin, named.clone(), &["redirect_uris"]).await.unwrap_err();
        assert_eq!(violations(&refused), ["client.redirect_uris"]);
        let refused = update(&b.admin, named.clone(), &["state"]).await.unwrap_err();
        assert_eq!(violations(&refused), ["update_mask"]);
        // A change that changes nothing keeps the etag.
        assert_eq!(update(&b.admin, named, &["description", "response_types"]).await.unwrap().client.unwrap(), second);
        b.finish().await;
    }

    async fn clients_are_listed_page_by_page_and_by_state(engine: Engine) {
        let b = Broker::start(engine).await;
        let mut made = Vec::new();
        for _ in 0..3 {
            made.push(create(&b.admin, zapier()).await.unwrap().id);
        }
        states::approve(&b.admin, &made[1], "").await.unwrap();
        let mut seen = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListClientsRequest { page_size: 2, page_token, ..Default::default() };
            let page = list(&b.admin, request).await.unwrap();
            assert!(page.clients.len() <= 2 && page.clients.iter().all(|it| it.secrets.len() == 1));
            seen.extend(page.clients.into_iter().map(|it| it.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, made);
        let request = pb::ListClientsRequest { state: pb::ClientState::Active.into(), ..Default::default() };
        let active = list(&b.admin, request).await.unwrap().clients;
        assert_eq!(active.iter().map(|it| &it.id).collect::<Vec<_>>(), [&made[1]]);
        b.finish().await;
    }

    async fn a_deleted_client_is_found_by_nobody(engine: Engine) {
        let b = Broker::start(engine).await;
        let client = create(&b.admin, zapier()).await.unwrap();
        assert_refused(delete(&b.admin, &client.id, "v7").await, Code::Aborted, "ETAG_MISMATCH");
        delete(&b.admin, &client.id, &client.etag).await.unwrap();
        assert_refused(get(&b.admin, &client.id).await, Code::NotFound, "CLIENT_NOT_FOUND");
        assert_refused(delete(&b.admin, &client.id, "").await, Code::NotFound, "CLIENT_NOT_FOUND");
        assert!(list(&b.admin, pb::ListClientsRequest::default()).await.unwrap().clients.is_empty());
        // The row stays, without its secrets.
        let left = "SELECT id AS line FROM oauth_clients WHERE deleted_at IS NOT NULL";
        assert_eq!(b.ground.lines(left).await, [client.id]);
        assert!(b.ground.lines("SELECT client_id AS line FROM oauth_client_secrets").await.is_empty());
        b.finish().await;
    }

    async fn a_repeated_request_registers_one_client(engine: Engine) {
        let b = Broker::start(engine).await;
        let request_id = Uuid::now_v7().to_string();
        let first = create_once(&b.admin, zapier(), &request_id).await.unwrap();
        let again = create_once(&b.admin, zapier(), &request_id).await.unwrap();
        assert_eq!((&again.client, &again.client_secret), (&first.client, &first.client_secret));
        // Another admin does not learn the secret by repeating the request.
        let other = b.caller(Role::Admin, Constraints::default()).await;
        assert_eq!(violations(&create_once(&other, zapier(), &request_id).await.unwrap_err()), ["request_id"]);
        b.clock.advance(HOUR);
        assert_refused(create_once(&b.admin, zapier(), &request_id).await.map(drop), Code::AlreadyExists, "ALREADY_EXISTS");
        assert_eq!(list(&b.admin, pb::ListClientsRequest::default()).await.unwrap().clients.len(), 1);
        b.finish().await;
    }

    async fn use_is_told_as_it_was_counted(engine: Engine) {
        let b = Broker::start(engine).await;
        let client = create(&b.admin, zapier()).await.unwrap();
        let never = pb::ClientStats { client_id: client.id.clone(), ..Default::default() };
        assert_eq!(stats(&b.admin, &client.id).await, never);
        let view = "SELECT id || ' ' || authorizations || ' ' || tokens AS line FROM oauth_client_stats";
        assert_eq!(b.ground.lines(view).await, [format!("{} 0 0", client.id)]);
        let at = b.ground.word("1000000", "to_timestamp(1)");
        let row = format!("('{}', 'default', 2, 30, {at})", client.id);
        b.ground.execute(&format!("INSERT INTO oauth_client_usage VALUES {row}")).await;
        let told = stats(&b.admin, &client.id).await;
        assert_eq!((told.authorization_count, told.token_count), (2, 30));
        assert_eq!(told.last_use_time.unwrap().seconds, 1);
        assert_eq!(b.ground.lines(view).await, [format!("{} 2 30", client.id)]);
        b.finish().await;
    }

    async fn who_is_held_to_a_part_of_the_tenant_sees_no_clients(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        let held = Constraints { owners: vec!["team-1/*".to_owned()], ..Default::default() };
        let bearer = format!("Bearer {}", b.key(Role::Admin, held).await);
        let channel = channel(b.grpc_address());
        let rpcs = Descriptors::own().rpcs().into_iter();
        for rpc in rpcs.filter(|rpc| rpc.name.contains("Client")) {
            let request = scene.requests()[rpc.name.as_str()].clone();
            let refused = call(&channel, Some(&bearer), &rpc.path, request).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{}", rpc.name);
            assert!(refused.message().contains("use a caller without constraints"), "{}", rpc.name);
        }
        b.finish().await;
    }
}
