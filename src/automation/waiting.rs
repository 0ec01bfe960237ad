//! Claims that wait for a job. They hold no connection meanwhile.
//!
//! Claims that ask for the same wait together. A job that comes wakes one of each group; one that got
//! all it asked for wakes the next: so that a job does not have a thousand workers ask for it at once.
//! Now and then one of each group looks by itself, for what nobody was told of. Those of a group who look
//! at the same time do so together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::line::Line;

/// How long a group goes without a look.
const LOOK: Duration = Duration::from_secs(4);

/// By tenant and by what they ask for.
type Groups = HashMap<String, HashMap<String, Waiters>>;

/// Who waits.
pub(super) struct Waiting {
    groups: Mutex<Groups>,
    turns: usize,
}

/// A group, while somebody has a seat in it.
struct Waiters {
    group: Arc<Group>,
    seats: usize,
}

/// Those who ask for the same.
struct Group {
    woken: Notify,
    looked: Mutex<Instant>,
    line: Line,
}

/// A place in a group.
pub(super) struct Seat<'a> {
    waiting: &'a Waiting,
    tenant: String,
    asked: String,
    group: Arc<Group>,
}

impl Waiting {
    /// With lines that have so many turns at a time.
    pub(super) fn new(turns: usize) -> Self {
        Self {
            groups: Mutex::default(),
            turns,
        }
    }

    /// Joins those of the tenant who ask for the same.
    pub(super) fn join(&self, tenant: &str, asked: String) -> Seat<'_> {
        let mut groups = self.groups();
        let of_tenant = groups.entry(tenant.to_owned()).or_default();
        let waiters = of_tenant.entry(asked.clone()).or_insert_with(|| Waiters {
            group: Arc::new(Group {
                woken: Notify::new(),
                looked: Mutex::new(Instant::now()),
                line: Line::new(self.turns),
            }),
            seats: 0,
        });
        waiters.seats += 1;
        let group = Arc::clone(&waiters.group);
        drop(groups);
        Seat {
            waiting: self,
            tenant: tenant.to_owned(),
            asked,
            group,
        }
    }

    /// Wakes one of each group of a tenant: there may be a job.
    pub(super) fn wake(&self, tenant: &str) {
        let groups = self.groups();
        let of_tenant = groups.get(tenant).into_iter().flat_map(HashMap::values);
        for waiters in of_tenant {
            waiters.group.woken.notify_one();
        }
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat<'_> {
    /// What wakes somebody of the group. Enable it before looking: then nothing that comes meanwhile is
    /// missed.
    pub(super) fn woken(&self) -> &Notify {
        &self.group.woken
    }

    /// Where those of the group stand who look.
    pub(super) fn line(&self) -> &Line {
        &self.group.line
    }

    /// Says that this one looks now.
    pub(super) fn look(&self) {
        *self.looked() = Instant::now();
    }

    /// How long until somebody of the group should look. Somewhat more for some than for others, so that
    /// the first who does spares it the rest.
    pub(super) fn rest(&self) -> Duration {
        let since = self.looked().elapsed();
        LOOK.mul_f64(1.0 + 0.2 * fastrand::f64())
            .saturating_sub(since)
    }

    fn looked(&self) -> MutexGuard<'_, Instant> {
        let looked = &self.group.looked;
        looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut groups = self.waiting.groups();
        let Some(of_tenant) = groups.get_mut(&self.tenant) else {
            return;
        };
        let Some(waiters) = of_tenant.get_mut(&self.asked) else {
            return;
        };
        waiters.seats -= 1;
        if waiters.seats == 0 {
            of_tenant.remove(&self.asked);
        }
        if of_tenant.is_empty() {
            groups.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_wakes_one_of_each_group() {
        let waiting = Waiting::new(1);
        let seats = ["x", "x", "y"].map(|asked| waiting.join("t", asked.to_owned()));
        let mut woken: Vec<_> = seats
            .iter()
            .map(|seat| Box::pin(seat.woken().notified()))
            .collect();
        for one in &mut woken {
            assert!(!one.as_mut().enable());
        }
        waiting.wake("other");
        waiting.wake("t");
        let mut ready = Vec::new();
        for one in &mut woken {
            ready.push(one.as_mut().enable());
        }
        assert_eq!(ready, [true, false, true]);
        drop(woken);
        drop(seats);
        assert!(waiting.groups().is_empty());
    }
}
