//! OAuth clients: third parties that use our own authorisation server. They concern the whole tenant,
//! so a caller that is held to some apps, owners or providers has nothing to do with them.

mod redirects;
mod rules;
mod secrets;
mod settings;
mod states;

use secrecy::SecretString;
use url::Url;

use super::{Registry, overtaken, reject};
use crate::access::audit::{Action, Entry};
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission, Principal};
use crate::error::{Error, FieldViolation, Resource};
use crate::model::{
    ClientSecret, ClientSettings, ClientState, ClientUsage, IdKind, OauthClient, Timestamp,
};
use crate::store::{self, Conn, Tx, transact};

pub use rules::faults as client_faults;
pub use secrets::{MAX_SECRET_LIFETIME, MAX_SECRET_OVERLAP, MIN_SECRET_LIFETIME, Rotation};
pub use settings::{
    ClientChanges, DEFAULT_ACCESS_LIFETIME, DEFAULT_REFRESH_LIFETIME, NewClient, default_responses,
};

use secrets::{Shown, new_secret};
use states::{end_issued, require_not_revoked};

/// A client with its secrets that are good now.
#[derive(Clone, Debug)]
pub struct RegisteredClient {
    /// The client.
    pub client: OauthClient,
    /// The current secret first, and the one before it during a rotation.
    pub secrets: Vec<ClientSecret>,
}

/// A client with what is shown once.
#[derive(Debug)]
pub struct IssuedClient {
    /// The client.
    pub registered: RegisteredClient,
    /// Its new secret, if it got one.
    pub client_secret: Option<SecretString>,
    /// What webhooks are signed with, if it is new.
    pub webhook_secret: Option<SecretString>,
}

impl Registry {
    /// One page of the clients behind the id `after`, oldest first; of one state where it is given.
    ///
    /// # Errors
    /// [`Error::Constrained`] for a caller with constraints, or the store's.
    pub async fn list_clients(
        &self,
        caller: &Principal,
        state: Option<ClientState>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<RegisteredClient>, Error> {
        caller.require_unconstrained(Permission::ReadClients)?;
        let mut conn = self.store.read().await?;
        let tenant = &caller.tenant;
        let clients = store::clients::list(&mut conn, tenant, state, after, limit).await?;
        let ids: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
        let secrets = store::clients::secrets(&mut conn, tenant, &ids).await?;
        let now = self.clock.now();
        let with_secrets = |client: OauthClient| {
            let own = secrets.iter().filter(|it| it.client_id == client.id);
            let secrets = good(own.cloned().collect(), now);
            RegisteredClient { client, secrets }
        };
        Ok(clients.into_iter().map(with_secrets).collect())
    }

    /// The client of this id.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Constrained`] for a caller with constraints; or the store's.
    pub async fn get_client(
        &self,
        caller: &Principal,
        id: &str,
    ) -> Result<RegisteredClient, Error> {
        let mut conn = self.store.read().await?;
        let client = found(&mut conn, caller, id, Permission::ReadClients).await?;
        self.registered(&mut conn, client).await
    }

    /// How a client is used.
    ///
    /// # Errors
    /// As [`Registry::get_client`].
    pub async fn client_usage(&self, caller: &Principal, id: &str) -> Result<ClientUsage, Error> {
        let mut conn = self.store.read().await?;
        let client = found(&mut conn, caller, id, Permission::ReadClients).await?;
        let usage = store::clients::usage(&mut conn, &client.tenant, &client.id).await?;
        Ok(usage.unwrap_or_default())
    }

    /// Registers a client, pending. A retry with the same request id and `message` gets the same one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with every field that is not as it must be, or for a request id of
    /// another request; [`Error::AlreadyExists`] for a retry after ten minutes;
    /// [`Error::Constrained`] for a caller with constraints.
    pub async fn create_client(
        &self,
        caller: &Caller,
        new: &NewClient,
        message: &[u8],
    ) -> Result<IssuedClient, Error> {
        caller.require_unconstrained(Permission::WriteClients)?;
        reject(self.client_faults(&new.settings))?;
        let message = own_message(caller, message);
        let once = Once::of(&caller.tenant, "CreateClient", &new.request_id, &message);
        let now = self.clock.now();
        let create = self.make_client(caller, new, once.as_ref(), now);
        let outcome =
            requests::answer(&self.store, &self.keyring, once.as_ref(), now, create).await?;
        match outcome {
            Outcome::Made(issued) => Ok(issued),
            Outcome::Before(replayed) => self.shown_before(caller, replayed).await,
        }
    }

    async fn make_client(
        &self,
        caller: &Caller,
        new: &NewClient,
        once: Option<&Once<'_>>,
        now: Timestamp,
    ) -> Result<Option<IssuedClient>, Error> {
        let mut client = OauthClient {
            id: IdKind::Client.new_id(),
            tenant: caller.tenant.clone(),
            settings: new.settings.clone(),
            webhook_secret: None,
            state: ClientState::Pending,
            state_reason: String::new(),
            state_changed_at: now,
            created_by: caller.id.clone(),
            version: 1,
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        let webhook_secret = self.settle_webhook_secret(&mut client)?;
        let has_secret = client.settings.auth_method.has_secret();
        let secret = has_secret.then(|| new_secret(&client, new.secret_lifetime, now));
        let client_secret = secret.as_ref().map(|(text, _)| text);
        let shown = Shown::new(client_secret, webhook_secret.as_ref());
        let text = shown.sealable()?;
        let mut entry = client_entry(Action::ClientCreated, caller, &client)
            .detail("auth_method", client.settings.auth_method.as_str());
        if let Some((_, kept)) = &secret {
            entry = entry.detail("secret_prefix", &kept.prefix);
        }
        let registered = transact!(self.store, |tx| {
            let text = Some(text.as_str());
            if let Some(once) = once
                && !requests::remember(&mut tx, &self.keyring, once, &client.id, text, now).await?
            {
                return Ok(None);
            }
            store::clients::insert(&mut tx, &client).await?;
            if let Some((_, kept)) = &secret {
                store::clients::insert_secret(&mut tx, kept).await?;
            }
            self.record(&mut tx, &entry).await?;
            let registered = self.registered(&mut tx, client.clone()).await?;
            Ok(Some(registered))
        })?;
        Ok(registered.map(|registered| shown.with(registered)))
    }

    /// Changes a client. A method without a secret ends its secrets; a first webhook URL gives it a
    /// secret to sign with.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with every field that is not as it must be; `CLIENT_STATE` for a
    /// revoked client; [`Error::Conflict`] when `version` is not the current one;
    /// [`Error::NotFound`]; [`Error::Constrained`] for a caller with constraints.
    pub async fn update_client(
        &self,
        caller: &Caller,
        id: &str,
        changes: &ClientChanges,
        version: Option<i64>,
    ) -> Result<IssuedClient, Error> {
        let permission = Permission::WriteClients;
        transact!(self.store, |tx| {
            let mut client = self
                .changeable_client(&mut tx, caller, id, version, permission)
                .await?;
            require_not_revoked(&client)?;
            let changed = changes.apply(&mut client.settings);
            if changed.is_empty() {
                let registered = self.registered(&mut tx, client).await?;
                return Ok(Shown::default().with(registered));
            }
            reject(self.client_faults(&client.settings))?;
            let webhook_secret = self.settle_webhook_secret(&mut client)?;
            let client = self.write_client(&mut tx, client).await?;
            if !client.settings.auth_method.has_secret() {
                store::clients::delete_secrets(&mut tx, &client.tenant, &client.id).await?;
            }
            let entry = client_entry(Action::ClientUpdated, caller, &client)
                .detail("fields", changed.join(" "));
            self.record(&mut tx, &entry).await?;
            let registered = self.registered(&mut tx, client).await?;
            Ok(Shown::new(None, webhook_secret.as_ref()).with(registered))
        })
    }

    /// Deletes a client, softly: it is found no more, its secrets are gone, and what it was given is
    /// revoked.
    ///
    /// # Errors
    /// [`Error::Conflict`] when `version` is not the current one; [`Error::NotFound`];
    /// [`Error::Constrained`] for a caller with constraints.
    pub async fn delete_client(
        &self,
        caller: &Caller,
        id: &str,
        version: Option<i64>,
    ) -> Result<(), Error> {
        let permission = Permission::WriteClients;
        transact!(self.store, |tx| {
            let mut client = self
                .changeable_client(&mut tx, caller, id, version, permission)
                .await?;
            let now = self.clock.now();
            client.deleted_at = Some(now);
            client.webhook_secret = None;
            let client = self.write_client(&mut tx, client).await?;
            store::clients::delete_secrets(&mut tx, &client.tenant, &client.id).await?;
            let ended = end_issued(&mut tx, &client, "client_deleted", now).await?;
            let entry = client_entry(Action::ClientDeleted, caller, &client)
                .detail("issued_revoked", ended);
            self.record(&mut tx, &entry).await
        })?;
        self.poke.notify_one();
        Ok(())
    }

    async fn changeable_client(
        &self,
        conn: &mut Conn,
        caller: &Caller,
        id: &str,
        version: Option<i64>,
        permission: Permission,
    ) -> Result<OauthClient, Error> {
        let client = found(conn, caller, id, permission).await?;
        if version.is_some_and(|version| version != client.version) {
            return Err(Error::Conflict(Resource::Client, id.to_owned()));
        }
        Ok(client)
    }

    /// Writes the client as its next version. Every write of a client goes through here, and before
    /// any of its secrets: so that none overwrites another unseen.
    ///
    /// # Errors
    /// A busy store when another writer was first: then the transaction is to run again.
    async fn write_client(
        &self,
        tx: &mut Tx,
        mut client: OauthClient,
    ) -> Result<OauthClient, Error> {
        client.version += 1;
        client.updated_at = self.clock.now();
        if store::clients::update(tx, &client).await? {
            Ok(client)
        } else {
            Err(overtaken())
        }
    }

    async fn registered(
        &self,
        conn: &mut Conn,
        client: OauthClient,
    ) -> Result<RegisteredClient, Error> {
        let ids = [client.id.clone()];
        let secrets = store::clients::secrets(conn, &client.tenant, &ids).await?;
        let secrets = good(secrets, self.clock.now());
        Ok(RegisteredClient { client, secrets })
    }

    /// What can be said of the settings alone, and whether this server may call what it is to call.
    fn client_faults(&self, settings: &ClientSettings) -> Vec<FieldViolation> {
        let mut faults = client_faults(settings);
        for (field, url) in [
            ("client.jwks_uri", &settings.jwks_uri),
            ("client.webhook_url", &settings.webhook_url),
        ] {
            let refused = Url::parse(url).is_ok_and(|url| !self.http.filter().admits_url(&url));
            if refused {
                faults.push(FieldViolation::new(
                    field,
                    "is at an address that this server may not call (`providers` in the \
                     configuration)",
                ));
            }
        }
        faults
    }
}

async fn found(
    conn: &mut Conn,
    caller: &Principal,
    id: &str,
    permission: Permission,
) -> Result<OauthClient, Error> {
    // Before anything is looked up, so that it tells nothing of what exists.
    caller.require_unconstrained(permission)?;
    store::clients::find(conn, &caller.tenant, id)
        .await?
        .ok_or_else(|| Error::NotFound(Resource::Client, id.to_owned()))
}

/// Those of one client whose time is not over.
fn good(mut secrets: Vec<ClientSecret>, now: Timestamp) -> Vec<ClientSecret> {
    secrets.retain(|secret| secret.expires_at > now);
    secrets
}

/// What is recorded of any change of a client.
fn client_entry(action: Action, caller: &Caller, client: &OauthClient) -> Entry {
    Entry::new(action, caller).on("client", &client.id)
}

/// The request as this caller's: its answer holds a secret, which nobody else gets by repeating it.
fn own_message(caller: &Principal, message: &[u8]) -> Vec<u8> {
    let mut own = caller.id.as_bytes().to_vec();
    own.push(0);
    own.extend_from_slice(message);
    own
}
