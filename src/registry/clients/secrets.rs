//! Secrets of clients: made here, shown once, kept as hashes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{IssuedClient, RegisteredClient, client_entry, own_message, require_not_revoked};
use crate::access::audit::Action;
use crate::access::bearer::{BearerSecret, Prefix};
use crate::access::requests::{self, Once, Outcome, Replayed};
use crate::access::{Caller, Permission};
use crate::crypto::{Purpose, random};
use crate::error::Error;
use crate::model::{ClientSecret, OauthClient, Timestamp};
use crate::registry::{Registry, context};
use crate::store::{self, Tx, transact};

/// How long a secret is good where nothing else is asked for.
const DEFAULT_SECRET_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The longest that it may be.
pub const MAX_SECRET_LIFETIME: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// The shortest.
pub const MIN_SECRET_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// How long the secret before is still good where a rotation does not say.
const DEFAULT_SECRET_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that it may be.
pub const MAX_SECRET_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Random bytes of what webhooks are signed with (Standard Webhooks asks for 24 to 64).
const WEBHOOK_SECRET_BYTES: usize = 32;

/// How a secret is to be replaced.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// How long the one before is still good; none for the default.
    pub overlap: Option<Duration>,
    /// How long the new one is good; none for the default.
    pub lifetime: Option<Duration>,
    /// Makes a retry answer what the first call answered; empty for none.
    pub request_id: String,
}

/// What a create or a rotation shows once, as it is sealed for retries.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct Shown {
    client_secret: Option<String>,
    webhook_secret: Option<String>,
}

impl Shown {
    pub(super) fn new(
        client_secret: Option<&SecretString>,
        webhook_secret: Option<&SecretString>,
    ) -> Self {
        let text = |secret: Option<&SecretString>| secret.map(|it| it.expose_secret().to_owned());
        Self {
            client_secret: text(client_secret),
            webhook_secret: text(webhook_secret),
        }
    }

    /// Also where nothing was shown: what the client is later does not tell of that.
    pub(super) fn sealable(&self) -> Result<Zeroizing<String>, Error> {
        let text = serde_json::to_string(self).map_err(Error::internal)?;
        Ok(Zeroizing::new(text))
    }

    fn read(text: &SecretString) -> Result<Self, Error> {
        serde_json::from_str(text.expose_secret()).map_err(Error::internal)
    }

    pub(super) fn with(mut self, registered: RegisteredClient) -> IssuedClient {
        IssuedClient {
            registered,
            client_secret: self.client_secret.take().map(SecretString::from),
            webhook_secret: self.webhook_secret.take().map(SecretString::from),
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.client_secret.zeroize();
        self.webhook_secret.zeroize();
    }
}

/// A new secret of a client: its text, and what is kept of it.
pub(super) fn new_secret(
    client: &OauthClient,
    lifetime: Option<Duration>,
    now: Timestamp,
) -> (SecretString, ClientSecret) {
    let secret = BearerSecret::generate(Prefix::ClientSecret);
    let kept = ClientSecret {
        hash: secret.hash().to_vec(),
        tenant: client.tenant.clone(),
        client_id: client.id.clone(),
        prefix: secret.display_prefix().to_owned(),
        created_at: now,
        expires_at: now.plus(lifetime.unwrap_or(DEFAULT_SECRET_LIFETIME)),
        superseded_at: None,
    };
    (secret.text().clone(), kept)
}

impl Registry {
    /// Gives a client with a webhook URL something to sign with, once, and takes it from one without;
    /// what it was given.
    pub(super) fn settle_webhook_secret(
        &self,
        client: &mut OauthClient,
    ) -> Result<Option<SecretString>, Error> {
        if client.settings.webhook_url.is_empty() {
            client.webhook_secret = None;
            return Ok(None);
        }
        if client.webhook_secret.is_some() {
            return Ok(None);
        }
        let bytes = Zeroizing::new(random::random_bytes::<WEBHOOK_SECRET_BYTES>());
        let text = Zeroizing::new(format!("whsec_{}", STANDARD.encode(bytes.as_slice())));
        let context = context(&client.tenant, &client.id, Purpose::ClientWebhookSecret);
        client.webhook_secret = Some(self.keyring.seal(&context, text.as_bytes())?);
        Ok(Some(SecretString::from(text.as_str())))
    }

    /// Makes a new secret. The one before it is good for the overlap longer, but not beyond its own
    /// end; any older one no more. A retry with the same request id and `message` gets the same one.
    ///
    /// # Errors
    /// `CLIENT_STATE` for a revoked client; [`Error::InvalidArgument`] for one whose method has no
    /// secret, or for a request id of another request; [`Error::AlreadyExists`] for a retry after ten
    /// minutes; [`Error::NotFound`]; [`Error::Constrained`] for a caller with constraints.
    pub async fn rotate_client_secret(
        &self,
        caller: &Caller,
        id: &str,
        rotation: &Rotation,
        message: &[u8],
    ) -> Result<IssuedClient, Error> {
        caller.require_unconstrained(Permission::WriteClients)?;
        let message = own_message(caller, message);
        let request_id = &rotation.request_id;
        let once = Once::of(&caller.tenant, "RotateClientSecret", request_id, &message);
        let rotate = async {
            transact!(self.store, |tx| {
                self.replace_secret(&mut tx, caller, id, rotation, once.as_ref())
                    .await
            })
        };
        let now = self.clock.now();
        let outcome = requests::answer(&self.store, &self.keyring, once.as_ref(), now, rotate);
        match outcome.await? {
            Outcome::Made(issued) => Ok(issued),
            Outcome::Before(replayed) => self.shown_before(caller, replayed).await,
        }
    }

    async fn replace_secret(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        id: &str,
        rotation: &Rotation,
        once: Option<&Once<'_>>,
    ) -> Result<Option<IssuedClient>, Error> {
        let permission = Permission::WriteClients;
        let client = self
            .changeable_client(tx, caller, id, None, permission)
            .await?;
        require_not_revoked(&client)?;
        if !client.settings.auth_method.has_secret() {
            let method = client.settings.auth_method.as_str();
            return Err(Error::invalid(
                "client_id",
                format!("its authentication method {method} has no secret"),
            ));
        }
        let now = self.clock.now();
        let (secret, kept) = new_secret(&client, rotation.lifetime, now);
        let shown = Shown::new(Some(&secret), None);
        if let Some(once) = once {
            let text = shown.sealable()?;
            let text = Some(text.as_str());
            if !requests::remember(tx, &self.keyring, once, id, text, now).await? {
                return Ok(None);
            }
        }
        let client = self.write_client(tx, client).await?;
        let overlap = rotation.overlap.unwrap_or(DEFAULT_SECRET_OVERLAP);
        let ids = [client.id.clone()];
        let before = store::clients::secrets(tx, &client.tenant, &ids).await?;
        store::clients::delete_secrets(tx, &client.tenant, &client.id).await?;
        let current = before
            .into_iter()
            .find(|secret| secret.superseded_at.is_none() && secret.expires_at > now);
        if let Some(mut current) = current.filter(|_| !overlap.is_zero()) {
            current.superseded_at = Some(now);
            current.expires_at = current.expires_at.min(now.plus(overlap));
            store::clients::insert_secret(tx, &current).await?;
        }
        store::clients::insert_secret(tx, &kept).await?;
        let entry = client_entry(Action::ClientSecretRotated, caller, &client)
            .detail("secret_prefix", &kept.prefix)
            .detail("overlap_seconds", overlap.as_secs());
        self.record(tx, &entry).await?;
        let registered = self.registered(tx, client).await?;
        Ok(Some(shown.with(registered)))
    }

    /// What a request with this id was shown before.
    pub(super) async fn shown_before(
        &self,
        caller: &Caller,
        replayed: Replayed,
    ) -> Result<IssuedClient, Error> {
        let registered = self.get_client(caller, &replayed.resource_id).await?;
        let text = replayed.into_secret()?;
        Ok(Shown::read(&text)?.with(registered))
    }
}
