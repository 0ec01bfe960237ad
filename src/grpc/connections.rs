//! Connections on the wire.

use std::sync::Arc;

use prost_types::FieldMask;
use tonic::{Request, Response, Status};

use super::caller::principal;
use super::convert;
use super::fields::{CLIENT_ID_MAX, Fields, NAME_MAX, ordered};
use super::mask::Mask;
use super::page::Page;
use super::token_broker::Context;
use crate::broker::connections::{Changes, ListFilter, ProviderRevocation};
use crate::error::Error;
use crate::model::token_status::{Standing, TokenStatus, missing_scopes};
use crate::model::{ConnectionDetails, IdKind, Timestamp};
use crate::pb;

/// Most labels of a connection, and the longest key and value, in characters.
const LABELS_MAX: (usize, usize, usize) = (64, 128, 1_024);

/// Fields that a caller may change.
const MUTABLE: [&str; 3] = ["refresh_policy", "display_name", "labels"];

pub(super) async fn get(
    context: &Context,
    request: Request<pb::GetConnectionRequest>,
) -> Result<Response<pb::GetConnectionResponse>, Status> {
    let principal = principal(&request)?;
    let id = request.into_inner().connection_id;
    let mut fields = Fields::new();
    fields.id("connection_id", &id, IdKind::Connection);
    fields.finish()?;
    let connections = Arc::clone(&context.connections);
    let found = context
        .tasks
        .run(async move { connections.get(&principal, &id).await })
        .await?;
    Ok(Response::new(pb::GetConnectionResponse {
        connection: Some(connection(&found, context.clock.now())),
    }))
}

pub(super) async fn list(
    context: &Context,
    request: Request<pb::ListConnectionsRequest>,
) -> Result<Response<pb::ListConnectionsResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.text("app", &request.app, CLIENT_ID_MAX);
    fields.text("owner", &request.owner, NAME_MAX);
    fields.text("provider", &request.provider, NAME_MAX);
    let standing = standing_filter(request.state);
    fields.check(standing.is_some(), "state", "is no state of a connection");
    let bound_to = (
        "ListConnections",
        &request.app,
        &request.owner,
        &request.provider,
        request.state,
    );
    let page = Page::of(request.page_size, &request.page_token, bound_to);
    let page = checked(fields, page)?;
    let filter = ListFilter {
        app: request.app,
        owner: request.owner,
        provider: request.provider,
        standing: standing.flatten(),
    };
    let connections = Arc::clone(&context.connections);
    let (after, size) = (page.after.clone(), page.size);
    let listed = context
        .tasks
        .run(async move { connections.list(&principal, &filter, &after, size).await })
        .await?;
    let now = context.clock.now();
    Ok(Response::new(pb::ListConnectionsResponse {
        connections: listed
            .connections
            .iter()
            .map(|found| connection(found, now))
            .collect(),
        next_page_token: listed
            .next
            .map_or_else(String::new, |after| token_behind(&page, &after)),
    }))
}

pub(super) async fn update(
    context: &Context,
    request: Request<pb::UpdateConnectionRequest>,
) -> Result<Response<pb::UpdateConnectionResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let wanted = request.connection.unwrap_or_default();
    let mut fields = Fields::new();
    fields.id("connection.id", &wanted.id, IdKind::Connection);
    let expected = version(&mut fields, "connection.etag", &wanted.etag);
    let id = wanted.id.clone();
    let changes = changes(&mut fields, wanted, request.update_mask);
    fields.finish()?;
    let connections = Arc::clone(&context.connections);
    let updated = context
        .tasks
        .run(async move {
            connections
                .update(&principal, &id, &changes, expected)
                .await
        })
        .await?;
    Ok(Response::new(pb::UpdateConnectionResponse {
        connection: Some(connection(&updated, context.clock.now())),
    }))
}

pub(super) async fn delete(
    context: &Context,
    request: Request<pb::DeleteConnectionRequest>,
) -> Result<Response<pb::DeleteConnectionResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.id("connection_id", &request.connection_id, IdKind::Connection);
    let expected = version(&mut fields, "etag", &request.etag);
    fields.finish()?;
    let connections = Arc::clone(&context.connections);
    let outcome = context
        .tasks
        .run(async move {
            let id = &request.connection_id;
            let keep = request.keep_at_provider;
            connections.delete(&principal, id, expected, keep).await
        })
        .await?;
    Ok(Response::new(pb::DeleteConnectionResponse {
        provider_revocation: provider_revocation(outcome).into(),
    }))
}

pub(super) async fn revoke(
    context: &Context,
    request: Request<pb::RevokeConnectionRequest>,
) -> Result<Response<pb::RevokeConnectionResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.id("connection_id", &request.connection_id, IdKind::Connection);
    fields.text("reason", &request.reason, NAME_MAX);
    fields.finish()?;
    let connections = Arc::clone(&context.connections);
    let (revoked, outcome) = context
        .tasks
        .run(async move {
            connections
                .revoke(&principal, &request.connection_id, &request.reason)
                .await
        })
        .await?;
    Ok(Response::new(pb::RevokeConnectionResponse {
        connection: Some(connection(&revoked, context.clock.now())),
        provider_revocation: provider_revocation(outcome).into(),
    }))
}

pub(super) async fn revoke_app(
    context: &Context,
    request: Request<pb::RevokeAppConnectionsRequest>,
) -> Result<Response<pb::RevokeAppConnectionsResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.required("app", &request.app, CLIENT_ID_MAX);
    fields.text("owner", &request.owner, NAME_MAX);
    fields.text("reason", &request.reason, NAME_MAX);
    fields.finish()?;
    let connections = Arc::clone(&context.connections);
    let outcome = context
        .tasks
        .run(async move {
            let owner = Some(request.owner.as_str()).filter(|owner| !owner.is_empty());
            connections
                .revoke_app(&principal, &request.app, owner, &request.reason)
                .await
        })
        .await?;
    Ok(Response::new(pb::RevokeAppConnectionsResponse {
        revoked_count: outcome.revoked,
        provider_failure_count: outcome.provider_failures,
    }))
}

/// A connection on the wire, as it stands at `now`.
pub(super) fn connection(details: &ConnectionDetails, now: Timestamp) -> pb::Connection {
    let ConnectionDetails {
        connection,
        grant,
        usage,
        sync_status,
    } = details;
    // What came with the tokens is newer than what came with the account.
    let mut metadata = connection.metadata.clone();
    metadata.extend(grant.metadata.clone());
    pb::Connection {
        id: connection.id.clone(),
        app_id: connection.app_id.clone(),
        provider: connection.provider.clone(),
        owner: connection.owner.clone(),
        kind: convert::kind(connection.kind).into(),
        state: state(Standing::of(connection.state, grant.state)).into(),
        state_reason: if connection.state_reason.is_empty() {
            grant.state_reason.clone()
        } else {
            connection.state_reason.clone()
        },
        account_id: connection.account_id.clone(),
        display_name: connection.display_name.clone(),
        avatar_url: connection.avatar_url.clone(),
        email: connection.email.clone(),
        team_id: connection.team_id.clone(),
        provider_tenant_id: connection.provider_tenant_id.clone(),
        scopes: grant.scopes.clone(),
        missing_scopes: missing_scopes(&connection.requested_scopes, &grant.scopes),
        token_status: token_status(TokenStatus::of(connection, grant, now)).into(),
        access_token_expire_time: grant.expires_at.map(convert::timestamp),
        refresh_token_expire_time: grant.refresh_expires_at.map(convert::timestamp),
        last_refresh_time: grant.last_refreshed_at.map(convert::timestamp),
        last_used_time: usage
            .as_ref()
            .map(|usage| convert::timestamp(usage.last_used_at)),
        use_count: usage.as_ref().map_or(0, |usage| usage.use_count),
        refresh_policy: convert::policy(connection.refresh_policy).into(),
        labels: connection.labels.clone().into_iter().collect(),
        metadata: (!metadata.is_empty()).then(|| convert::structure(&metadata)),
        sync_status: sync_status.map_or_else(String::new, |status| status.as_str().to_owned()),
        create_time: Some(convert::timestamp(connection.created_at)),
        update_time: Some(convert::timestamp(connection.updated_at)),
        etag: convert::etag(connection.version),
        grant_id: grant.id.clone(),
    }
}

const fn state(standing: Standing) -> pb::ConnectionState {
    match standing {
        Standing::Pending => pb::ConnectionState::Pending,
        Standing::Active => pb::ConnectionState::Active,
        Standing::ReauthorizationRequired => pb::ConnectionState::ReauthorizationRequired,
        Standing::Revoked => pb::ConnectionState::Revoked,
    }
}

/// The state to list: `None` for a number that is none, `Some(None)` for any.
fn standing_filter(number: i32) -> Option<Option<Standing>> {
    Some(match pb::ConnectionState::try_from(number).ok()? {
        pb::ConnectionState::Unspecified => None,
        pb::ConnectionState::Pending => Some(Standing::Pending),
        pb::ConnectionState::Active => Some(Standing::Active),
        pb::ConnectionState::ReauthorizationRequired => Some(Standing::ReauthorizationRequired),
        pb::ConnectionState::Revoked => Some(Standing::Revoked),
    })
}

const fn token_status(status: TokenStatus) -> pb::TokenStatus {
    match status {
        // It serves no token: its state says why.
        TokenStatus::Pending => pb::TokenStatus::Pending,
        TokenStatus::Valid => pb::TokenStatus::Valid,
        TokenStatus::Expiring => pb::TokenStatus::Expiring,
        TokenStatus::Refreshable => pb::TokenStatus::Refreshable,
        TokenStatus::Expired => pb::TokenStatus::Expired,
        TokenStatus::ReauthorizationRequired => pb::TokenStatus::ReauthorizationRequired,
        TokenStatus::Revoked => pb::TokenStatus::Revoked,
    }
}

const fn provider_revocation(outcome: ProviderRevocation) -> pb::ProviderRevocation {
    match outcome {
        ProviderRevocation::Done => pb::ProviderRevocation::Done,
        ProviderRevocation::Unsupported => pb::ProviderRevocation::Unsupported,
        ProviderRevocation::Failed => pb::ProviderRevocation::Failed,
        ProviderRevocation::Skipped => pb::ProviderRevocation::Skipped,
    }
}

/// The version that an etag names; none when it is empty. Another text is a fault of `field`.
fn version(fields: &mut Fields, field: &str, etag: &str) -> Option<i64> {
    let version = convert::from_etag(etag);
    fields.check(
        version.is_ok(),
        field,
        "is not an etag that this service gave",
    );
    version.ok().flatten()
}

/// What the mask names of the new values.
fn changes(fields: &mut Fields, wanted: pb::Connection, mask: Option<FieldMask>) -> Changes {
    let mask = Mask::of(fields, mask, &MUTABLE);
    let mut changes = Changes::default();
    if mask.names("refresh_policy", wanted.refresh_policy != 0) {
        let policy = convert::from_policy("connection.refresh_policy", wanted.refresh_policy);
        fields.check(
            policy.is_ok(),
            "connection.refresh_policy",
            "is no refresh policy",
        );
        changes.refresh_policy = policy.ok();
    }
    if mask.names("display_name", !wanted.display_name.is_empty()) {
        fields.text("connection.display_name", &wanted.display_name, NAME_MAX);
        changes.display_name = Some(wanted.display_name);
    }
    if mask.names("labels", !wanted.labels.is_empty()) {
        let (entries, key, value) = LABELS_MAX;
        let labels = wanted.labels.iter();
        fields.map("connection.labels", labels, entries, key, value);
        changes.labels = Some(ordered(wanted.labels));
    }
    changes
}

/// The page, or every fault of the request, the page's among them.
pub(super) fn checked(mut fields: Fields, page: Result<Page, Error>) -> Result<Page, Error> {
    if let Err(Error::InvalidArgument(faults)) = &page {
        for fault in faults {
            fields.check(false, fault.field.as_str(), fault.description.as_str());
        }
    }
    fields.finish()?;
    page
}

/// The token of the page behind a key, for lists whose pages may be short and not the last.
fn token_behind(page: &Page, key: &str) -> String {
    let mut one = page.clone();
    one.size = 1;
    one.cut(&mut vec![key, ""], |key| (*key).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RefreshPolicy;
    use std::collections::HashMap;

    fn mask(paths: &[&str]) -> FieldMask {
        FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    fn wanted() -> pb::Connection {
        pb::Connection {
            display_name: "Ada".to_owned(),
            refresh_policy: pb::RefreshPolicy::OnDemand.into(),
            ..pb::Connection::default()
        }
    }

    fn read(wanted: pb::Connection, mask: Option<FieldMask>) -> Result<Changes, Vec<String>> {
        let mut fields = Fields::new();
        let changes = changes(&mut fields, wanted, mask);
        match fields.finish() {
            Ok(()) => Ok(changes),
            Err(Error::InvalidArgument(faults)) => {
                Err(faults.into_iter().map(|fault| fault.field).collect())
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn without_a_mask_what_is_set_changes() {
        for mask in [None, Some(mask(&[]))] {
            let changes = read(wanted(), mask).unwrap();
            assert_eq!(changes.display_name.as_deref(), Some("Ada"));
            assert_eq!(changes.refresh_policy, Some(RefreshPolicy::OnDemand));
            assert_eq!(changes.labels, None);
        }
        let nothing = read(pb::Connection::default(), None).unwrap();
        assert_eq!(nothing, Changes::default());
    }

    #[test]
    fn a_mask_names_what_changes_even_to_nothing() {
        let changes = read(wanted(), Some(mask(&["labels", "display_name"]))).unwrap();
        assert_eq!(changes.display_name.as_deref(), Some("Ada"));
        assert_eq!(changes.refresh_policy, None);
        assert_eq!(changes.labels.map(|labels| labels.len()), Some(0));
        let cleared = read(pb::Connection::default(), Some(mask(&["refresh_policy"]))).unwrap();
        assert_eq!(cleared.refresh_policy, Some(RefreshPolicy::Always));
    }

    #[test]
    fn faults_are_told_together() {
        let bad = pb::Connection {
            display_name: "x".repeat(NAME_MAX + 1),
            refresh_policy: 99,
            labels: HashMap::from([(String::new(), "v".to_owned())]),
            ..pb::Connection::default()
        };
        let faults = read(bad, None).unwrap_err();
        assert_eq!(
            faults,
            [
                "connection.refresh_policy",
                "connection.display_name",
                "connection.labels[]"
            ]
        );
        let faults = read(wanted(), Some(mask(&["owner"]))).unwrap_err();
        assert_eq!(faults, ["update_mask"]);
    }

    #[test]
    fn a_fault_of_the_page_joins_the_others() {
        let mut fields = Fields::new();
        fields.check(false, "state", "is none");
        let page = Page::of(-1, "", ());
        match checked(fields, page) {
            Err(Error::InvalidArgument(faults)) => {
                let named: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
                assert_eq!(named, ["state", "page_size"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_short_page_can_go_on() {
        let page = Page::of(50, "", "bound").unwrap();
        let token = token_behind(&page, "conn_1");
        assert_eq!(Page::of(50, &token, "bound").unwrap().after, "conn_1");
        assert!(Page::of(50, &token, "other").is_err());
    }
}
