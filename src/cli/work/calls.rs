//! The gRPC of a worker, by the generated client, as any caller would.

use std::error::Error as _;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;
use zeroize::Zeroizing;

use super::lines::{Failure, Progress};
use crate::model::Captcha;
use crate::pb;
use crate::pb::automation_jobs_client::AutomationJobsClient;
use crate::pb::json::{duration, from_structure, structure};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may take, beyond what the service was asked to wait.
const ANSWER: Duration = Duration::from_secs(10);

/// How often a silent connection is asked whether it still is one.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The longest answer: a full hand of jobs with all that they may hold.
const ANSWER_MAX: usize = 32 * 1024 * 1024;

/// What was asked of the service and was not given.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody else has the job, or it is finished.
    LeaseLost,
    /// The callback of its authorisation has not come.
    NotYet,
    /// Its account has no credentials.
    NoCredentials,
    /// The service is out of reach or busy: asking again may help.
    Passing(String),
    /// Asking again does not help.
    Final(String),
}

/// What a worker presents with everything it says of a job.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    /// The job.
    pub(super) job: String,
    /// The claim's token.
    pub(super) token: i64,
}

/// A job that this worker has.
pub(super) struct Claimed {
    pub(super) lease: Lease,
    /// How long it is had without a heartbeat.
    pub(super) lasts: Duration,
    pub(super) kind: String,
    pub(super) attempt: i32,
    /// Whether it has an account, which may have credentials.
    pub(super) has_account: bool,
    /// Whether an authorisation's callback finishes it.
    pub(super) has_authorization: bool,
    /// What its command is told. Holds secrets.
    pub(super) told: Map<String, Value>,
}

/// What a heartbeat was answered.
pub(super) struct Beat {
    /// How long the job is had from now.
    pub(super) lasts: Duration,
    /// It was called off.
    pub(super) cancel: bool,
}

/// What is claimed, always the same.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) worker: String,
    pub(super) kinds: Vec<String>,
    pub(super) execution_mode: pb::ExecutionMode,
    pub(super) wait: Duration,
    pub(super) lease: Option<Duration>,
}

/// The service, as the holder of one API key reaches it.
#[derive(Clone)]
pub(super) struct Calls {
    jobs: AutomationJobsClient<Channel>,
    key: MetadataValue<Ascii>,
}

impl Calls {
    /// Prepares; the connection is made by the first call, and again whenever it is lost.
    ///
    /// # Errors
    /// The address, the authority's certificates or the key are not as they must be.
    pub(super) fn new(
        address: &str,
        authority: Option<Vec<u8>>,
        key: &SecretString,
    ) -> Result<Self, String> {
        let line = Zeroizing::new(format!("Bearer {}", key.expose_secret()));
        let mut key = MetadataValue::try_from(line.as_str())
            .map_err(|_| "the API key has characters that can't be sent".to_owned())?;
        key.set_sensitive(true);
        let fault = |error| format!("{address:?} can't be used as address: {error}");
        let mut endpoint = Endpoint::from_shared(address.to_owned()).map_err(fault)?;
        let scheme = endpoint.uri().scheme_str().unwrap_or_default().to_owned();
        match (scheme.as_str(), authority) {
            ("http", None) => {}
            ("http", Some(_)) => {
                return Err("--ca-file is for https addresses, and this is http".to_owned());
            }
            ("https", authority) => {
                let tls = match authority {
                    Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                    None => ClientTlsConfig::new().with_native_roots(),
                };
                endpoint = endpoint.tls_config(tls).map_err(|error| {
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    format!("TLS can't be set up: {error} {cause}")
                })?;
            }
            _ => return Err(format!("{address:?} is not an http:// or https:// address")),
        }
        let channel = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(ANSWER)
            .connect_lazy();
        let jobs = AutomationJobsClient::new(channel).max_decoding_message_size(ANSWER_MAX);
        Ok(Self { jobs, key })
    }

    fn request<T>(&self, message: T, within: Duration) -> Request<T> {
        let mut request = Request::new(message);
        let key = self.key.clone();
        request.metadata_mut().insert("authorization", key);
        request.set_timeout(within);
        request
    }

    /// Up to so many jobs; none when none came within the wait.
    pub(super) async fn claim(&self, ask: &Ask, most: usize) -> Result<Vec<Claimed>, Refusal> {
        let message = pb::ClaimJobsRequest {
            worker: ask.worker.clone(),
            max_jobs: i32::try_from(most).unwrap_or(i32::MAX),
            kinds: ask.kinds.clone(),
            execution_mode: ask.execution_mode.into(),
            wait: Some(duration(ask.wait)),
            lease: ask.lease.map(duration),
        };
        let request = self.request(message, ask.wait + ANSWER);
        let answer = answered("ClaimJobs", self.jobs.clone().claim_jobs(request).await)?;
        Ok(answer.jobs.into_iter().filter_map(claimed).collect())
    }

    /// Says that the worker is still at it.
    pub(super) async fn heartbeat(&self, lease: &Lease) -> Result<Beat, Refusal> {
        let message = pb::HeartbeatRequest {
            job_id: lease.job.clone(),
            lease_token: lease.token,
        };
        let request = self.request(message, ANSWER);
        let answer = answered("Heartbeat", self.jobs.clone().heartbeat(request).await)?;
        Ok(Beat {
            lasts: lasting(answer.lease_duration),
            cancel: answer.cancel,
        })
    }

    /// Tells how far the job has come, which is a heartbeat, too.
    pub(super) async fn report(&self, lease: &Lease, progress: &Progress) -> Result<Beat, Refusal> {
        let progress = progress.clone();
        let captcha = match progress.captcha {
            None | Some(Captcha::None) => pb::CaptchaState::Unspecified,
            Some(Captcha::Detected) => pb::CaptchaState::Detected,
            Some(Captcha::Resolved) => pb::CaptchaState::Resolved,
        };
        let message = pb::ReportProgressRequest {
            job_id: lease.job.clone(),
            lease_token: lease.token,
            step: progress.step,
            percent: progress.percent,
            message: progress.message,
            checkpoint: progress.checkpoint.as_ref().map(structure),
            captcha: captcha.into(),
        };
        let request = self.request(message, ANSWER);
        let answer = self.jobs.clone().report_progress(request).await;
        let answer = answered("ReportProgress", answer)?;
        Ok(Beat {
            lasts: lasting(answer.lease_duration),
            cancel: answer.cancel,
        })
    }

    /// Finishes the job well. Where it is finished so already, by this claim, that is no error.
    pub(super) async fn complete(
        &self,
        lease: &Lease,
        result: Option<&Map<String, Value>>,
        connection_id: &str,
    ) -> Result<&'static str, Refusal> {
        let message = pb::CompleteJobRequest {
            job_id: lease.job.clone(),
            lease_token: lease.token,
            result: result.map(structure),
            connection_id: connection_id.to_owned(),
        };
        let request = self.request(message, ANSWER);
        let answer = answered("CompleteJob", self.jobs.clone().complete_job(request).await)?;
        Ok(stands(answer.job))
    }

    /// Ends an attempt that failed.
    pub(super) async fn fail(
        &self,
        lease: &Lease,
        failure: &Failure,
    ) -> Result<&'static str, Refusal> {
        let message = pb::FailJobRequest {
            job_id: lease.job.clone(),
            lease_token: lease.token,
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            permanent: failure.permanent,
            retry_delay: failure.retry.map(duration),
        };
        let request = self.request(message, ANSWER);
        let answer = answered("FailJob", self.jobs.clone().fail_job(request).await)?;
        Ok(stands(answer.job))
    }

    /// Hands the job back for later.
    pub(super) async fn snooze(
        &self,
        lease: &Lease,
        delay: Duration,
    ) -> Result<&'static str, Refusal> {
        let message = pb::SnoozeJobRequest {
            job_id: lease.job.clone(),
            lease_token: lease.token,
            delay: (!delay.is_zero()).then(|| duration(delay)),
        };
        let request = self.request(message, ANSWER);
        let answer = answered("SnoozeJob", self.jobs.clone().snooze_job(request).await)?;
        Ok(stands(answer.job))
    }

    /// What the job's account signs in with, for its command. Secret.
    pub(super) async fn credentials(&self, lease: &Lease) -> Result<Value, Refusal> {
        let message = pb::GetJobCredentialsRequest {
            job_id: lease.job.clone(),
            lease_token: lease.token,
        };
        let request = self.request(message, ANSWER);
        let answer = self.jobs.clone().get_job_credentials(request).await;
        let answer = answered("GetJobCredentials", answer)?;
        let mut told = Map::new();
        told.insert("username".to_owned(), answer.username.into());
        tell(&mut told, "password", answer.password);
        tell(&mut told, "totp_code", answer.totp_code);
        tell_time(&mut told, "totp_expire_time", answer.totp_expire_time);
        tell(&mut told, "client_id", answer.client_id);
        tell(&mut told, "client_secret", answer.client_secret);
        Ok(Value::Object(told))
    }
}

fn answered<T>(call: &str, answer: Result<Response<T>, Status>) -> Result<T, Refusal> {
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(refusal(call, &status)),
    }
}

fn refusal(call: &str, status: &Status) -> Refusal {
    let mut text = format!(
        "{call} was answered {:?}: {}",
        status.code(),
        status.message()
    );
    // What is below a transport error: "refused", or the certificate's fault.
    let mut cause = status.source();
    while let Some(next) = cause.and_then(|cause| cause.source()) {
        cause = Some(next);
    }
    if let Some(cause) = cause.map(ToString::to_string)
        && !text.ends_with(&cause)
    {
        text = format!("{text}: {cause}");
    }
    match status.code() {
        Code::FailedPrecondition => {
            let info = status.get_details_error_info();
            match info.as_ref().map(|info| info.reason.as_str()) {
                Some("LEASE_LOST") => Refusal::LeaseLost,
                Some("JOB_STATE") => Refusal::NotYet,
                Some("NO_CREDENTIALS") => Refusal::NoCredentials,
                _ => Refusal::Final(text),
            }
        }
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unknown
        | Code::Cancelled => Refusal::Passing(text),
        _ => Refusal::Final(text),
    }
}

/// None for what has no job in it.
fn claimed(claimed: pb::ClaimedJob) -> Option<Claimed> {
    let job = claimed.job?;
    let lease = Lease {
        job: job.id.clone(),
        token: claimed.lease_token,
    };
    let (kind, attempt) = (job.kind.clone(), job.attempt);
    let has_account = !job.account_id.is_empty();
    let has_authorization = !job.authorization_id.is_empty();
    let mut told = story(job);
    told.insert("lease_token".to_owned(), claimed.lease_token.into());
    tell_time(&mut told, "lease_expire_time", claimed.lease_expire_time);
    tell(&mut told, "connect_url", claimed.connect_url);
    if let Some(profile) = claimed.profile {
        told.insert("profile".to_owned(), browser(profile));
    }
    Some(Claimed {
        lease,
        lasts: lasting(claimed.lease_duration),
        kind,
        attempt,
        has_account,
        has_authorization,
        told,
    })
}

const fn mode(mode: pb::ExecutionMode) -> &'static str {
    match mode {
        pb::ExecutionMode::Unspecified => "",
        pb::ExecutionMode::Cloud => "cloud",
        pb::ExecutionMode::Local => "local",
    }
}

/// A browser profile as a command is told of it: what it takes to open it.
fn browser(profile: pb::Profile) -> Value {
    let mode = mode(profile.execution_mode());
    let mut told = Map::new();
    tell(&mut told, "id", profile.id);
    tell(&mut told, "external_id", profile.external_id);
    tell(&mut told, "execution_mode", mode.to_owned());
    tell(&mut told, "proxy_country", profile.proxy_country);
    tell(&mut told, "proxy_type", profile.proxy_type);
    Value::Object(told)
}

/// A job as its command is told of it: the proto's names, without what is not set.
fn story(job: pb::Job) -> Map<String, Value> {
    let mode = mode(job.execution_mode());
    let mut told = Map::new();
    tell(&mut told, "id", job.id);
    tell(&mut told, "kind", job.kind);
    let payload = job.payload.unwrap_or_default();
    told.insert("payload".to_owned(), object(payload));
    tell(&mut told, "batch_id", job.batch_id);
    tell(&mut told, "account_id", job.account_id);
    tell(&mut told, "execution_mode", mode.to_owned());
    tell(&mut told, "provider", job.provider);
    told.insert("priority".to_owned(), job.priority.into());
    told.insert("attempt".to_owned(), job.attempt.into());
    told.insert("max_attempts".to_owned(), job.max_attempts.into());
    tell_time(&mut told, "run_time", job.run_time);
    tell_time(&mut told, "deadline", job.deadline);
    tell(&mut told, "worker", job.worker);
    tell(&mut told, "unique_key", job.unique_key);
    if let Some(progress) = job.progress {
        let captcha = match progress.captcha() {
            pb::CaptchaState::Unspecified => Value::Null,
            pb::CaptchaState::Detected => json!("detected"),
            pb::CaptchaState::Resolved => json!("resolved"),
        };
        let mut come = Map::new();
        tell(&mut come, "step", progress.step);
        come.insert("percent".to_owned(), progress.percent.into());
        tell(&mut come, "message", progress.message);
        if let Some(checkpoint) = progress.checkpoint {
            come.insert("checkpoint".to_owned(), object(checkpoint));
        }
        if !captcha.is_null() {
            come.insert("captcha".to_owned(), captcha);
        }
        told.insert("progress".to_owned(), Value::Object(come));
    }
    tell(&mut told, "failure_reason", job.failure_reason);
    tell(&mut told, "failure_message", job.failure_message);
    tell(&mut told, "authorization_id", job.authorization_id);
    tell_time(&mut told, "create_time", job.create_time);
    told
}

/// A `Struct` as it is told.
fn object(object: prost_types::Struct) -> Value {
    Value::Object(from_structure(object))
}

fn tell(told: &mut Map<String, Value>, name: &str, value: String) {
    if !value.is_empty() {
        told.insert(name.to_owned(), Value::String(value));
    }
}

fn tell_time(told: &mut Map<String, Value>, name: &str, time: Option<prost_types::Timestamp>) {
    if let Some(time) = time {
        told.insert(name.to_owned(), Value::String(time.to_string()));
    }
}

/// What is not told lasts no time at all: nobody works on without a lease.
fn lasting(duration: Option<prost_types::Duration>) -> Duration {
    duration
        .and_then(|duration| Duration::try_from(duration).ok())
        .unwrap_or_default()
}

/// Where a job stands, in a word for people.
fn stands(job: Option<pb::Job>) -> &'static str {
    match job.map(|job| job.state()) {
        Some(pb::JobState::Completed) => "completed",
        Some(pb::JobState::Failed) => "given up",
        Some(pb::JobState::Cancelled) => "called off",
        Some(pb::JobState::Retryable) => "to be tried again",
        Some(pb::JobState::Snoozed) => "handed back for later",
        Some(pb::JobState::Pending | pb::JobState::Running) => "handed back",
        _ => "told",
    }
}
