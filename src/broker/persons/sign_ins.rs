//! What a user's sign-ins leave: sessions, the authorisations of those through a provider, and what they
//! gave to OAuth clients.

use super::{BATCH, Persons};
use crate::access::audit;
use crate::error::Error;
use crate::model::IssuedGrant;
use crate::store::issuer::grants::GrantQuery;
use crate::store::{self, Conn};

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
        let grants = self.grants(&mut conn, tenant, user_id, i64::MAX).await?;
        all.consents
            .extend(grants.into_iter().map(|(grant, _)| grant.id));
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

    /// What a user gave to clients, those that ended too, with the clients' names: the first of them.
    pub(super) async fn grants(
        &self,
        conn: &mut Conn,
        tenant: &str,
        user_id: &str,
        most: i64,
    ) -> Result<Vec<(IssuedGrant, String)>, Error> {
        let asked = GrantQuery {
            user_id: Some(user_id),
            client_id: None,
            ended: true,
            now: self.clock.now(),
            after: "",
            limit: most,
        };
        Ok(store::issuer::grants::list(conn, tenant, &asked).await?)
    }
}
