//! What a user's sign-ins leave: sessions, and the authorisations of those through a provider, which
//! name no owner.

use std::collections::BTreeSet;

use super::{BATCH, Persons};
use crate::access::audit::Action;
use crate::error::Error;
use crate::store;
use crate::store::audit::reading::{self, Stretch};

/// Where a user signed in, by id.
#[derive(Default)]
pub(super) struct SignIns {
    /// How many sessions there are still.
    pub(super) kept: i64,
    /// Sessions, those that retention removed too, as long as the trail tells of them.
    pub(super) sessions: BTreeSet<String>,
    /// Authorisations.
    pub(super) authorizations: BTreeSet<String>,
}

impl Persons {
    /// A user's sign-ins.
    pub(super) async fn sign_ins(&self, tenant: &str, user_id: &str) -> Result<SignIns, Error> {
        let mut found = SignIns::default();
        // The trail lists what has its place.
        self.trail.chain().await?;
        let mut conn = self.store.read().await?;
        let mut after = String::new();
        loop {
            let page =
                store::sessions::list(&mut conn, tenant, user_id, None, &after, BATCH).await?;
            let Some(last) = page.last() else {
                break;
            };
            after.clone_from(&last.id);
            for session in page {
                found.kept += 1;
                found.sessions.insert(session.id);
            }
        }
        let signed_in = reading::Filter {
            action: Action::SessionCreated.as_str().to_owned(),
            ..reading::Filter::default()
        };
        let by = reading::Filter {
            actor_id: user_id.to_owned(),
            ..signed_in.clone()
        };
        // Nobody known tried it: the user was switched off.
        let on = reading::Filter {
            resource_id: user_id.to_owned(),
            ..signed_in
        };
        for filter in [by, on] {
            let mut stretch = Stretch {
                after: 0,
                until: i64::MAX,
            };
            loop {
                let page = reading::list(&mut conn, tenant, &filter, stretch, BATCH).await?;
                let Some(last) = page.last().and_then(|last| last.position) else {
                    break;
                };
                stretch.after = last;
                for told in page {
                    let mut event = told.event;
                    let authorization = event.details.remove("authorization_id");
                    found.authorizations.extend(authorization);
                    if event.resource_kind == "session" {
                        found.sessions.insert(event.resource_id);
                    }
                }
            }
        }
        Ok(found)
    }
}
