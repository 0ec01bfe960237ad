//! Where clients stand: pending, active, suspended, revoked; and how they get there.

use super::{RegisteredClient, client_entry};
use crate::access::audit::Action;
use crate::access::{Caller, Permission};
use crate::error::{Error, Precondition};
use crate::model::{ClientState, EventKind, NewEvent, OauthClient, Timestamp};
use crate::registry::Registry;
use crate::store::{self, Tx, transact};

/// A way from some states to another.
struct Move {
    from: &'static [ClientState],
    to: ClientState,
    action: Action,
    permission: Permission,
}

const APPROVE: Move = Move {
    from: &[ClientState::Pending],
    to: ClientState::Active,
    action: Action::ClientApproved,
    permission: Permission::WriteClients,
};

const SUSPEND: Move = Move {
    from: &[ClientState::Active],
    to: ClientState::Suspended,
    action: Action::ClientSuspended,
    permission: Permission::SuspendClients,
};

const REACTIVATE: Move = Move {
    from: &[ClientState::Suspended],
    to: ClientState::Active,
    action: Action::ClientReactivated,
    permission: Permission::WriteClients,
};

const REVOKE: Move = Move {
    from: &[
        ClientState::Pending,
        ClientState::Active,
        ClientState::Suspended,
    ],
    to: ClientState::Revoked,
    action: Action::ClientRevoked,
    permission: Permission::WriteClients,
};

impl Registry {
    /// Lets a pending client in.
    ///
    /// # Errors
    /// `CLIENT_STATE` for one that was suspended or revoked; [`Error::Conflict`] when `version` is
    /// not the current one; [`Error::NotFound`]; [`Error::Constrained`] for a caller with
    /// constraints.
    pub async fn approve_client(
        &self,
        caller: &Caller,
        id: &str,
        reason: &str,
        version: Option<i64>,
    ) -> Result<RegisteredClient, Error> {
        self.move_client(caller, id, &APPROVE, reason, version)
            .await
    }

    /// Shuts an active client out until it is reactivated. What it was given is of no use meanwhile.
    ///
    /// # Errors
    /// `CLIENT_STATE` for one that is pending or was revoked; otherwise as
    /// [`Registry::approve_client`].
    pub async fn suspend_client(
        &self,
        caller: &Caller,
        id: &str,
        reason: &str,
    ) -> Result<RegisteredClient, Error> {
        self.move_client(caller, id, &SUSPEND, reason, None).await
    }

    /// Lets a suspended client in again.
    ///
    /// # Errors
    /// As [`Registry::suspend_client`].
    pub async fn reactivate_client(
        &self,
        caller: &Caller,
        id: &str,
        reason: &str,
    ) -> Result<RegisteredClient, Error> {
        self.move_client(caller, id, &REACTIVATE, reason, None)
            .await
    }

    /// Shuts a client out for good; its secrets are gone, and what it was given is revoked.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Constrained`] for a caller with constraints.
    pub async fn revoke_client(
        &self,
        caller: &Caller,
        id: &str,
        reason: &str,
    ) -> Result<RegisteredClient, Error> {
        self.move_client(caller, id, &REVOKE, reason, None).await
    }

    /// A client that is there already stays as it is.
    async fn move_client(
        &self,
        caller: &Caller,
        id: &str,
        step: &Move,
        reason: &str,
        version: Option<i64>,
    ) -> Result<RegisteredClient, Error> {
        let moved = transact!(self.store, |tx| {
            let mut client = self
                .changeable_client(&mut tx, caller, id, version, step.permission)
                .await?;
            if client.state == step.to {
                return self.registered(&mut tx, client).await;
            }
            let from = client.state;
            if !step.from.contains(&from) {
                return Err(wrong_state(&client));
            }
            client.state = step.to;
            reason.clone_into(&mut client.state_reason);
            let now = self.clock.now();
            client.state_changed_at = now;
            let revoked = step.to == ClientState::Revoked;
            if revoked {
                client.webhook_secret = None;
            }
            let client = self.write_client(&mut tx, client).await?;
            if revoked {
                store::clients::delete_secrets(&mut tx, &client.tenant, &client.id).await?;
            }
            let mut entry = client_entry(step.action, caller, &client)
                .reason(reason)
                .detail("from", from.as_str());
            if revoked {
                let ended = end_issued(&mut tx, &client, "client_revoked", now).await?;
                entry = entry.detail("issued_revoked", ended);
            } else if step.to == ClientState::Suspended {
                forget_issued(&mut tx, &client, now).await?;
            }
            self.record(&mut tx, &entry).await?;
            self.registered(&mut tx, client).await
        })?;
        self.poke.notify_one();
        Ok(moved)
    }
}

/// Revokes what people gave a client, and the tokens that it has for itself; how many of both. The client
/// was written before: an exchange that is under way sees that, or is seen here.
pub(super) async fn end_issued(
    tx: &mut Tx,
    client: &OauthClient,
    reason: &str,
    now: Timestamp,
) -> Result<usize, Error> {
    let (tenant, id) = (&client.tenant, &client.id);
    let grants = store::issuer::grants::revoke_of_client(tx, tenant, id, reason, now).await?;
    let tokens = store::issuer::tokens::revoke_of_client(tx, tenant, id, reason, now).await?;
    forget_issued(tx, client, now).await?;
    Ok(grants + tokens)
}

/// Has every replica forget what it knows of the client's tokens.
async fn forget_issued(tx: &mut Tx, client: &OauthClient, now: Timestamp) -> Result<(), Error> {
    let event = NewEvent::internal(EventKind::IssuedEnded, &client.tenant, &client.id, now);
    store::events::append(tx, &event).await?;
    Ok(())
}

/// A revoked client stays as it is.
pub(super) fn require_not_revoked(client: &OauthClient) -> Result<(), Error> {
    if client.state == ClientState::Revoked {
        Err(wrong_state(client))
    } else {
        Ok(())
    }
}

fn wrong_state(client: &OauthClient) -> Error {
    let hint = match client.state {
        ClientState::Pending => "approve it first",
        ClientState::Active => "it may be suspended or revoked",
        ClientState::Suspended => "reactivate it first",
        ClientState::Revoked => "register a new one",
    };
    Error::precondition(
        Precondition::ClientState,
        format!("client {} is {}; {hint}", client.id, client.state.as_str()),
    )
}
