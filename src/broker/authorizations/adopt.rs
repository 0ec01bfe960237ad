//! Giving tokens a connection: a new one, or the one that the account has already.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Authorizations, overtaken};
use crate::access::audit::{Action, Who};
use crate::broker::connections::entry;
use crate::broker::token_set::TokenSet;
use crate::error::Error;
use crate::model::{
    App, Connection, ConnectionKind, ConnectionState, EventKind, Grant, GrantState, NewEvent,
    Provider, RefreshPolicy, Timestamp,
};
use crate::oauth::Identity;
use crate::store::{self, Tx};

/// Tokens, and whose they are to be.
pub(super) struct Adoption<'a> {
    pub(super) app: &'a App,
    pub(super) provider: &'a Provider,
    pub(super) kind: ConnectionKind,
    pub(super) owner: &'a str,
    pub(super) tokens: &'a TokenSet,
    pub(super) identity: &'a Identity,
    /// What makes the connection unique for its owner.
    pub(super) account_key: String,
    pub(super) requested_scopes: &'a [String],
    pub(super) policy: RefreshPolicy,
    /// `Pending` or `Active`, where the connection is a new one. An existing one becomes active.
    pub(super) state: ConnectionState,
    /// The connection that takes the tokens, where there is one.
    pub(super) existing: Option<String>,
    /// The id of a new connection.
    pub(super) new_id: String,
    /// The caller's name for the account; empty to take the provider's.
    pub(super) display_name: &'a str,
    /// The caller's labels; `None` leaves those of an existing connection.
    pub(super) labels: Option<&'a BTreeMap<String, String>>,
    /// Whoever brought them.
    pub(super) who: &'a Who,
    /// The authorisation that they come from; none where they are imported.
    pub(super) authorization: Option<&'a str>,
}

/// Rows locked until the transaction ends.
#[derive(Default)]
struct Locked {
    connections: BTreeMap<String, Connection>,
    grants: BTreeMap<String, Grant>,
}

impl Locked {
    /// The connections that share a grant, but for one.
    fn sharing(&self, grant_id: &str, except: Option<&str>) -> Vec<&Connection> {
        self.connections
            .values()
            .filter(|it| it.grant_id == grant_id && Some(it.id.as_str()) != except)
            .collect()
    }
}

impl Authorizations {
    /// Gives tokens a connection, in the caller's transaction.
    ///
    /// # Errors
    /// A busy store when another writer came between: then the transaction is to run again.
    pub(super) async fn adopt(
        &self,
        tx: &mut Tx,
        adoption: &Adoption<'_>,
    ) -> Result<Connection, Error> {
        let now = self.clock.now();
        let tenant = adoption.app.tenant.as_str();
        let twin = self.twin(tx, adoption).await?;
        let before = match &adoption.existing {
            Some(id) => Some(
                store::connections::find(tx, tenant, id)
                    .await?
                    .map(|(connection, _)| connection)
                    .ok_or_else(overtaken)?,
            ),
            None => None,
        };
        let grant_ids: BTreeSet<String> = twin
            .iter()
            .cloned()
            .chain(before.iter().map(|before| before.grant_id.clone()))
            .collect();
        let locked = lock_grants(tx, tenant, &grant_ids).await?;
        let existing = match before {
            Some(before) => Some(
                locked
                    .connections
                    .get(&before.id)
                    .cloned()
                    .ok_or_else(overtaken)?,
            ),
            None => None,
        };

        let (grant, replaced) =
            self.successor(adoption, &locked, twin.as_deref(), existing.as_ref(), now)?;
        match replaced {
            Some(generation) => {
                if !store::grants::replace(tx, &grant, generation).await? {
                    return Err(overtaken());
                }
            }
            None => store::grants::insert(tx, &grant).await?,
        }
        let connection = match &existing {
            Some(existing) => {
                let connection = renewed(existing, &grant, adoption, now);
                if !store::connections::update(tx, &connection).await? {
                    return Err(overtaken());
                }
                connection
            }
            None => {
                let connection = created(&grant, adoption, now);
                if !store::connections::insert(tx, &connection).await? {
                    // A concurrent authorisation of the same account: there is one to update now.
                    return Err(overtaken());
                }
                connection
            }
        };
        if let Some(left) = existing.as_ref().filter(|it| it.grant_id != grant.id)
            && locked.sharing(&left.grant_id, Some(&left.id)).is_empty()
        {
            store::grants::delete(tx, tenant, &left.grant_id).await?;
        }

        let kind = match &existing {
            None => EventKind::Created,
            Some(existing) if existing.state == ConnectionState::Pending => EventKind::Activated,
            Some(_) => EventKind::Reconnected,
        };
        let event = NewEvent::of(kind, &connection, &grant, "", now);
        store::events::append(tx, &event).await?;
        let action = match (adoption.authorization, kind) {
            (None, _) => Action::ConnectionImported,
            (Some(_), EventKind::Created) => Action::ConnectionCreated,
            (Some(_), _) => Action::ConnectionReconnected,
        };
        let mut told = entry(action, adoption.who, &connection)
            .detail("account_id", &connection.account_id)
            .detail("state", connection.state.as_str())
            .detail("scopes", grant.scopes.join(" "))
            .detail("grant_id", &grant.id)
            .detail("generation", grant.generation);
        if let Some(authorization) = adoption.authorization {
            told = told.detail("authorization_id", authorization);
        } else {
            told = told.detail("created", existing.is_none());
        }
        self.record(tx, &told).await?;
        for other in locked.sharing(&grant.id, Some(&connection.id)) {
            if other.state == ConnectionState::Active {
                let event = NewEvent::of(EventKind::Refreshed, other, &grant, "", now);
                store::events::append(tx, &event).await?;
            }
        }
        Ok(connection)
    }

    /// The good grant that holds the same refresh token already: two grants with one refresh token
    /// would spend it behind each other's back.
    async fn twin(&self, tx: &mut Tx, adoption: &Adoption<'_>) -> Result<Option<String>, Error> {
        let Some(refresh_token) = &adoption.tokens.refresh_token else {
            return Ok(None);
        };
        let App { tenant, id, .. } = adoption.app;
        let fingerprint = self.vault.fingerprint(tenant, refresh_token);
        let found = store::grants::find_by_fingerprint(tx, tenant, id, &fingerprint).await?;
        Ok(found.map(|grant| grant.id))
    }

    /// The grant that holds the tokens from now on, and the generation that it replaces; none
    /// where it is new.
    fn successor(
        &self,
        adoption: &Adoption<'_>,
        locked: &Locked,
        twin: Option<&str>,
        existing: Option<&Connection>,
        now: Timestamp,
    ) -> Result<(Grant, Option<i64>), Error> {
        let own = existing.and_then(|existing| locked.grants.get(&existing.grant_id));
        let held = match twin {
            Some(twin) => Some(
                locked
                    .grants
                    .get(twin)
                    .filter(|grant| grant.state == GrantState::Active)
                    .ok_or_else(overtaken)?,
            ),
            // Others share this grant and the account can't be told: theirs must not change.
            None => own.filter(|grant| {
                adoption.identity.account_id.is_some()
                    || locked
                        .sharing(&grant.id, existing.map(|it| it.id.as_str()))
                        .is_empty()
            }),
        };
        let pending = existing.is_none() && adoption.state == ConnectionState::Pending;
        let Some(held) = held else {
            let mut grant = self.vault.new_grant(
                adoption.app,
                adoption.provider,
                adoption.kind,
                adoption.tokens,
                adoption.requested_scopes,
                adoption.policy,
                now,
            )?;
            if pending {
                // Not refreshed before its owner confirms it.
                grant.next_refresh_at = None;
                grant.notice_at = None;
            }
            return Ok((grant, None));
        };
        // The policy of those who stay; the vault adds ours.
        let mut base = held.clone();
        base.refresh_policy = locked
            .sharing(&held.id, existing.map(|it| it.id.as_str()))
            .iter()
            .filter(|other| other.state == ConnectionState::Active)
            .map(|other| other.refresh_policy)
            .max()
            .unwrap_or(RefreshPolicy::OnDemand);
        let policy = if pending {
            RefreshPolicy::OnDemand
        } else {
            adoption.policy
        };
        let grant = self.vault.reconnected(
            &base,
            adoption.provider,
            adoption.tokens,
            adoption.requested_scopes,
            policy,
            now,
        )?;
        Ok((grant, Some(held.generation)))
    }

    /// Makes a pending connection active, in the caller's transaction. `None` when there is none
    /// of this id; one that is not pending is left as it is.
    pub(super) async fn activate(
        &self,
        tx: &mut Tx,
        provider: &Provider,
        tenant: &str,
        id: &str,
    ) -> Result<Option<Connection>, Error> {
        let now = self.clock.now();
        let Some((connection, grant)) = lock_connection(tx, tenant, id).await? else {
            return Ok(None);
        };
        if connection.state != ConnectionState::Pending {
            return Ok(Some(connection));
        }
        let active = Connection {
            state: ConnectionState::Active,
            version: connection.version + 1,
            updated_at: now,
            ..connection
        };
        if !store::connections::update(tx, &active).await? {
            return Err(overtaken());
        }
        let mut scheduled = grant;
        scheduled.refresh_policy = scheduled.refresh_policy.max(active.refresh_policy);
        self.vault.schedule(&mut scheduled, provider);
        scheduled.updated_at = now;
        if !store::grants::replace(tx, &scheduled, scheduled.generation).await? {
            return Err(overtaken());
        }
        let event = NewEvent::of(EventKind::Activated, &active, &scheduled, "", now);
        store::events::append(tx, &event).await?;
        Ok(Some(active))
    }
}

/// Locks a connection with its grant and all that share it, as everybody does.
pub(super) async fn lock_connection(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
) -> Result<Option<(Connection, Grant)>, Error> {
    let Some((_, grant)) = store::connections::find(tx, tenant, id).await? else {
        return Ok(None);
    };
    let grant_ids = BTreeSet::from([grant.id]);
    let locked = lock_grants(tx, tenant, &grant_ids).await?;
    let Some(connection) = locked.connections.get(id) else {
        return Err(overtaken());
    };
    let Some(grant) = locked.grants.get(&connection.grant_id) else {
        return Err(overtaken());
    };
    Ok(Some((connection.clone(), grant.clone())))
}

/// Locks the connections of some grants by id, then the grants by id. A connection that came or
/// went meanwhile has the transaction run again.
async fn lock_grants(
    tx: &mut Tx,
    tenant: &str,
    grant_ids: &BTreeSet<String>,
) -> Result<Locked, Error> {
    let wanted = sharing_ids(tx, tenant, grant_ids).await?;
    let mut locked = Locked::default();
    for id in &wanted {
        let connection = store::connections::lock(tx, tenant, id)
            .await?
            .filter(|it| grant_ids.contains(&it.grant_id))
            .ok_or_else(overtaken)?;
        locked.connections.insert(id.clone(), connection);
    }
    for id in grant_ids {
        let grant = store::grants::lock(tx, tenant, id)
            .await?
            .ok_or_else(overtaken)?;
        locked.grants.insert(id.clone(), grant);
    }
    if sharing_ids(tx, tenant, grant_ids).await? == wanted {
        Ok(locked)
    } else {
        Err(overtaken())
    }
}

async fn sharing_ids(
    tx: &mut Tx,
    tenant: &str,
    grant_ids: &BTreeSet<String>,
) -> Result<BTreeSet<String>, Error> {
    let mut ids = BTreeSet::new();
    for grant_id in grant_ids {
        let sharing = store::connections::of_grant(tx, tenant, grant_id).await?;
        ids.extend(sharing.into_iter().map(|connection| connection.id));
    }
    Ok(ids)
}

fn created(grant: &Grant, adoption: &Adoption<'_>, now: Timestamp) -> Connection {
    let blank = Connection {
        id: adoption.new_id.clone(),
        tenant: adoption.app.tenant.clone(),
        app_id: adoption.app.id.clone(),
        grant_id: String::new(),
        provider: adoption.app.provider.clone(),
        owner: adoption.owner.to_owned(),
        account_key: String::new(),
        account_id: String::new(),
        kind: adoption.kind,
        state: ConnectionState::Pending,
        state_reason: String::new(),
        display_name: String::new(),
        avatar_url: String::new(),
        email: String::new(),
        team_id: String::new(),
        provider_tenant_id: String::new(),
        requested_scopes: Vec::new(),
        labels: BTreeMap::new(),
        metadata: Map::new(),
        refresh_policy: adoption.policy,
        version: 0,
        created_at: now,
        updated_at: now,
    };
    let mut connection = renewed(&blank, grant, adoption, now);
    connection.state = adoption.state;
    connection.account_key = if adoption.account_key.is_empty() {
        // Nobody knows the account, and there is no authorisation to name it by.
        connection.id.clone()
    } else {
        adoption.account_key.clone()
    };
    connection
}

/// The connection with what came with the tokens.
fn renewed(
    before: &Connection,
    grant: &Grant,
    adoption: &Adoption<'_>,
    now: Timestamp,
) -> Connection {
    let Adoption {
        identity, tokens, ..
    } = adoption;
    let mut connection = before.clone();
    connection.grant_id.clone_from(&grant.id);
    connection.state = ConnectionState::Active;
    connection.state_reason = String::new();
    connection.version += 1;
    connection.updated_at = now;
    connection.refresh_policy = adoption.policy;
    connection.requested_scopes = adoption.requested_scopes.to_vec();
    connection.metadata.extend(tokens.metadata.clone());
    connection.metadata.extend(identity.metadata.clone());
    if let Some(labels) = adoption.labels {
        connection.labels.clone_from(labels);
    }
    if let Some(account_id) = &identity.account_id {
        connection.account_id.clone_from(account_id);
    }
    if !adoption.display_name.is_empty() {
        adoption
            .display_name
            .clone_into(&mut connection.display_name);
    } else if connection.display_name.is_empty() {
        // What a caller set stays; the provider's name only fills the gap.
        connection.display_name = cut(identity.display_name.as_deref());
    }
    if let Some(url) = &identity.avatar_url {
        connection.avatar_url.clone_from(url);
    }
    if let Some(email) = &identity.email {
        connection.email.clone_from(email);
    }
    if let Some(team) = text(&connection.metadata, "team_id") {
        connection.team_id = team;
    }
    if let Some(tenant) = text(&connection.metadata, "provider_tenant_id") {
        connection.provider_tenant_id = tenant;
    }
    connection
}

/// As long as a display name may be.
fn cut(name: Option<&str>) -> String {
    name.unwrap_or_default().chars().take(255).collect()
}

fn text(metadata: &Map<String, Value>, name: &str) -> Option<String> {
    match metadata.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
