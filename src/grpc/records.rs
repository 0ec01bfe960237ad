//! Refresh attempts and synchronisations on the wire.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::caller::principal;
use super::connections::checked;
use super::convert;
use super::fields::Fields;
use super::page::Page;
use super::token_broker::Context;
use crate::access::requests::Once;
use crate::broker::sync::NewSync;
use crate::model::{IdKind, RefreshAttempt, RefreshOutcome, SyncRecord, SyncStatus};
use crate::pb;

/// Longest action of a synchronisation, in characters.
const ACTION_MAX: usize = 128;
/// Longest error of a synchronisation, in characters.
const ERROR_MAX: usize = 2_000;
/// Longer synchronisations are mistakes of unit.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

pub(super) async fn list_attempts(
    context: &Context,
    request: Request<pb::ListRefreshAttemptsRequest>,
) -> Result<Response<pb::ListRefreshAttemptsResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let id = request.connection_id;
    let mut fields = Fields::new();
    fields.id("connection_id", &id, IdKind::Connection);
    let bound_to = ("ListRefreshAttempts", &id);
    let page = Page::of(request.page_size, &request.page_token, bound_to);
    let page = checked(fields, page)?;
    let connections = Arc::clone(&context.connections);
    let (before, limit) = (page.after.clone(), page.limit());
    let mut attempts = context
        .tasks
        .run(async move {
            connections
                .list_attempts(&principal, &id, &before, limit)
                .await
        })
        .await?;
    let next_page_token = page.cut(&mut attempts, |attempt| attempt.id.clone());
    Ok(Response::new(pb::ListRefreshAttemptsResponse {
        attempts: attempts.into_iter().map(attempt).collect(),
        next_page_token,
    }))
}

pub(super) async fn record_sync(
    context: &Context,
    request: Request<pb::RecordSyncRequest>,
) -> Result<Response<pb::RecordSyncResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    // No field of it is a map: the bytes are the same whenever the request is.
    let message = request.encode_to_vec();
    let mut fields = Fields::new();
    fields.request_id(&request.request_id);
    let new = new_sync(&mut fields, request.record.unwrap_or_default());
    fields.finish()?;
    let syncs = Arc::clone(&context.syncs);
    let recorded = context
        .tasks
        .run(async move {
            let tenant = &principal.tenant;
            let once = Once::of(tenant, "RecordSync", &request.request_id, &message);
            syncs.record(&principal, &new, once.as_ref()).await
        })
        .await?;
    Ok(Response::new(pb::RecordSyncResponse {
        record: Some(sync(recorded)),
    }))
}

pub(super) async fn list_syncs(
    context: &Context,
    request: Request<pb::ListSyncRecordsRequest>,
) -> Result<Response<pb::ListSyncRecordsResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let id = request.connection_id;
    let mut fields = Fields::new();
    fields.id("connection_id", &id, IdKind::Connection);
    let bound_to = ("ListSyncRecords", &id);
    let page = Page::of(request.page_size, &request.page_token, bound_to);
    let page = checked(fields, page)?;
    let syncs = Arc::clone(&context.syncs);
    let (before, limit) = (page.after.clone(), page.limit());
    let mut records = context
        .tasks
        .run(async move { syncs.list(&principal, &id, &before, limit).await })
        .await?;
    let next_page_token = page.cut(&mut records, |record| record.id.clone());
    Ok(Response::new(pb::ListSyncRecordsResponse {
        records: records.into_iter().map(sync).collect(),
        next_page_token,
    }))
}

fn new_sync(fields: &mut Fields, record: pb::SyncRecord) -> NewSync {
    fields.id(
        "record.connection_id",
        &record.connection_id,
        IdKind::Connection,
    );
    fields.required("record.action", &record.action, ACTION_MAX);
    let status = from_status(record.status);
    fields.check(
        status.is_some(),
        "record.status",
        "is required: one of SYNC_STATUS_SUCCEEDED, SYNC_STATUS_PARTIAL, SYNC_STATUS_FAILED",
    );
    fields.check(
        record.data_size_bytes >= 0,
        "record.data_size_bytes",
        "must not be negative",
    );
    let duration = fields.duration("record.duration", record.duration, DURATION_MAX);
    fields.check(
        record.error.chars().count() <= ERROR_MAX,
        "record.error",
        format!("at most {ERROR_MAX} characters are allowed"),
    );
    // An error may have several lines; what steers a terminal has no place in it.
    fields.check(
        !record
            .error
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')),
        "record.error",
        "control characters other than line ends and tabs are not allowed",
    );
    NewSync {
        connection_id: record.connection_id,
        action: record.action,
        // Judged above: without one the request is refused.
        status: status.unwrap_or(SyncStatus::Failed),
        data_size: record.data_size_bytes,
        duration: duration.unwrap_or_default(),
        error: record.error,
    }
}

fn from_status(number: i32) -> Option<SyncStatus> {
    match pb::SyncStatus::try_from(number).ok()? {
        pb::SyncStatus::Unspecified => None,
        pb::SyncStatus::Succeeded => Some(SyncStatus::Succeeded),
        pb::SyncStatus::Partial => Some(SyncStatus::Partial),
        pb::SyncStatus::Failed => Some(SyncStatus::Failed),
    }
}

fn sync(record: SyncRecord) -> pb::SyncRecord {
    let status = match record.status {
        SyncStatus::Succeeded => pb::SyncStatus::Succeeded,
        SyncStatus::Partial => pb::SyncStatus::Partial,
        SyncStatus::Failed => pb::SyncStatus::Failed,
    };
    pb::SyncRecord {
        id: record.id,
        connection_id: record.connection_id,
        action: record.action,
        status: status.into(),
        data_size_bytes: record.data_size,
        duration: Some(convert::duration(record.duration)),
        error: record.error,
        create_time: Some(convert::timestamp(record.created_at)),
    }
}

fn attempt(attempt: RefreshAttempt) -> pb::RefreshAttempt {
    let outcome = match attempt.outcome {
        RefreshOutcome::Succeeded => pb::RefreshOutcome::Succeeded,
        RefreshOutcome::Transient => pb::RefreshOutcome::Transient,
        RefreshOutcome::Ambiguous => pb::RefreshOutcome::Ambiguous,
        RefreshOutcome::GrantDead => pb::RefreshOutcome::GrantDead,
        RefreshOutcome::ClientMisconfigured => pb::RefreshOutcome::ClientMisconfigured,
        RefreshOutcome::Superseded => pb::RefreshOutcome::Superseded,
    };
    pb::RefreshAttempt {
        id: attempt.id,
        grant_id: attempt.grant_id,
        start_time: Some(convert::timestamp(attempt.started_at)),
        duration: Some(convert::duration(attempt.duration)),
        trigger: attempt.trigger.as_str().to_owned(),
        outcome: outcome.into(),
        error_code: attempt.error_code,
        error_message: attempt.error_message,
        refresh_token_fingerprint: attempt.fingerprint,
        new_refresh_token_fingerprint: attempt.new_fingerprint,
        generation: attempt.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_fault_of_a_record_is_told_at_once() {
        let mut fields = Fields::new();
        let record = pb::SyncRecord {
            connection_id: "app_1".to_owned(),
            status: pb::SyncStatus::Unspecified.into(),
            data_size_bytes: -1,
            duration: Some(prost_types::Duration {
                seconds: -1,
                nanos: 0,
            }),
            error: "\u{1b}[31m".to_owned(),
            ..pb::SyncRecord::default()
        };
        new_sync(&mut fields, record);
        match fields.finish() {
            Err(Error::InvalidArgument(faults)) => {
                let named: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
                assert_eq!(
                    named,
                    [
                        "record.connection_id",
                        "record.action",
                        "record.status",
                        "record.data_size_bytes",
                        "record.duration",
                        "record.error",
                    ]
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_may_have_several_lines() {
        let mut fields = Fields::new();
        let record = pb::SyncRecord {
            connection_id: IdKind::Connection.new_id(),
            action: "calendar.pull".to_owned(),
            status: pb::SyncStatus::Failed.into(),
            error: "Traceback:\n\tline 1\r\n".to_owned(),
            ..pb::SyncRecord::default()
        };
        let new = new_sync(&mut fields, record);
        assert!(fields.finish().is_ok());
        assert_eq!(new.status, SyncStatus::Failed);
        assert_eq!(new.duration, Duration::ZERO);
    }
}
