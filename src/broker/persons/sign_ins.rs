//! What a user's sign-ins leave: sessions, and the authorisations of those through a provider.

use super::{BATCH, Persons};
use crate::access::audit;
use crate::error::Error;
use crate::store;

/// Where a user signed in.
pub(super) struct SignIns {
    /// How many sessions there are still.
    pub(super) kept: i64,
    /// Those, and what the trail tells of: sessions that retention removed too.
    pub(super) all: audit::SignIns,
}

impl Persons {
    /// A user's sign-ins.
    pub(super) async fn sign_ins(&self, tenant: &str, user_id: &str) -> Result<SignIns, Error> {
        // The trail lists what has its place.
        self.trail.chain().await?;
        let mut conn = self.store.read().await?;
        let mut all = audit::SignIns::of(&mut conn, tenant, user_id).await?;
        let (mut kept, mut after) = (0, String::new());
        loop {
            let page =
                store::sessions::list(&mut conn, tenant, user_id, None, &after, BATCH).await?;
            let Some(last) = page.last() else {
                return Ok(SignIns { kept, all });
            };
            after.clone_from(&last.id);
            for session in page {
                kept += 1;
                all.sessions.insert(session.id);
            }
        }
    }
}
