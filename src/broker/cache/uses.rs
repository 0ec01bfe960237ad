//! What is counted of a connection's held token, in memory: its uses, and who was handed it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::access::Principal;
use crate::access::audit::reads::{Counted, Minute, Read, Subject};
use crate::model::{Connection, Timestamp, Usage};

/// Counts of one connection before those of the running minute are written early: callers with many
/// addresses must not make it slow to find one.
const READS_OF_ONE_MAX: usize = 1_024;

/// Uses of a connection that are not stored yet.
#[derive(Debug)]
pub(in crate::broker) struct Uses {
    pub(super) subject: Arc<Subject>,
    counted: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    uses: i64,
    last: Timestamp,
    last_caller: Option<Arc<Principal>>,
    /// For the audit trail, by caller, address and minute.
    reads: Vec<Read>,
}

impl Counts {
    fn count_use(&mut self, caller: &Arc<Principal>, now: Timestamp) {
        self.uses += 1;
        self.last = now;
        // The same caller as before costs the other cores nothing.
        let same = |last: &Arc<Principal>| Arc::ptr_eq(last, caller);
        if !self.last_caller.as_ref().is_some_and(same) {
            self.last_caller = Some(Arc::clone(caller));
        }
    }

    fn count_read(&mut self, caller: &Arc<Principal>, ip: Option<IpAddr>, now: Timestamp) {
        let minute = Minute::of(now);
        // The newest last: it is the one that is counted most. Ids are compared only for a caller's
        // first of a minute, so that many callers of one connection don't slow each other down.
        let reads = &mut self.reads;
        let found = reads
            .iter()
            .rposition(|read| read.takes(caller, ip, minute))
            .or_else(|| {
                let again = |read: &Read| read.takes_again(caller, ip, minute);
                reads.iter().rposition(again)
            });
        match found.and_then(|at| reads.get_mut(at)) {
            Some(read) => read.count(caller, now),
            None => reads.push(Read::first(caller, ip, now)),
        }
    }
}

impl Uses {
    pub(super) fn of(connection: &Connection) -> Self {
        Self {
            subject: Arc::new(Subject {
                tenant: connection.tenant.clone(),
                connection_id: connection.id.clone(),
                app_id: connection.app_id.clone(),
                provider: connection.provider.clone(),
                owner: connection.owner.clone(),
            }),
            counted: Mutex::default(),
        }
    }

    pub(super) fn count_use(&self, caller: &Arc<Principal>, now: Timestamp) {
        self.counts().count_use(caller, now);
    }

    pub(super) fn count_read(&self, caller: &Arc<Principal>, ip: Option<IpAddr>, now: Timestamp) {
        self.counts().count_read(caller, ip, now);
    }

    pub(super) fn count_both(&self, caller: &Arc<Principal>, ip: Option<IpAddr>, now: Timestamp) {
        let mut counts = self.counts();
        counts.count_use(caller, now);
        counts.count_read(caller, ip, now);
    }

    /// Takes the uses counted since the last time, for storing.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut counts = self.counts();
        let use_count = std::mem::take(&mut counts.uses);
        let last_caller = counts.last_caller.as_ref();
        let usage = Usage {
            last_used_at: counts.last,
            use_count,
            last_caller: last_caller.map_or_else(String::new, |caller| caller.id.clone()),
        };
        (use_count > 0).then(|| Taken {
            uses: Arc::clone(self),
            usage,
        })
    }

    /// Counts uses again.
    pub(super) fn give_back(&self, usage: &Usage) {
        let mut counts = self.counts();
        counts.uses += usage.use_count;
        counts.last = counts.last.max(usage.last_used_at);
    }

    /// How many counts wait for their minute to be over.
    pub(super) fn open(&self) -> usize {
        self.counts().reads.len()
    }

    /// Takes the counts of minutes that are over, or all.
    pub(super) fn take_reads(&self, now: Minute, all: bool) -> Vec<Counted> {
        let mut counts = self.counts();
        let all = all || counts.reads.len() > READS_OF_ONE_MAX;
        let over = counts.reads.extract_if(.., |read| all || read.is_over(now));
        over.map(|read| Counted {
            subject: Arc::clone(&self.subject),
            read,
        })
        .collect()
    }

    /// Whether everything was taken.
    pub(super) fn is_empty(&self) -> bool {
        let counts = self.counts();
        counts.uses == 0 && counts.reads.is_empty()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uses taken to be stored.
pub struct Taken {
    pub(super) uses: Arc<Uses>,
    /// How they change what is stored.
    pub usage: Usage,
}

impl Taken {
    /// The tenant.
    pub fn tenant(&self) -> &str {
        &self.uses.subject.tenant
    }

    /// The connection.
    pub fn connection_id(&self) -> &str {
        &self.uses.subject.connection_id
    }
}
