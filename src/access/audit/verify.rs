//! Verification: goes through the chain and its checkpoints and names what is not as it was.
//!
//! The whole trail passes in batches. After a place whose hash does not fit, it goes on with the hash
//! that is stored there, so that one change is one finding. What doesn't fit is looked at once more at
//! the end, when it can be told whether entries only changed places (`links`).

mod findings;
mod links;
mod personal;
mod walk;

use tokio_util::sync::CancellationToken;

pub use findings::{Fault, Finding, Verification};

use super::checkpoint::{self, Statement};
use super::note::NOTE_MAX;
use super::trail::Trail;
use super::{Action, Entry, Who};
use crate::error::Error;
use crate::store;
use walk::Walk;

/// How often a verification begins anew because retention took what it had not come to yet.
const ATTEMPTS: usize = 3;

impl Trail {
    /// Verifies the trail. `external` is a checkpoint that was kept elsewhere: the chain must hold it.
    /// Cancelling `stop` ends it early.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what is no checkpoint, [`Error::OutOfRange`] for one whose place
    /// retention removed, [`Error::ResourceExhausted`] while another verification runs here,
    /// [`Error::Unavailable`] when it was ended early, or the store's.
    pub async fn verify(
        &self,
        external: Option<&str>,
        stop: &CancellationToken,
    ) -> Result<Verification, Error> {
        let external = external.map(|note| self.external(note)).transpose()?;
        let _one_at_a_time =
            self.verifying
                .try_acquire()
                .map_err(|_| Error::ResourceExhausted {
                    message: "the audit trail is being verified already; that takes a while"
                        .to_owned(),
                    retry_after: std::time::Duration::from_secs(5),
                })?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut conn = self.store.read().await?;
            let head = store::audit::chain::head(&mut conn).await?;
            drop(conn);
            // Behind the head that was read: so whatever that head knows of has its place. A chain that
            // can't grow is no reason not to look at it.
            if let Err(error) = self.chain().await {
                crate::error::log(&error);
            }
            let begun = head.as_ref().map_or(0, |head| head.trimmed);
            let verification = Walk::new(self, head, external.as_ref()).run(stop).await?;
            let mut conn = self.store.read().await?;
            let head = store::audit::chain::head(&mut conn).await?;
            let trimmed = head.map_or(begun, |head| head.trimmed);
            if trimmed > begun && verification.misses_up_to(trimmed) && attempt < ATTEMPTS {
                continue;
            }
            let gone = external
                .as_ref()
                .is_some_and(|external| external.position < verification.first_position - 1);
            if gone && verification.findings.is_empty() {
                return Err(Error::OutOfRange(format!(
                    "the checkpoint speaks of a place that retention has removed; what is kept begins \
                     at {}",
                    verification.first_position
                )));
            }
            return Ok(verification);
        }
    }

    fn external(&self, note: &str) -> Result<Statement, Error> {
        checkpoint::read(note, &self.verifiers).ok_or_else(|| {
            Error::invalid(
                "checkpoint",
                format!(
                    "is not a checkpoint: a signed note of at most {NOTE_MAX} bytes is needed, to its \
                     last line break"
                ),
            )
        })
    }

    /// Records that somebody verified the trail, and what came of it.
    ///
    /// # Errors
    /// The store's.
    pub async fn verified(&self, who: Who, outcome: &Verification) -> Result<(), Error> {
        let entry = Entry::new(Action::AuditVerified, who)
            .on("audit", "")
            .detail("intact", outcome.findings.is_empty())
            .detail("findings", outcome.findings.len())
            .detail("events_checked", outcome.events_checked)
            .detail("last_position", outcome.last_position);
        self.record(&entry).await.map(drop)
    }
}
