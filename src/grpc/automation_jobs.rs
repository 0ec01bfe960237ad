//! The AutomationJobs service: every RPC, and where it is handled.

mod accounts;
mod asked;
mod batches;
mod convert;
mod dead_letters;
mod jobs;
mod links;
mod profiles;
mod watch;
mod wire;
mod work;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::caller::principal;
use super::streams::Streams;
use crate::access::{Caller, Permission};
use crate::automation::Automation;
use crate::broker::{Authorizations, Hub};
use crate::clock::Clock;
use crate::error::Error;
use crate::model::Job;
use crate::pb::{self, automation_jobs_server::AutomationJobs};
use crate::registry::Registry;
use crate::tasks::Tasks;

/// What the handlers work with.
#[derive(Clone)]
pub struct Context {
    /// Accounts, browser profiles, jobs and batches.
    pub automation: Arc<Automation>,
    /// What jobs bring about.
    pub authorizations: Arc<Authorizations>,
    /// Apps and providers, where a request names them.
    pub registry: Arc<Registry>,
    /// Events.
    pub hub: Arc<Hub>,
    /// Places for streams of events.
    pub streams: Streams,
    /// The time.
    pub clock: Clock,
    /// Where work runs that outlives its caller.
    pub tasks: Tasks,
    /// How long the link of a job's authorisation is good where the job has no deadline.
    pub authorization_ttl: Duration,
}

type Answer<T> = Result<Response<T>, Status>;

/// What WatchJobs answers with.
type Watching = Pin<Box<dyn Stream<Item = Result<pb::WatchJobsResponse, Status>> + Send>>;

impl Context {
    /// Does what answers a job, and shows it.
    async fn job(
        &self,
        work: impl Future<Output = Result<Job, Error>> + Send + 'static,
    ) -> Result<Option<pb::Job>, Status> {
        let job = self.tasks.run(work).await?;
        Ok(Some(wire::job(&job)))
    }
}

/// Delegates each RPC to its handler.
macro_rules! rpcs {
    ($($rpc:ident($request:ident) -> $response:ident = $handler:path;)+) => {
        #[tonic::async_trait]
        impl AutomationJobs for Context {
            type WatchJobsStream = Watching;

            async fn watch_jobs(
                &self,
                request: Request<pb::WatchJobsRequest>,
            ) -> Answer<Self::WatchJobsStream> {
                watch::watch_jobs(self, request).await
            }

            async fn create_batch(
                &self,
                request: Request<Streaming<pb::CreateBatchRequest>>,
            ) -> Answer<pb::CreateBatchResponse> {
                batches::create_batch(self, request).await
            }

            $(async fn $rpc(&self, request: Request<pb::$request>) -> Answer<pb::$response> {
                $handler(self, request).await
            })+
        }
    };
}

rpcs! {
    create_account(CreateAccountRequest) -> CreateAccountResponse = accounts::create_account;
    get_account(GetAccountRequest) -> GetAccountResponse = accounts::get_account;
    list_accounts(ListAccountsRequest) -> ListAccountsResponse = accounts::list_accounts;
    update_account(UpdateAccountRequest) -> UpdateAccountResponse = accounts::update_account;
    delete_account(DeleteAccountRequest) -> DeleteAccountResponse = accounts::delete_account;
    set_credentials(SetCredentialsRequest) -> SetCredentialsResponse = accounts::set_credentials;
    mark_connected(MarkConnectedRequest) -> MarkConnectedResponse = accounts::mark_connected;
    create_profile(CreateProfileRequest) -> CreateProfileResponse = profiles::create_profile;
    get_profile(GetProfileRequest) -> GetProfileResponse = profiles::get_profile;
    list_profiles(ListProfilesRequest) -> ListProfilesResponse = profiles::list_profiles;
    update_profile(UpdateProfileRequest) -> UpdateProfileResponse = profiles::update_profile;
    delete_profile(DeleteProfileRequest) -> DeleteProfileResponse = profiles::delete_profile;
    create_job(CreateJobRequest) -> CreateJobResponse = jobs::create_job;
    get_job(GetJobRequest) -> GetJobResponse = jobs::get_job;
    list_jobs(ListJobsRequest) -> ListJobsResponse = jobs::list_jobs;
    cancel_job(CancelJobRequest) -> CancelJobResponse = jobs::cancel_job;
    retry_job(RetryJobRequest) -> RetryJobResponse = jobs::retry_job;
    get_batch(GetBatchRequest) -> GetBatchResponse = batches::get_batch;
    list_batches(ListBatchesRequest) -> ListBatchesResponse = batches::list_batches;
    cancel_batch(CancelBatchRequest) -> CancelBatchResponse = batches::cancel_batch;
    retry_batch(RetryBatchRequest) -> RetryBatchResponse = batches::retry_batch;
    list_dead_letters(ListDeadLettersRequest) -> ListDeadLettersResponse = dead_letters::list_dead_letters;
    redrive_dead_letters(RedriveDeadLettersRequest) -> RedriveDeadLettersResponse = dead_letters::redrive_dead_letters;
    purge_dead_letters(PurgeDeadLettersRequest) -> PurgeDeadLettersResponse = dead_letters::purge_dead_letters;
    claim_jobs(ClaimJobsRequest) -> ClaimJobsResponse = work::claim_jobs;
    heartbeat(HeartbeatRequest) -> HeartbeatResponse = work::heartbeat;
    report_progress(ReportProgressRequest) -> ReportProgressResponse = work::report_progress;
    complete_job(CompleteJobRequest) -> CompleteJobResponse = work::complete_job;
    fail_job(FailJobRequest) -> FailJobResponse = work::fail_job;
    snooze_job(SnoozeJobRequest) -> SnoozeJobResponse = work::snooze_job;
    get_job_credentials(GetJobCredentialsRequest) -> GetJobCredentialsResponse = work::get_job_credentials;
}

/// Who calls: nobody who is held to a part of the tenant, since what is kept here is the whole
/// tenant's.
fn unconstrained<T>(request: &Request<T>, permission: Permission) -> Result<Caller, Status> {
    let caller = principal(request)?;
    caller.require_unconstrained(permission)?;
    Ok(caller)
}
