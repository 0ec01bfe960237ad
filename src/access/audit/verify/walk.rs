//! One walk through the trail.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::Action;
use super::super::chain::{self, ORIGIN};
use super::super::checkpoint::{self, Statement};
use super::super::trail::Trail;
use super::findings::{FINDINGS_MAX, Fault, Findings, Verification};
use super::links::{self, SUSPECTS_MAX, Suspect};
use super::personal::Erasures;
use crate::error::Error;
use crate::model::{ChainHead, Chained, Checkpoint, Timestamp};
use crate::store;

/// Entries, or checkpoints, of one query.
const BATCH: i64 = 1_000;

/// After which an entry without a place is a finding.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Where a walk is, and what it found.
pub(super) struct Walk<'a> {
    trail: &'a Trail,
    head: Option<ChainHead>,
    external: Option<&'a Statement>,
    findings: Findings,
    suspects: Vec<Suspect>,
    /// The hash at the place before; none where it is not known.
    previous: Option<Vec<u8>>,
    /// The next place.
    expected: i64,
    last_hash: Vec<u8>,
    first: i64,
    events: i64,
    checkpoints: i64,
    /// Checkpoints to come.
    ahead: VecDeque<Checkpoint>,
    /// The last checkpoint that was read.
    read_to: i64,
    /// The last checkpoint that there was when the walk began.
    newest: i64,
    /// The furthest place that something signed knows of, and what.
    known_of: Option<(i64, &'static str)>,
    /// The last place with which a checkpoint agreed.
    agreed: i64,
    /// The checkpoint before did not agree.
    disagreed: bool,
    /// The signed entry on what retention removed was met.
    trimming_told: bool,
    erasures: Erasures,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        trail: &'a Trail,
        head: Option<ChainHead>,
        external: Option<&'a Statement>,
    ) -> Self {
        let trimmed = head.as_ref().map_or(0, |head| head.trimmed);
        Self {
            trail,
            known_of: head.as_ref().map(|head| (head.position, "audit_head")),
            head,
            external,
            findings: Findings::default(),
            suspects: Vec::new(),
            previous: (trimmed == 0).then(|| ORIGIN.to_vec()),
            expected: trimmed + 1,
            last_hash: ORIGIN.to_vec(),
            first: trimmed + 1,
            events: 0,
            checkpoints: 0,
            ahead: VecDeque::new(),
            read_to: trimmed,
            newest: 0,
            agreed: trimmed,
            disagreed: false,
            trimming_told: trimmed == 0,
            erasures: Erasures::new(trimmed > 0),
        }
    }

    pub(super) async fn run(mut self, stop: &CancellationToken) -> Result<Verification, Error> {
        let mut conn = self.trail.store.read().await?;
        let newest = store::audit::checkpoints::newest(&mut conn, i64::MAX).await?;
        self.newest = newest.map_or(0, |newest| newest.position);
        drop(conn);
        self.begin().await?;
        loop {
            if stop.is_cancelled() || self.trail.stopping.is_cancelled() {
                let ended = "the verification was ended; ask elsewhere, or use the command line";
                return Err(Error::Unavailable(ended.to_owned(), None));
            }
            let mut conn = self.trail.store.read().await?;
            let after = self.expected - 1;
            let batch = store::audit::reading::any_tenant_after(&mut conn, after, BATCH).await?;
            drop(conn);
            if batch.is_empty() {
                break;
            }
            self.erasures.look_up(self.trail, &batch).await?;
            for entry in &batch {
                self.entry(entry).await?;
            }
        }
        self.end().await?;
        links::classify(&self.suspects, &mut self.findings);
        Ok(Verification {
            findings: self.findings.sorted(),
            events_checked: self.events,
            checkpoints_checked: self.checkpoints,
            first_position: self.first,
            last_position: self.expected - 1,
            last_hash: self.last_hash,
        })
    }

    /// What the first place that is kept was chained to.
    async fn begin(&mut self) -> Result<(), Error> {
        let trimmed = self.first - 1;
        if self.head.is_none() {
            let gone = "the row of audit_head is gone, which says how far the chain goes";
            self.findings.add(Fault::Truncated, 0, "", gone);
        }
        if let Some(external) = self.external
            && external.signer.is_none()
        {
            let whose = if external.forged {
                "the checkpoint given is not signed by the key that it names"
            } else {
                "the checkpoint given is not signed by a key of this service"
            };
            self.findings
                .add(Fault::Checkpoint, external.position, "", whose);
        }
        if trimmed == 0 {
            return Ok(());
        }
        let mut conn = self.trail.store.read().await?;
        let anchor = store::audit::checkpoints::find(&mut conn, trimmed).await?;
        drop(conn);
        match anchor {
            Some(anchor) if self.is_signed(&anchor) => {
                self.compare_external(trimmed, &anchor.hash);
                self.last_hash.clone_from(&anchor.hash);
                self.previous = Some(anchor.hash);
            }
            _ => self.findings.add(
                Fault::Removed,
                trimmed,
                "",
                format!(
                    "places 1 to {trimmed} are gone, and no checkpoint that this service signed says \
                     what they came to"
                ),
            ),
        }
        Ok(())
    }

    async fn entry(&mut self, entry: &Chained) -> Result<(), Error> {
        let position = entry.position.unwrap_or(self.expected);
        let id = &entry.event.id;
        if position > self.expected {
            let last = position - 1;
            let first = self.expected;
            let gone = if first == last {
                format!("the entry at place {first} is gone")
            } else {
                format!("the entries at places {first} to {last} are gone")
            };
            self.findings.add(Fault::Removed, first, "", gone);
            self.previous = None;
        }
        let stored = entry.hash.clone().unwrap_or_default();
        let canonical = chain::canonical(&entry.event);
        let fits = self
            .previous
            .as_ref()
            .map(|previous| chain::hash(previous, &canonical).as_slice() == stored);
        if fits != Some(true) {
            let previous = self.previous.take();
            self.suspect(Suspect {
                position,
                event_id: id.clone(),
                previous,
                stored: stored.clone(),
                canonical,
            });
        }
        // What does not fit its hash is a finding as it is.
        if fits != Some(false)
            && let Some(words) = self.erasures.fault(&entry.event)
        {
            self.findings.add(Fault::Changed, position, id, words);
        }
        self.notice_trimming(entry);
        if let Some(head) = &self.head
            && head.position == position
            && head.hash != stored
        {
            let words = format!("audit_head has another hash for place {position}");
            self.findings.add(Fault::Changed, position, id, words);
        }
        self.compare_external(position, &stored);
        self.checkpoints_up_to(position, &stored).await?;
        self.events += 1;
        self.expected = position + 1;
        self.last_hash.clone_from(&stored);
        self.previous = Some(stored);
        Ok(())
    }

    fn suspect(&mut self, suspect: Suspect) {
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.push(suspect);
        } else if suspect.previous.is_some() {
            let words = links::changed(suspect.position);
            self.findings
                .add(Fault::Changed, suspect.position, &suspect.event_id, words);
        }
    }

    /// The entry with which retention signed that it removed what is before the first place.
    fn notice_trimming(&mut self, entry: &Chained) {
        if self.trimming_told || entry.event.action != Action::AuditTrimmed.as_str() {
            return;
        }
        let note = entry.event.details.get("note").map_or("", String::as_str);
        let statement = checkpoint::read_trimmed(note, &self.trail.verifiers);
        self.trimming_told =
            statement.is_some_and(|read| read.signer.is_some() && read.position == self.first - 1);
    }

    // ---- checkpoints ----

    fn compare_external(&mut self, position: i64, stored: &[u8]) {
        if let Some(external) = self.external
            && external.signer.is_some()
            && external.position == position
            && external.hash != stored
        {
            let words = "the checkpoint given has another hash: the trail was rewritten at or before \
                         this place";
            self.findings.add(Fault::Checkpoint, position, "", words);
        }
    }

    /// Judges the checkpoints up to a place, whose hash is given.
    async fn checkpoints_up_to(&mut self, position: i64, stored: &[u8]) -> Result<(), Error> {
        while let Some(next) = self.next_checkpoint(position).await? {
            let signed = self.is_signed(&next);
            if !signed || next.position != position {
                continue;
            }
            if next.hash == stored {
                self.agreed = position;
                self.disagreed = false;
            } else if !self.disagreed {
                self.disagreed = true;
                let words = format!(
                    "the checkpoint of place {position}, signed at {}, has another hash: the trail \
                     was rewritten behind place {}",
                    next.created_at, self.agreed
                );
                self.findings.add(Fault::Checkpoint, position, "", words);
            }
        }
        Ok(())
    }

    /// The next checkpoint of no later place, of those that there were at the beginning.
    async fn next_checkpoint(&mut self, position: i64) -> Result<Option<Checkpoint>, Error> {
        if self.ahead.is_empty() && self.read_to < self.newest {
            let mut conn = self.trail.store.read().await?;
            let batch = store::audit::checkpoints::list(&mut conn, self.read_to, BATCH).await?;
            self.read_to = batch.last().map_or(self.newest, |last| last.position);
            self.ahead.extend(batch);
        }
        let due = |next: &Checkpoint| next.position <= position.min(self.newest);
        Ok(match self.ahead.front() {
            Some(next) if due(next) => self.ahead.pop_front(),
            _ => None,
        })
    }

    /// Whether a checkpoint says what its note does, and the note is ours. If not, that is a finding.
    fn is_signed(&mut self, checkpoint: &Checkpoint) -> bool {
        self.checkpoints += 1;
        let fault = match checkpoint::read(&checkpoint.note, &self.trail.verifiers) {
            None => "the checkpoint's note is damaged",
            Some(read) if read.forged => "the checkpoint is not signed by the key that it names",
            Some(read) if read.signer.is_none() => {
                "the checkpoint is not signed by a key of this service; if a sealing key was taken \
                 out of the keyring, name its verifier key in audit.former_keys"
            }
            Some(read) if read.position != checkpoint.position || read.hash != checkpoint.hash => {
                "the checkpoint's row says something else than its signed note"
            }
            Some(_) => return true,
        };
        self.findings
            .add(Fault::Checkpoint, checkpoint.position, "", fault);
        false
    }

    // ---- the end ----

    async fn end(&mut self) -> Result<(), Error> {
        let last = self.expected - 1;
        while let Some(next) = self.next_checkpoint(i64::MAX).await? {
            if self.is_signed(&next) && next.position > self.known_to() {
                self.known_of = Some((next.position, "a signed checkpoint"));
            }
        }
        if let Some(external) = self.external
            && external.signer.is_some()
            && external.position > self.known_to()
        {
            self.known_of = Some((external.position, "the checkpoint given"));
        }
        if let Some((known, what)) = self.known_of
            && known > last
        {
            let words =
                format!("the trail ends at place {last}, but {what} knows of place {known}");
            self.findings.add(Fault::Truncated, last, "", words);
        }
        if !self.trimming_told {
            let trimmed = self.first - 1;
            let words = format!(
                "places 1 to {trimmed} are gone, without the signed entry that retention writes"
            );
            self.findings.add(Fault::Removed, trimmed, "", words);
        }
        let mut conn = self.trail.store.read().await?;
        let head = store::audit::chain::head(&mut conn).await?;
        drop(conn);
        if let Some(head) = head
            && head.position < last
        {
            let words = format!(
                "audit_head says that the trail ends at place {}, and it goes on to {last}",
                head.position
            );
            self.findings.add(Fault::Changed, last, "", words);
        }
        self.unchained().await
    }

    /// Entries that stay without a place. What is counted is of the time of its last event and written
    /// later, so old entries may be new: they get the chance of one more round.
    async fn unchained(&mut self) -> Result<(), Error> {
        let waiting = self.waiting().await?;
        if waiting.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.trail.chain().await {
            crate::error::log(&error);
        }
        let still: HashSet<_> = self.waiting().await?.into_iter().collect();
        for (id, since) in waiting.into_iter().filter(|one| still.contains(one)) {
            let words = format!("the entry of {since} has no place in the chain yet");
            self.findings.add(Fault::Unchained, 0, &id, words);
        }
        Ok(())
    }

    async fn waiting(&self) -> Result<Vec<(String, Timestamp)>, Error> {
        let long_ago = self.trail.clock.now().minus(PATIENCE);
        let most = i64::try_from(FINDINGS_MAX).unwrap_or(i64::MAX);
        let mut conn = self.trail.store.read().await?;
        Ok(store::audit::chain::any_tenant_unchained_since(&mut conn, long_ago, most).await?)
    }

    fn known_to(&self) -> i64 {
        self.known_of.map_or(0, |(known, _)| known)
    }
}
