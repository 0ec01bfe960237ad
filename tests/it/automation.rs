//! Jobs of browser automation: what is asked for is done once, by one worker at a time, or given up
//! with a reason; nothing is lost on the way.

mod accounts;
mod attempts;
mod authorized;
mod batch_links;
mod batches;
mod bounds;
mod chaos;
mod claims;
mod credentials;
mod dead_letters;
mod fairness;
mod leases;
mod lifecycle;
mod model;
mod plans;
mod profiles;
mod retention;
mod schedule;
mod unique;
mod watch;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::Code;

use crate::fixture::provider::Account;
use crate::fixture::scene::automation::farm::*;
use crate::fixture::*;
use crate::on_both_engines;
use pb::JobEventType as Told;
use pb::JobState as State;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

const REFUSED: Code = Code::FailedPrecondition;

/// The ids of claimed jobs, in the order in which they were handed out.
fn ids(claimed: &[pb::ClaimedJob]) -> Vec<String> {
    claimed.iter().map(|it| job_of(it).id.clone()).collect()
}

/// The kinds of claimed jobs.
fn kinds(claimed: &[pb::ClaimedJob]) -> Vec<&str> {
    claimed.iter().map(|it| job_of(it).kind.as_str()).collect()
}
