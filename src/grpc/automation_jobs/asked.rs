//! Jobs that are asked for, as they come over the wire.

use std::time::Duration;

use prost::Message as _;
use serde_json::{Map, Value};

use super::convert::{from_json, from_mode};
use super::wire::{KIND_MAX, NAME_MAX, from_states, given};
use crate::access::requests::fingerprint;
use crate::automation::NewJob;
use crate::error::Error;
use crate::grpc::convert::from_timestamp;
use crate::grpc::fields::{CLIENT_ID_MAX, Fields};
use crate::model::{IdKind, Timestamp, UniqueStates};
use crate::pb;

/// Largest payload as JSON, in bytes.
const PAYLOAD_MAX: usize = 64 << 10;
const PRIORITY_MAX: i32 = 1_000;
const ATTEMPTS_MAX: u32 = 100;
const AHEAD_DAYS: u64 = 90;
/// How far ahead the times of a job with an authorisation may be: whoever has its link may connect until
/// then.
pub(super) const AHEAD_MAX: Duration = Duration::from_secs(AHEAD_DAYS * 24 * 60 * 60);

/// A job that is asked for.
pub(super) struct Asked {
    /// Where it is in the request.
    pub(super) field: String,
    /// The job.
    pub(super) job: NewJob,
    /// What it is to have authorised.
    pub(super) authorization: Option<pb::JobAuthorization>,
    /// Names what was asked for: the same job again has the same.
    pub(super) fingerprint: [u8; 32],
}

impl Asked {
    /// Judges how far ahead the times of a job with an authorisation are.
    pub(super) fn judge_ahead(&self, now: Timestamp) -> Result<(), Error> {
        let latest = now.plus(AHEAD_MAX);
        let mut fields = Fields::new();
        for (name, time) in [
            ("run_time", self.job.run_at),
            ("deadline", self.job.deadline_at),
        ] {
            fields.check(
                time.is_none_or(|time| time <= latest),
                format!("{}.{name}", self.field),
                format!("must be within {AHEAD_DAYS} d, since the job has an authorization"),
            );
        }
        fields.finish()
    }
}

/// Judges a job that is asked for.
pub(super) fn new_job(fields: &mut Fields, field: String, mut new: pb::NewJob) -> Asked {
    let at = |name: &str| format!("{field}.{name}");
    let payload = new.payload.take();
    let payload = from_json(fields, &at("payload"), payload, PAYLOAD_MAX);
    let payload = payload.unwrap_or_else(|| Value::Object(Map::new()));
    // The payload apart: it is a map, whose encoding has no order.
    let mut message = new.encode_length_delimited_to_vec();
    message.extend_from_slice(payload.to_string().as_bytes());
    let fingerprint = fingerprint(&message);

    fields.required(&at("kind"), &new.kind, KIND_MAX);
    if !new.account_id.is_empty() {
        fields.id(&at("account_id"), &new.account_id, IdKind::Account);
    }
    fields.text(&at("profile"), &new.profile, NAME_MAX);
    let execution_mode = from_mode(fields, &at("execution_mode"), new.execution_mode);
    fields.check(
        (-PRIORITY_MAX..=PRIORITY_MAX).contains(&new.priority),
        at("priority"),
        format!("must be from -{PRIORITY_MAX} to {PRIORITY_MAX}"),
    );
    let run_at = time(fields, &at("run_time"), new.run_time.as_ref());
    let deadline_at = time(fields, &at("deadline"), new.deadline.as_ref());
    if let (Some(run_at), Some(deadline_at)) = (run_at, deadline_at) {
        fields.check(
            deadline_at > run_at,
            at("deadline"),
            "must be after `run_time`",
        );
    }
    let max_attempts = u32::try_from(new.max_attempts).ok();
    fields.check(
        max_attempts.is_some_and(|attempts| attempts <= ATTEMPTS_MAX),
        at("max_attempts"),
        format!("must be from 1 to {ATTEMPTS_MAX}, or not set"),
    );
    fields.text(&at("unique_key"), &new.unique_key, NAME_MAX);
    let unique_states = from_states(fields, &at("unique_states"), &new.unique_states);
    fields.check(
        unique_states.iter().all(|state| state.is_final()),
        at("unique_states"),
        "may name finished states only: the others hold the key anyway",
    );
    if let Some(authorization) = &new.authorization {
        judge(fields, &at("authorization"), authorization);
    }
    Asked {
        job: NewJob {
            kind: new.kind,
            payload,
            account_id: given(new.account_id),
            profile: given(new.profile),
            execution_mode,
            priority: new.priority,
            run_at,
            deadline_at,
            max_attempts: max_attempts.filter(|attempts| *attempts > 0),
            unique_key: given(new.unique_key),
            unique_states: UniqueStates::of(unique_states),
            authorization: new.authorization.is_some(),
        },
        authorization: new.authorization,
        fingerprint,
        field,
    }
}

fn judge(fields: &mut Fields, field: &str, authorization: &pb::JobAuthorization) {
    let at = |name: &str| format!("{field}.{name}");
    fields.text(&at("app"), &authorization.app, CLIENT_ID_MAX);
    fields.text(
        &at("owner"),
        &authorization.owner,
        crate::grpc::fields::NAME_MAX,
    );
    fields.scopes(&at("scopes"), &authorization.scopes);
    let connection_id = &authorization.connection_id;
    if !connection_id.is_empty() {
        fields.id(&at("connection_id"), connection_id, IdKind::Connection);
    }
    if !authorization.return_url.is_empty() {
        fields.browser_url(&at("return_url"), &authorization.return_url);
    }
}

fn time(
    fields: &mut Fields,
    field: &str,
    time: Option<&prost_types::Timestamp>,
) -> Option<Timestamp> {
    let read = time.map(from_timestamp)?;
    fields.check(read.is_some(), field, "is not a time from year 1 to 9999");
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::convert::timestamp;
    use crate::model::JobState;

    fn asked() -> pb::NewJob {
        let payload = serde_json::json!({ "site": "example", "tries": 3, "deep": { "a": [1] } });
        pb::NewJob {
            kind: "connect".to_owned(),
            payload: super::super::convert::json(&payload),
            ..pb::NewJob::default()
        }
    }

    fn faults(job: pb::NewJob) -> Vec<String> {
        let mut fields = Fields::new();
        new_job(&mut fields, "job".to_owned(), job);
        match fields.finish() {
            Err(Error::InvalidArgument(faults)) => {
                faults.into_iter().map(|fault| fault.field).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_same_job_has_the_same_fingerprint_whatever_order_its_payload_comes_in() {
        let of = |job| new_job(&mut Fields::new(), "job".to_owned(), job).fingerprint;
        // Each has maps of its own, which go through their entries in an order of their own.
        assert_eq!(of(asked()), of(asked()));
        let other = pb::NewJob {
            priority: 1,
            ..asked()
        };
        assert_ne!(of(asked()), of(other));
        let bare = pb::NewJob {
            payload: None,
            ..asked()
        };
        assert_ne!(of(asked()), of(bare));
    }

    #[test]
    fn every_fault_is_told() {
        assert!(faults(asked()).is_empty());
        let wrong = pb::NewJob {
            kind: String::new(),
            account_id: "acct".to_owned(),
            priority: -1_001,
            max_attempts: 101,
            unique_states: vec![pb::JobState::Pending.into()],
            authorization: Some(pb::JobAuthorization {
                return_url: "ftp://x".to_owned(),
                ..pb::JobAuthorization::default()
            }),
            ..asked()
        };
        let expected = [
            "job.kind",
            "job.account_id",
            "job.priority",
            "job.max_attempts",
            "job.unique_states",
            "job.authorization.return_url",
        ];
        assert_eq!(faults(wrong), expected);
    }

    #[test]
    fn times_are_told_that_are_too_far_ahead_for_a_link() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let judged = |at: Timestamp| {
            let late = pb::NewJob {
                run_time: Some(timestamp(at)),
                deadline: Some(timestamp(at)),
                ..asked()
            };
            new_job(&mut Fields::new(), "job".to_owned(), late).judge_ahead(now)
        };
        let latest = now.plus(AHEAD_MAX);
        assert!(judged(latest).is_ok());
        let late = judged(latest.plus(Duration::from_micros(1)));
        let Err(Error::InvalidArgument(faults)) = late else {
            panic!("must be refused");
        };
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["job.run_time", "job.deadline"]);
    }

    #[test]
    fn only_finished_states_are_added_to_a_key() {
        let keyed = pb::NewJob {
            unique_states: vec![pb::JobState::Completed.into()],
            ..asked()
        };
        let mut fields = Fields::new();
        let asked = new_job(&mut fields, "job".to_owned(), keyed);
        let states: Vec<_> = asked.job.unique_states.states().collect();
        assert_eq!(states, [JobState::Completed]);
    }
}
