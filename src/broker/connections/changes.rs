//! Changing what a caller may change of a connection.

use std::collections::BTreeMap;

use super::{Connections, Locked, entry, lock, overtaken};
use crate::access::audit::{self, Action};
use crate::access::{Caller, Permission};
use crate::error::{Error, Resource};
use crate::model::{
    App, AppState, Connection, ConnectionDetails, ConnectionState, EventKind, Grant, NewEvent,
    RefreshPolicy, Timestamp,
};
use crate::store::{self, Conn, Tx, transact};

/// What to change of a connection; nothing where it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// How its tokens are to be kept fresh.
    pub refresh_policy: Option<RefreshPolicy>,
    /// The account's name for people.
    pub display_name: Option<String>,
    /// All of the caller's labels; those left out are removed.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Changes {
    /// Applies them; the names of the fields that are other than they were.
    fn apply(&self, connection: &mut Connection) -> Vec<&'static str> {
        fn set<T: Clone + PartialEq>(field: &mut T, value: Option<&T>) -> bool {
            match value {
                Some(value) if value != field => {
                    field.clone_from(value);
                    true
                }
                _ => false,
            }
        }
        let policy = set(&mut connection.refresh_policy, self.refresh_policy.as_ref());
        let name = set(&mut connection.display_name, self.display_name.as_ref());
        let labels = set(&mut connection.labels, self.labels.as_ref());
        [
            ("refresh_policy", policy),
            ("display_name", name),
            ("labels", labels),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}

impl Connections {
    /// Changes a connection, if its version is still the one expected (any when not said). A change
    /// that changes nothing keeps the version and tells nobody.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PermissionDenied`] for what the caller is not allowed,
    /// [`Error::Conflict`] when the version is another, or the store's.
    pub async fn update(
        &self,
        caller: &Caller,
        id: &str,
        changes: &Changes,
        expected: Option<i64>,
    ) -> Result<ConnectionDetails, Error> {
        let permission = Permission::WriteConnections;
        transact!(self.store, |tx| {
            let now = self.clock.now();
            let Locked {
                mut connection,
                mut all,
                grant,
            } = lock(&mut tx, caller, id, permission).await?;
            require_version(&connection, expected)?;
            let changed = changes.apply(&mut connection);
            if changed.is_empty() {
                return Ok(());
            }
            connection.version += 1;
            connection.updated_at = now;
            if !store::connections::update(&mut tx, &connection).await? {
                return Err(overtaken());
            }
            let event = NewEvent::of(EventKind::Updated, &connection, &grant, "", now);
            store::events::append(&mut tx, &event).await?;
            let entry = entry(Action::ConnectionUpdated, caller, &connection)
                .detail("fields", changed.join(" "));
            audit::record(&mut tx, &entry, now).await?;
            for sharing in &mut all {
                if sharing.id == connection.id {
                    sharing.clone_from(&connection);
                }
            }
            self.follow_policies(&mut tx, grant, &all, now).await
        })?;
        self.poke.notify_one();
        self.details(caller, id, permission).await
    }

    /// Gives a locked grant the most eager policy of the connections that may use it, and its new
    /// place in the due index. One that waits for its owner counts once it is confirmed.
    pub(super) async fn follow_policies(
        &self,
        tx: &mut Tx,
        mut grant: Grant,
        connections: &[Connection],
        now: Timestamp,
    ) -> Result<(), Error> {
        let policy = most_eager(connections);
        let wanted = policy.unwrap_or(RefreshPolicy::OnDemand);
        if wanted == grant.refresh_policy {
            return Ok(());
        }
        grant.refresh_policy = wanted;
        if policy.is_some() {
            self.reschedule(tx, &mut grant).await?;
        } else {
            grant.next_refresh_at = None;
        }
        grant.updated_at = now;
        let generation = grant.generation;
        if store::grants::replace(tx, &grant, generation).await? {
            Ok(())
        } else {
            Err(overtaken())
        }
    }

    async fn reschedule(&self, conn: &mut Conn, grant: &mut Grant) -> Result<(), Error> {
        let Some(app) = self
            .registry
            .app(conn, &grant.tenant, &grant.app_id)
            .await?
        else {
            return Ok(());
        };
        if is_parked(&app) {
            // It comes back into the due index when the app is mended.
            return Ok(());
        }
        let provider = self
            .registry
            .provider(conn, &grant.tenant, &app.provider)
            .await?;
        // Whether its owner was warned has nothing to do with the policy.
        let notice_at = grant.notice_at;
        self.vault.schedule(grant, &provider);
        grant.notice_at = notice_at;
        grant.next_refresh_at = grant
            .next_refresh_at
            .map(|at| grant.not_before.map_or(at, |not_before| at.max(not_before)));
        Ok(())
    }
}

/// Whether nothing of an app is refreshed for now.
fn is_parked(app: &App) -> bool {
    app.state == AppState::Inactive || app.misconfigured_at.is_some()
}

/// The most eager policy of the active connections; none when none is.
fn most_eager(connections: &[Connection]) -> Option<RefreshPolicy> {
    connections
        .iter()
        .filter(|connection| connection.state == ConnectionState::Active)
        .map(|connection| connection.refresh_policy)
        .max()
}

/// Refuses a version that is not the one expected.
pub(super) fn require_version(connection: &Connection, expected: Option<i64>) -> Result<(), Error> {
    if expected.is_none_or(|expected| expected == connection.version) {
        Ok(())
    } else {
        Err(Error::Conflict(Resource::Connection, connection.id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConnectionKind;

    fn connection(state: ConnectionState, refresh_policy: RefreshPolicy) -> Connection {
        Connection {
            id: "conn_1".to_owned(),
            tenant: "t".to_owned(),
            app_id: "app_1".to_owned(),
            grant_id: "grant_1".to_owned(),
            provider: "google".to_owned(),
            owner: "user-1".to_owned(),
            account_key: "a".to_owned(),
            account_id: "a".to_owned(),
            kind: ConnectionKind::Oauth2,
            state,
            state_reason: String::new(),
            display_name: "Ada".to_owned(),
            avatar_url: String::new(),
            email: String::new(),
            team_id: String::new(),
            provider_tenant_id: String::new(),
            requested_scopes: Vec::new(),
            labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
            metadata: serde_json::Map::new(),
            refresh_policy,
            version: 3,
            created_at: Timestamp::from_micros(1),
            updated_at: Timestamp::from_micros(1),
        }
    }

    #[test]
    fn only_what_is_named_changes() {
        let mut changed = connection(ConnectionState::Active, RefreshPolicy::Always);
        let changes = Changes {
            refresh_policy: Some(RefreshPolicy::OnDemand),
            labels: Some(BTreeMap::new()),
            display_name: None,
        };
        assert_eq!(changes.apply(&mut changed), ["refresh_policy", "labels"]);
        assert_eq!(changed.refresh_policy, RefreshPolicy::OnDemand);
        assert_eq!(changed.display_name, "Ada");
        assert!(changed.labels.is_empty());
        // Once more, and nothing is left to change.
        assert!(changes.apply(&mut changed).is_empty());
        assert!(Changes::default().apply(&mut changed).is_empty());
    }

    #[test]
    fn the_most_eager_of_the_active_decides() {
        use ConnectionState as S;
        use RefreshPolicy as P;
        let all = [
            connection(S::Active, P::OnDemand),
            connection(S::Active, P::WhenUsed),
            connection(S::Pending, P::Always),
            connection(S::Revoked, P::Always),
        ];
        assert_eq!(most_eager(&all), Some(P::WhenUsed));
        assert_eq!(most_eager(&all[..1]), Some(P::OnDemand));
        assert_eq!(most_eager(&all[2..]), None);
    }

    #[test]
    fn an_unexpected_version_is_refused() {
        let connection = connection(ConnectionState::Active, RefreshPolicy::Always);
        assert!(require_version(&connection, None).is_ok());
        assert!(require_version(&connection, Some(3)).is_ok());
        assert!(matches!(
            require_version(&connection, Some(2)),
            Err(Error::Conflict(Resource::Connection, _))
        ));
    }
}
