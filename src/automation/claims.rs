//! Handing jobs to workers: each under a lease and the next fencing token of its job.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::Pin;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::futures::Notified;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::waiting::Seat;
use super::{Automation, permit};
use crate::access::{Caller, Permission};
use crate::error::Error;
use crate::model::{ExecutionMode, Job, JobState, Profile};
use crate::store::automation::claims::{self, Candidate, ClaimQuery};
use crate::store::automation::{jobs, profiles};
use crate::store::{Conn, Tx, transact};

/// How often a claim looks on past jobs that it may not have, because their profile is in use or their
/// provider has all it may. It looks twice as far each time: for a hundred jobs at 12,800 in the end, and at
/// 25,500 in all, which it locks.
const ROUNDS: usize = 8;

/// How long a claim may hold up the others in its line.
const TURN: Duration = Duration::from_secs(10);

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The worker's name for itself: 1 to 200 characters.
    pub worker: String,
    /// How many jobs at most: 1 to 100.
    pub max: usize,
    /// Only these kinds, at most 100; any when empty.
    pub kinds: Vec<String>,
    /// Only jobs that may run there; [`ExecutionMode::Any`] for all.
    pub mode: ExecutionMode,
    /// How long to wait for a job: up to 60 s.
    pub wait: Duration,
    /// How long the leases last, 3 s to 1 h; the configured time when not said.
    pub lease: Option<Duration>,
    /// Cancelled when nobody waits for the answer any more: a job claimed then would lie idle for a
    /// lease.
    pub gone: CancellationToken,
    /// How large the answer may be, in bytes. The first job is handed out however large it is.
    pub room: usize,
    /// How much of that a job takes.
    pub weigh: fn(&Claimed) -> usize,
}

impl Claim {
    /// What it asks for, as text: claims for which that is the same may have each other's jobs.
    fn asked(&self) -> String {
        let mut kinds = self.kinds.clone();
        kinds.sort_unstable();
        format!("{} {}", self.mode.as_str(), kinds.join("\n"))
    }
}

/// A job, handed to a worker.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The job, with its token and until when the worker has it.
    pub job: Job,
    /// The link of its authorisation. Secret.
    pub connect_url: Option<SecretString>,
    /// Its browser profile.
    pub profile: Option<Profile>,
    /// How long the lease lasts.
    pub lease: Duration,
}

/// What a claim found of its candidates.
#[derive(Default)]
struct Choice {
    ids: Vec<String>,
    /// Providers of which it may have no more.
    full: Vec<String>,
    /// Profiles that are in use.
    busy: BTreeSet<String>,
}

/// What a claim took.
#[derive(Debug, Default)]
pub(super) struct Taken {
    claimed: Vec<Claimed>,
    /// There may be more for others: it has as many as it asked for, or as its answer has room for.
    more: bool,
}

impl Automation {
    /// Hands jobs to a worker; none when the time is over, the server stops or the caller has gone.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn claim(&self, caller: &Caller, claim: Claim) -> Result<Vec<Claimed>, Error> {
        permit(caller, Permission::WorkJobs)?;
        let tenant = &caller.tenant;
        let began = Instant::now();
        let seat = self.waiting.join(tenant, claim.asked());
        let taken = if claim.wait.is_zero() {
            self.take(&seat, tenant, &claim).await?
        } else {
            self.wait(&seat, tenant, &claim, began + claim.wait).await?
        };
        self.parts.metrics.claim_waited(began.elapsed());
        if claim.gone.is_cancelled() {
            for Claimed { job, .. } in taken.claimed {
                let handed_back = self.snooze_job(caller, &job.id, job.lease_token, Duration::ZERO);
                if let Err(error) = handed_back.await {
                    // Its lease hands it back.
                    crate::error::log(&error);
                }
            }
            return Ok(Vec::new());
        }
        if taken.more {
            self.waiting.wake(tenant);
        }
        Ok(taken.claimed)
    }

    async fn wait(
        &self,
        seat: &Seat<'_>,
        tenant: &str,
        claim: &Claim,
        until: Instant,
    ) -> Result<Taken, Error> {
        loop {
            let mut woken = std::pin::pin!(seat.woken().notified());
            woken.as_mut().enable();
            seat.look();
            let taken = self.take(seat, tenant, claim).await?;
            if !taken.claimed.is_empty() || !self.rest(seat, woken, claim, until).await {
                return Ok(taken);
            }
        }
    }

    /// Rests until it is time to look again; `false` when there is nothing to wait for any more.
    async fn rest(
        &self,
        seat: &Seat<'_>,
        mut woken: Pin<&mut Notified<'_>>,
        claim: &Claim,
        until: Instant,
    ) -> bool {
        loop {
            let rest = seat.rest();
            if rest.is_zero() {
                return true;
            }
            tokio::select! {
                () = self.parts.stopping.cancelled() => return false,
                () = claim.gone.cancelled() => return false,
                () = woken.as_mut() => return true,
                () = tokio::time::sleep_until(until.min(Instant::now() + rest)) => {}
            }
            if Instant::now() >= until {
                return false;
            }
        }
    }

    /// Takes what there is now.
    async fn take(&self, seat: &Seat<'_>, tenant: &str, claim: &Claim) -> Result<Taken, Error> {
        if let Some(taken) = self.take_in_line(seat.line(), tenant, claim).await? {
            return Ok(taken);
        }
        let served = self.serve(tenant, &[claim], true).await?;
        Ok(served.into_iter().next().unwrap_or_default())
    }

    /// Takes what there is now, together with others who ask for the same meanwhile. `None` when those it
    /// was to be served with could not be: then each tries for itself.
    async fn take_in_line(
        &self,
        line: &Line,
        tenant: &str,
        claim: &Claim,
    ) -> Result<Option<Taken>, Error> {
        let (number, mut answered) = line.enter(claim);
        loop {
            let turn = tokio::select! {
                biased;
                taken = &mut answered => return Ok(taken.ok()),
                turn = line.turn() => turn,
            };
            let group = line.next(number);
            if group.is_empty() {
                // Another serves this one. To serve those behind it first would use up its leases.
                drop(turn);
                return Ok(answered.await.ok());
            }
            let asking = Vec::from_iter(group.iter().map(|ask| &ask.claim));
            let look = !line.is_plenty();
            let served = tokio::time::timeout(TURN, self.serve(tenant, &asking, look)).await;
            match served.unwrap_or_else(|_| Err(slow())) {
                Ok(all) => {
                    line.set_plenty(all.iter().all(|taken| taken.more));
                    for (ask, taken) in group.into_iter().zip(all) {
                        // One who has gone meanwhile leaves its jobs to their leases.
                        let _ = ask.answer.send(taken);
                    }
                }
                Err(error) => {
                    // Each may fail by itself and at once, instead of one after the other.
                    drop(group);
                    line.dissolve();
                    match answered.try_recv() {
                        Ok(taken) => return Ok(Some(taken)),
                        Err(TryRecvError::Closed) => return Err(error),
                        Err(TryRecvError::Empty) => {}
                    }
                }
            }
        }
    }

    /// Serves claims that ask for the same: what each takes, in their order. Looks before whether there is
    /// anything, if that is not sure.
    async fn serve(
        &self,
        tenant: &str,
        asking: &[&Claim],
        look: bool,
    ) -> Result<Vec<Taken>, Error> {
        let Some(first) = asking.first() else {
            return Ok(Vec::new());
        };
        if look && !self.finds(tenant, first).await? {
            return Ok(asking.iter().map(|_| Taken::default()).collect());
        }
        let served = transact!(self.parts.store, |tx| {
            let shares = self.take_shares(&mut tx, tenant, first, asking).await?;
            let mut served = Vec::with_capacity(shares.len());
            for (claim, jobs) in asking.iter().zip(shares) {
                served.push(self.hand_out(&mut tx, tenant, claim, jobs).await?);
            }
            let ids = Vec::from_iter(served.iter().flat_map(|taken| ids_of(&taken.claimed)));
            if !ids.is_empty() {
                jobs::append_events(&mut tx, tenant, &ids, self.parts.clock.now()).await?;
                self.count(&mut tx, JobState::Running, ids.len());
            }
            Ok(served)
        })?;
        if served.iter().any(|taken| !taken.claimed.is_empty()) {
            self.poke();
        }
        Ok(served)
    }

    /// Whether there is a job to take. Those who look in vain don't get in the way of those who write.
    async fn finds(&self, tenant: &str, claim: &Claim) -> Result<bool, Error> {
        let mut conn = self.parts.store.read().await?;
        let full = self.full(&mut conn, tenant).await?;
        let query = ClaimQuery {
            tenant,
            kinds: &claim.kinds,
            mode: claim.mode,
            full: &full,
            busy: &BTreeSet::new(),
            now: self.parts.clock.now(),
        };
        Ok(claims::is_any(&mut conn, &query).await?)
    }

    /// The jobs that each of some claims takes, which ask for the same as the first of them, who has the
    /// most urgent.
    async fn take_shares(
        &self,
        tx: &mut Tx,
        tenant: &str,
        first: &Claim,
        asking: &[&Claim],
    ) -> Result<Vec<Vec<Job>>, Error> {
        let mut shares: Vec<Vec<Job>> = asking.iter().map(|_| Vec::new()).collect();
        let mut wanted: usize = asking.iter().map(|claim| claim.max).sum();
        let mut full = self.full(tx, tenant).await?;
        let mut busy = BTreeSet::new();
        let mut locked = BTreeSet::new();
        for round in 0..ROUNDS {
            if wanted == 0 {
                break;
            }
            let query = ClaimQuery {
                tenant,
                kinds: &first.kinds,
                mode: first.mode,
                full: &full,
                busy: &busy,
                now: self.parts.clock.now(),
            };
            let limit = wanted << round;
            let most = i64::try_from(limit).unwrap_or(i64::MAX);
            let candidates = claims::candidates(tx, &query, most).await?;
            let exhausted = candidates.len() < limit;
            let mut choice = self.choose(tx, tenant, candidates, &mut locked).await?;
            choice.ids.truncate(wanted);
            let idle = choice.ids.is_empty() && choice.full.is_empty() && choice.busy.is_empty();
            wanted -= choice.ids.len();
            // One statement for all whose leases last as long, which is mostly all.
            let mut workers: BTreeMap<Duration, BTreeMap<String, String>> = BTreeMap::new();
            let mut places = Vec::with_capacity(choice.ids.len());
            let mut ids = choice.ids.into_iter();
            for (place, (claim, share)) in asking.iter().zip(&shares).enumerate() {
                for id in ids.by_ref().take(claim.max.saturating_sub(share.len())) {
                    let of_lease = workers.entry(self.lease(claim)).or_default();
                    of_lease.insert(id.clone(), claim.worker.clone());
                    places.push((place, id));
                }
            }
            let mut taken = HashMap::new();
            for (lease, workers) in &workers {
                taken.extend(claims::take(tx, tenant, workers, *lease).await?);
            }
            for (place, id) in places {
                if let (Some(share), Some(job)) = (shares.get_mut(place), taken.remove(&id)) {
                    share.push(job);
                }
            }
            if exhausted || idle {
                break;
            }
            full.append(&mut choice.full);
            busy.append(&mut choice.busy);
        }
        Ok(shares)
    }

    /// What the worker is told of the jobs that were taken; those that its answer has no room for wait
    /// on, as if they had not been.
    async fn hand_out(
        &self,
        tx: &mut Tx,
        tenant: &str,
        claim: &Claim,
        taken: Vec<Job>,
    ) -> Result<Taken, Error> {
        let lease = self.lease(claim);
        let known = profiles_of(tx, tenant, &taken).await?;
        // Without its link one fails; with an error nobody could have the others.
        let or_none = |error: &Error| crate::error::log(error);
        let claimed = taken.into_iter().map(|job| Claimed {
            connect_url: self.open_link(&job).inspect_err(or_none).unwrap_or(None),
            profile: known
                .iter()
                .find(|profile| Some(&profile.id) == job.profile_id.as_ref())
                .cloned(),
            job,
            lease,
        });
        let mut claimed: Vec<Claimed> = claimed.collect();
        let mut weight = 0_usize;
        let fits = claimed.iter().take_while(|it| {
            weight = weight.saturating_add((claim.weigh)(it));
            weight <= claim.room
        });
        let fits = fits.count().max(1).min(claimed.len());
        let left = ids_of(&claimed.split_off(fits));
        if !left.is_empty() {
            claims::put_back(tx, tenant, &left).await?;
        }
        Ok(Taken {
            more: !left.is_empty() || claimed.len() >= claim.max,
            claimed,
        })
    }

    fn lease(&self, claim: &Claim) -> Duration {
        claim.lease.unwrap_or(self.parts.config.lease)
    }

    /// The providers that have all the running jobs they may have.
    async fn full(&self, conn: &mut Conn, tenant: &str) -> Result<Vec<String>, Error> {
        let config = &self.parts.config;
        if config.max_running_per_provider == 0 && config.provider_limits.is_empty() {
            return Ok(Vec::new());
        }
        let running = claims::running_by_provider(conn, tenant).await?;
        let full = running.into_iter().filter(|(provider, count)| {
            let most = config.limit(provider).map(i64::from);
            most.is_some_and(|most| *count >= most)
        });
        Ok(full.map(|(provider, _)| provider).collect())
    }

    /// Which candidates it may have, in their order.
    ///
    /// A limited provider is locked before its running jobs are counted, so that two claims don't both
    /// take the last place. Locks are taken in the order of their names, in later rounds, too: a
    /// provider that would be out of order is left to the next claim.
    async fn choose(
        &self,
        tx: &mut Tx,
        tenant: &str,
        candidates: Vec<Candidate>,
        locked: &mut BTreeSet<String>,
    ) -> Result<Choice, Error> {
        let mut choice = Choice::default();
        let config = &self.parts.config;
        let profiles: HashSet<String> = candidates
            .iter()
            .filter_map(|it| it.profile_id.clone())
            .collect();
        let mut free = if profiles.is_empty() {
            HashSet::new()
        } else {
            claims::free_profiles(tx, tenant, &Vec::from_iter(profiles)).await?
        };
        let mut room: BTreeMap<String, i64> = BTreeMap::new();
        for candidate in &candidates {
            if let Some(most) = config.limit(&candidate.provider) {
                room.insert(candidate.provider.clone(), i64::from(most));
            }
        }
        for (provider, room) in &mut room {
            let behind = locked.last().is_none_or(|last| last < provider);
            if behind {
                claims::lock_provider(tx, tenant, provider).await?;
                locked.insert(provider.clone());
            } else if !locked.contains(provider) {
                *room = 0;
            }
        }
        if !room.is_empty() {
            for (provider, running) in claims::running_by_provider(tx, tenant).await? {
                if let Some(room) = room.get_mut(&provider) {
                    *room -= running;
                }
            }
        }
        for candidate in candidates {
            let places = room.get_mut(&candidate.provider);
            if places.as_ref().is_some_and(|places| **places <= 0) {
                continue;
            }
            if let Some(profile_id) = candidate.profile_id
                && !free.remove(&profile_id)
            {
                choice.busy.insert(profile_id);
                continue;
            }
            if let Some(places) = places {
                *places -= 1;
            }
            choice.ids.push(candidate.id);
        }
        let full = room.into_iter().filter(|(_, places)| *places <= 0);
        choice.full = full.map(|(provider, _)| provider).collect();
        Ok(choice)
    }
}

fn slow() -> Error {
    Error::Unavailable("the database takes too long".to_owned(), None)
}

fn ids_of(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|it| it.job.id.clone()).collect()
}

/// The browser profiles of jobs.
async fn profiles_of(conn: &mut Conn, tenant: &str, jobs: &[Job]) -> Result<Vec<Profile>, Error> {
    let ids = jobs.iter().filter_map(|job| job.profile_id.clone());
    let ids: Vec<String> = ids.collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(profiles::of_names(conn, tenant, &ids).await?)
}
