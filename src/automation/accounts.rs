//! Accounts at providers that workers sign in to.

use std::collections::BTreeMap;

use serde_json::json;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::steps::overtaken;
use super::{Automation, permit};
use crate::access::audit::{self, Action, Entry};
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::error::{Error, Precondition, Resource};
use crate::model::{Account, ConnectionKind, IdKind, Timestamp, put};
use crate::store::automation::accounts::AccountQuery;
use crate::store::{self, Conn, Tx, transact};

/// An account to be made.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The provider's id.
    pub provider: String,
    /// Who it is there: 1 to 320 characters.
    pub username: String,
    /// For people: at most 200 characters.
    pub display_name: String,
    /// What sort of credential it is to give.
    pub kind: ConnectionKind,
    /// Whose its connection will be: at most 255 characters; the username where it is empty.
    pub owner: String,
    /// The app that it is connected through, by id.
    pub app_id: Option<String>,
    /// The account's own OAuth client: at most 500 characters; empty for none.
    pub client_id: String,
    /// The caller's own: at most 32, each name at most 63 and each value at most 200 characters.
    pub labels: BTreeMap<String, String>,
    /// What it signs in with.
    pub credentials: Credentials,
    /// Makes a retry answer what the first call answered; empty for none.
    pub request_id: String,
}

impl NewAccount {
    /// The request's bytes, the secrets among them.
    fn message(&self) -> Zeroizing<Vec<u8>> {
        let message = json!([
            self.provider,
            self.username,
            self.display_name,
            self.kind.as_str(),
            self.owner,
            self.app_id,
            self.client_id,
            self.labels,
        ]);
        let mut bytes = Zeroizing::new(message.to_string().into_bytes());
        self.credentials.append_to(&mut bytes);
        bytes
    }

    fn into_account(self, tenant: &str, now: Timestamp) -> Account {
        let mut account = Account {
            id: IdKind::Account.new_id(),
            tenant: tenant.to_owned(),
            provider: self.provider,
            username: self.username,
            display_name: self.display_name,
            kind: self.kind,
            owner: String::new(),
            app_id: self.app_id,
            client_id: self.client_id,
            client_secret: None,
            password: None,
            totp_secret: None,
            credentials_at: None,
            connection_id: None,
            connected_at: None,
            labels: self.labels,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        account.owner = owner_or_username(self.owner, &account);
        account
    }
}

/// Changes of an account; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of NewAccount")]
pub struct AccountChanges {
    pub display_name: Option<String>,
    pub kind: Option<ConnectionKind>,
    pub owner: Option<String>,
    pub app_id: Option<Option<String>>,
    pub client_id: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
}

impl AccountChanges {
    /// Makes the changes; the names of the fields that are others now, in the order of the message.
    fn apply(&self, account: &mut Account) -> Vec<&'static str> {
        let owner = self.owner.clone();
        let owner = owner.map(|owner| owner_or_username(owner, account));
        [
            put(
                "display_name",
                &mut account.display_name,
                self.display_name.as_ref(),
            ),
            put("type", &mut account.kind, self.kind.as_ref()),
            put("owner", &mut account.owner, owner.as_ref()),
            put("app", &mut account.app_id, self.app_id.as_ref()),
            put("client_id", &mut account.client_id, self.client_id.as_ref()),
            put("labels", &mut account.labels, self.labels.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Which accounts to list.
#[derive(Clone, Debug, Default)]
pub struct AccountFilter {
    /// Only this provider's, by id.
    pub provider: Option<String>,
    /// Only those that are connected, or only those that are not.
    pub connected: Option<bool>,
}

impl Automation {
    /// Keeps an account. A retry with the same request id and the same fields gets the same one.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when the provider has one of this username; [`Error::NotFound`] for the
    /// app; [`Error::InvalidArgument`] for an app of another provider, a seed that is none, or a
    /// request id of another request; [`Error::Constrained`] for a caller with constraints.
    pub async fn create_account(&self, caller: &Caller, new: NewAccount) -> Result<Account, Error> {
        permit(caller, Permission::WriteAccounts)?;
        let message = new.message();
        let request_id = new.request_id.clone();
        let once = Once::of(&caller.tenant, "CreateAccount", &request_id, &message);
        let now = self.parts.clock.now();
        let create = self.make_account(caller, new, once.as_ref(), now);
        let (store, keyring) = (&self.parts.store, &self.parts.keyring);
        match requests::answer(store, keyring, once.as_ref(), now, create).await? {
            Outcome::Made(account) => Ok(account),
            Outcome::Before(replayed) => {
                let mut conn = store.read().await?;
                found(&mut conn, &caller.tenant, &replayed.resource_id).await
            }
        }
    }

    async fn make_account(
        &self,
        caller: &Caller,
        new: NewAccount,
        once: Option<&Once<'_>>,
        now: Timestamp,
    ) -> Result<Option<Account>, Error> {
        let credentials = new.credentials.clone();
        let mut account = new.into_account(&caller.tenant, now);
        let set = self.put_credentials(&mut account, &credentials, now)?;
        let mut entry = account_entry(Action::AccountCreated, caller, &account);
        if !set.is_empty() {
            entry = entry.detail("credentials", set.join(" "));
        }
        let made = transact!(self.parts.store, |tx| {
            let keyring = &self.parts.keyring;
            if let Some(once) = once
                && !requests::remember(&mut tx, keyring, once, &account.id, None, now).await?
            {
                return Ok(false);
            }
            require_app(&mut tx, &account).await?;
            if !store::automation::accounts::insert(&mut tx, &account).await? {
                return Err(Error::AlreadyExists {
                    resource: Resource::Account,
                    name: account.username.clone(),
                    detail: format!("{} has an account of this username", account.provider),
                });
            }
            audit::record(&mut tx, &entry, now).await?;
            Ok(true)
        })?;
        Ok(made.then_some(account))
    }

    /// The account of this id.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Constrained`] for a caller with constraints; or the store's.
    pub async fn get_account(&self, caller: &Caller, id: &str) -> Result<Account, Error> {
        permit(caller, Permission::ReadAccounts)?;
        let mut conn = self.parts.store.read().await?;
        found(&mut conn, &caller.tenant, id).await
    }

    /// One page of the accounts behind the id `after`, oldest first.
    ///
    /// # Errors
    /// [`Error::Constrained`] for a caller with constraints, or the store's.
    pub async fn list_accounts(
        &self,
        caller: &Caller,
        filter: &AccountFilter,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Account>, Error> {
        permit(caller, Permission::ReadAccounts)?;
        let query = AccountQuery {
            provider: filter.provider.as_deref(),
            connected: filter.connected,
            after,
            limit,
        };
        let mut conn = self.parts.store.read().await?;
        Ok(store::automation::accounts::list(&mut conn, &caller.tenant, &query).await?)
    }

    /// Changes an account.
    ///
    /// # Errors
    /// [`Error::Conflict`] when `version` is not the current one; [`Error::NotFound`] for the account
    /// or the app; [`Error::InvalidArgument`] for an app of another provider;
    /// [`Error::Constrained`] for a caller with constraints.
    pub async fn update_account(
        &self,
        caller: &Caller,
        id: &str,
        changes: &AccountChanges,
        version: Option<i64>,
    ) -> Result<Account, Error> {
        permit(caller, Permission::WriteAccounts)?;
        transact!(self.parts.store, |tx| {
            let mut account = locked(&mut tx, &caller.tenant, id, version).await?;
            let changed = changes.apply(&mut account);
            if changed.is_empty() {
                return Ok(account);
            }
            if changed.contains(&"app") {
                require_app(&mut tx, &account).await?;
            }
            let account = self.write_account(&mut tx, account).await?;
            let entry = account_entry(Action::AccountUpdated, caller, &account)
                .detail("fields", changed.join(" "));
            audit::record(&mut tx, &entry, account.updated_at).await?;
            Ok(account)
        })
    }

    /// Deletes an account with its credentials. Its connection stays.
    ///
    /// # Errors
    /// `HAS_OPEN_JOBS` while jobs of it are not finished; [`Error::Conflict`] when `version` is not the
    /// current one; [`Error::NotFound`]; [`Error::Constrained`] for a caller with constraints.
    pub async fn delete_account(
        &self,
        caller: &Caller,
        id: &str,
        version: Option<i64>,
    ) -> Result<(), Error> {
        permit(caller, Permission::WriteAccounts)?;
        let tenant = &caller.tenant;
        transact!(self.parts.store, |tx| {
            let account = locked(&mut tx, tenant, id, version).await?;
            if store::automation::jobs::has_open_of_account(&mut tx, tenant, id).await? {
                return Err(has_open_jobs("account"));
            }
            let now = self.parts.clock.now();
            store::automation::accounts::delete(&mut tx, tenant, id, now).await?;
            let entry = account_entry(Action::AccountDeleted, caller, &account);
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })
    }

    /// Says by which connection an account is connected, or, without one, that it is not. The same again
    /// changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the account or the connection; [`Error::InvalidArgument`] for a connection
    /// at another provider; [`Error::Constrained`] for a caller with constraints.
    pub async fn mark_connected(
        &self,
        caller: &Caller,
        id: &str,
        connection_id: Option<&str>,
    ) -> Result<Account, Error> {
        permit(caller, Permission::WriteAccounts)?;
        let tenant = &caller.tenant;
        transact!(self.parts.store, |tx| {
            let account = locked(&mut tx, tenant, id, None).await?;
            if account.connection_id.as_deref() == connection_id {
                return Ok(account);
            }
            if let Some(connection) = connection_id {
                connectable(&mut tx, tenant, &account.provider, connection).await?;
            }
            let now = self.parts.clock.now();
            store::automation::accounts::connect(&mut tx, tenant, id, connection_id, now).await?;
            let connected = connection_id.unwrap_or_default();
            let entry = account_entry(Action::AccountConnected, caller, &account)
                .detail("connection_id", connected);
            audit::record(&mut tx, &entry, now).await?;
            found(&mut tx, tenant, id).await
        })
    }

    /// Writes the account as its next version; it was read under its lock.
    pub(super) async fn write_account(
        &self,
        tx: &mut Tx,
        mut account: Account,
    ) -> Result<Account, Error> {
        let was = account.version;
        account.version += 1;
        account.updated_at = self.parts.clock.now();
        if store::automation::accounts::update(tx, &account, was).await? {
            Ok(account)
        } else {
            Err(overtaken())
        }
    }
}

pub(super) fn has_open_jobs(what: &str) -> Error {
    Error::precondition(
        Precondition::HasOpenJobs,
        format!("jobs of the {what} are not finished; cancel them first"),
    )
}

/// What is recorded of an account.
pub(super) fn account_entry(action: Action, caller: &Caller, account: &Account) -> Entry {
    Entry::new(action, caller)
        .on("account", &account.id)
        .provider(&account.provider)
}

fn owner_or_username(owner: String, account: &Account) -> String {
    if owner.is_empty() {
        account.username.clone()
    } else {
        owner
    }
}

fn not_found(id: &str) -> Error {
    Error::NotFound(Resource::Account, id.to_owned())
}

async fn found(conn: &mut Conn, tenant: &str, id: &str) -> Result<Account, Error> {
    let account = store::automation::accounts::find(conn, tenant, id).await?;
    account.ok_or_else(|| not_found(id))
}

/// The account, which nobody else changes until the transaction ends.
pub(super) async fn locked(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    version: Option<i64>,
) -> Result<Account, Error> {
    let account = store::automation::accounts::lock(tx, tenant, id).await?;
    let account = account.ok_or_else(|| not_found(id))?;
    if version.is_some_and(|version| version != account.version) {
        return Err(Error::Conflict(Resource::Account, id.to_owned()));
    }
    Ok(account)
}

/// The connection is there and can connect an account at this provider.
pub(super) async fn connectable(
    conn: &mut Conn,
    tenant: &str,
    provider: &str,
    connection_id: &str,
) -> Result<(), Error> {
    let found = store::connections::find(conn, tenant, connection_id).await?;
    let missing = || Error::NotFound(Resource::Connection, connection_id.to_owned());
    let (connection, _) = found.ok_or_else(missing)?;
    if connection.provider == provider {
        Ok(())
    } else {
        let fault = format!(
            "is a connection at {}, and the account is at {provider}",
            connection.provider
        );
        Err(Error::invalid("connection_id", fault))
    }
}

/// The account's app, if it has one, is there and of its provider.
async fn require_app(tx: &mut Tx, account: &Account) -> Result<(), Error> {
    let Some(app_id) = &account.app_id else {
        return Ok(());
    };
    let app = store::apps::find(tx, &account.tenant, app_id).await?;
    let app = app.ok_or_else(|| Error::NotFound(Resource::App, app_id.clone()))?;
    if app.provider == account.provider {
        Ok(())
    } else {
        let fault = format!(
            "is an app of {}, and the account is at {}",
            app.provider, account.provider
        );
        Err(Error::invalid("account.app", fault))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn new() -> NewAccount {
        NewAccount {
            provider: "x".to_owned(),
            username: "ada".to_owned(),
            display_name: String::new(),
            kind: ConnectionKind::Oauth2,
            owner: String::new(),
            app_id: None,
            client_id: String::new(),
            labels: BTreeMap::new(),
            credentials: Credentials::default(),
            request_id: String::new(),
        }
    }

    #[test]
    fn an_account_without_an_owner_is_its_own() {
        let mut account = new().into_account("t", Timestamp::default());
        assert_eq!(account.owner, "ada");
        let owned = |owner: &str| AccountChanges {
            owner: Some(owner.to_owned()),
            ..AccountChanges::default()
        };
        assert_eq!(owned("grace").apply(&mut account), ["owner"]);
        assert_eq!(account.owner, "grace");
        assert_eq!(owned("").apply(&mut account), ["owner"]);
        assert_eq!(account.owner, "ada");
        assert!(owned("ada").apply(&mut account).is_empty());
    }

    #[test]
    fn another_secret_makes_another_request() {
        let mut other = new();
        other.credentials.password = Some(SecretString::from("secret"));
        assert_ne!(other.message(), new().message());
        let mut moved = new();
        moved.credentials.client_secret = other.credentials.password.clone();
        assert_ne!(other.message(), moved.message());
    }
}
