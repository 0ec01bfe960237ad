//! What the audit trail is told of authorisations.

use super::{Authorizations, Flow};
use crate::access::Caller;
use crate::access::audit::{self, Action, Entry, Who};
use crate::error::Error;
use crate::model::{Authorization, AuthorizationFailure, AuthorizationIntent};
use crate::store::{Tx, transact};

impl Flow {
    /// Something that was done with the authorisation.
    pub(super) fn entry(&self, action: Action) -> Entry {
        entry(action, &self.who, &self.authorization).provider(&self.provider.id)
    }
}

/// Something that `who` did with an authorisation.
pub(super) fn entry(action: Action, who: impl Into<Who>, authorization: &Authorization) -> Entry {
    let entry = Entry::new(action, who)
        .on("authorization", &authorization.id)
        .detail("app_id", &authorization.app_id);
    match authorization.intent {
        AuthorizationIntent::Connect => entry.detail("owner", &authorization.owner),
        AuthorizationIntent::SignIn => entry.detail("intent", "sign_in"),
    }
}

/// The same, and that it failed.
pub(super) fn failed(entry: Entry, failure: &AuthorizationFailure) -> Entry {
    let entry = entry.failed(&failure.reason);
    if failure.provider_error.is_empty() {
        entry
    } else {
        entry.detail("provider_error", &failure.provider_error)
    }
}

impl Authorizations {
    pub(super) async fn record(&self, tx: &mut Tx, entry: &Entry) -> Result<(), Error> {
        audit::record(tx, entry, self.clock.now()).await.map(drop)
    }

    /// Records that a caller was refused a step, by the state of things or by a proof that is not
    /// right. It changes nothing, so it has a transaction of its own, and its failure is logged.
    pub(super) async fn record_refusal<T>(
        &self,
        action: Action,
        caller: &Caller,
        authorization: &Authorization,
        outcome: &Result<T, Error>,
    ) {
        let Err(Error::FailedPrecondition { precondition, .. }) = outcome else {
            return;
        };
        let entry = entry(action, caller, authorization).failed(precondition.reason());
        let recorded: Result<(), Error> =
            transact!(self.store, |tx| { self.record(&mut tx, &entry).await });
        if let Err(error) = recorded {
            crate::error::log(&error);
        }
    }
}
