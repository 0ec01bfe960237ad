//! Where users signed in and what they gave to clients, as far as the trail tells: the entry of each
//! session names its authorisation, that of each consent its grant and its device.

use std::collections::{BTreeSet, HashSet};

use super::Action;
use crate::error::Error;
use crate::model::{ActorKind, AuditEvent};
use crate::store::Conn;
use crate::store::audit::Filter;
use crate::store::audit::reading::{self, Stretch};

/// Entries of one query.
const PAGE: i64 = 500;

/// A user's sign-ins, by id.
#[derive(Debug, Default)]
pub struct SignIns {
    /// Sessions.
    pub sessions: BTreeSet<String>,
    /// Authorisations of those through a provider, which name no owner.
    pub authorizations: BTreeSet<String>,
    /// What they gave to clients of ours, and the devices that they gave it to.
    pub consents: BTreeSet<String>,
}

impl SignIns {
    /// What the trail tells of a user, by entries that have their place.
    ///
    /// # Errors
    /// The store's.
    pub async fn of(conn: &mut Conn, tenant: &str, user_id: &str) -> Result<Self, Error> {
        let by = Filter {
            actor_id: user_id.to_owned(),
            ..Filter::default()
        };
        // Nobody known tried it: the user may not sign in.
        let on = Filter {
            resource_id: user_id.to_owned(),
            ..Filter::default()
        };
        let mut found = Self::default();
        let given = Action::ConsentGiven;
        each(conn, tenant, given, by.clone(), |mut event| {
            found.consents.extend(event.details.remove("device_id"));
            found.consents.insert(event.resource_id);
        })
        .await?;
        for filter in [by, on] {
            each(conn, tenant, Action::SessionCreated, filter, |mut event| {
                let authorization = event.details.remove("authorization_id");
                found.authorizations.extend(authorization);
                if event.resource_kind == "session" {
                    found.sessions.insert(event.resource_id);
                }
            })
            .await?;
        }
        Ok(found)
    }
}

/// Of these authorisations those of which the trail tells which user signed in with them.
pub(super) async fn attributed(
    conn: &mut Conn,
    tenant: &str,
    authorizations: &HashSet<String>,
) -> Result<HashSet<String>, Error> {
    let mut found = HashSet::new();
    let made = Action::SessionCreated;
    each(conn, tenant, made, Filter::default(), |mut event| {
        let of_user = event.actor_kind == ActorKind::User.as_str() || event.resource_kind == "user";
        let named = event.details.remove("authorization_id");
        found.extend(named.filter(|id| of_user && authorizations.contains(id)));
    })
    .await?;
    Ok(found)
}

/// Hands on the entries of an action.
async fn each(
    conn: &mut Conn,
    tenant: &str,
    action: Action,
    filter: Filter,
    mut take: impl FnMut(AuditEvent),
) -> Result<(), Error> {
    let filter = Filter {
        action: action.as_str().to_owned(),
        ..filter
    };
    let (mut after, until) = (0, i64::MAX);
    loop {
        let stretch = Stretch { after, until };
        let page = reading::list(conn, tenant, &filter, stretch, PAGE).await?;
        let Some(last) = page.last().and_then(|last| last.position) else {
            return Ok(());
        };
        after = last;
        for told in page {
            take(told.event);
        }
    }
}
