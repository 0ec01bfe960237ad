//! The grants that the worker has in hand: they are due in the database until they are done.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::model::Grant;

/// Which grants are in hand, and of which apps. Clones share the list.
#[derive(Clone)]
pub(super) struct InHand {
    held: Arc<Mutex<Held>>,
    /// How many of an app's are looked after at once.
    share: usize,
}

#[derive(Default)]
struct Held {
    grants: HashSet<String>,
    apps: HashMap<String, OfApp>,
}

struct OfApp {
    grants: usize,
    turns: Arc<Semaphore>,
}

/// A grant in hand. It is off the list when this is dropped.
pub(super) struct Place {
    list: InHand,
    grant_id: String,
    app_id: String,
    /// Whose turn it is among the app's.
    pub(super) turns: Arc<Semaphore>,
}

impl InHand {
    /// Where `slots` refreshes run at once. One app gets three quarters of them: while its provider does
    /// not answer, the others have the rest.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            held: Arc::default(),
            share: (slots - slots / 4).max(1),
        }
    }

    /// The ids of the grants.
    pub(super) fn grants(&self) -> HashSet<String> {
        self.held().grants.clone()
    }

    /// The apps that have this many in hand, or more.
    pub(super) fn apps_with(&self, many: usize) -> Vec<String> {
        let held = self.held();
        let apps = held.apps.iter();
        apps.filter(|(_, app)| app.grants >= many)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Takes a grant that is not in hand, unless `most` of its app's are.
    pub(super) fn take(&self, grant: &Grant, most: usize) -> Option<Place> {
        let mut held = self.held();
        let app = held
            .apps
            .entry(grant.app_id.clone())
            .or_insert_with(|| OfApp {
                grants: 0,
                turns: Arc::new(Semaphore::new(self.share)),
            });
        if app.grants >= most {
            return None;
        }
        app.grants += 1;
        let turns = Arc::clone(&app.turns);
        held.grants.insert(grant.id.clone());
        Some(Place {
            list: self.clone(),
            grant_id: grant.id.clone(),
            app_id: grant.app_id.clone(),
            turns,
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.list.held();
        held.grants.remove(&self.grant_id);
        if let Some(app) = held.apps.get_mut(&self.app_id) {
            app.grants -= 1;
            if app.grants == 0 {
                held.apps.remove(&self.app_id);
            }
        }
    }
}
