//! What accounts sign in with: sealed where it is kept, opened for the worker that has the job.

use secrecy::{ExposeSecret as _, SecretString};

use super::accounts::{account_entry, locked};
use super::jobs::missing;
use super::{Automation, permit};
use crate::access::audit::{self, Action, Entry};
use crate::access::{Caller, Permission};
use crate::crypto::{Context, Purpose, totp};
use crate::error::{Error, FieldViolation, Precondition};
use crate::model::{Account, Sealed, Timestamp};
use crate::store::{self, Tx, transact};

/// What stands before a password in the old text form.
const PASSWORD_MARK: &str = "CSV_PASSWORD:";
/// What stands before the seed of one-time codes there.
const SEED_MARK: &str = "2FA_SECRET:";

/// What an account signs in with; what is `None` is not given.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The password: at most 1,000 characters.
    pub password: Option<SecretString>,
    /// The seed of its one-time codes: 8 to 256 characters of Base32 (RFC 4648).
    pub totp_secret: Option<SecretString>,
    /// The secret of the account's own OAuth client: at most 4,096 characters.
    pub client_secret: Option<SecretString>,
}

impl Credentials {
    /// From the text that older systems export, `CSV_PASSWORD:pass|2FA_SECRET:seed`: either part may be
    /// missing or empty. A password may hold any character, the marks' own included.
    ///
    /// # Errors
    /// What is wrong with it, when it is no such text.
    pub fn parse_text(text: &SecretString) -> Result<Self, FieldViolation> {
        let refused = || {
            let form = "is not of the form `CSV_PASSWORD:pass|2FA_SECRET:seed`";
            FieldViolation::new("credentials.text", form)
        };
        let text = text.expose_secret();
        let (password, seed) = if let Some(rest) = text.strip_prefix(PASSWORD_MARK) {
            // A seed holds neither mark nor bar: the last one is where it begins.
            rest.rsplit_once(&format!("|{SEED_MARK}"))
                .unwrap_or((rest, ""))
        } else {
            let rest = text.strip_prefix(SEED_MARK).ok_or_else(refused)?;
            let (seed, password) = rest
                .split_once(&format!("|{PASSWORD_MARK}"))
                .unwrap_or((rest, ""));
            (password, seed)
        };
        let given = |text: &str| (!text.is_empty()).then(|| SecretString::from(text));
        let parsed = Self {
            password: given(password),
            totp_secret: given(seed.trim()),
            client_secret: None,
        };
        if parsed.is_empty() {
            return Err(refused());
        }
        Ok(parsed)
    }

    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.password.is_none() && self.totp_secret.is_none() && self.client_secret.is_none()
    }

    /// What is wrong with them.
    pub fn faults(&self) -> Vec<FieldViolation> {
        let mut faults = Vec::new();
        let seed = self.totp_secret.as_ref();
        if seed.is_some_and(|text| totp::seed(text).is_none()) {
            faults.push(not_a_seed());
        }
        faults
    }

    /// Behind a message that identifies a request: each one's length, then itself.
    pub(super) fn append_to(&self, message: &mut Vec<u8>) {
        for secret in [&self.password, &self.totp_secret, &self.client_secret] {
            let bytes = secret.as_ref().map(|it| it.expose_secret().as_bytes());
            let bytes = bytes.unwrap_or_default();
            message.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            message.extend_from_slice(bytes);
        }
    }
}

/// What a worker is given for its job.
#[derive(Clone, Debug)]
pub struct JobCredentials {
    /// Who the account is.
    pub username: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// A one-time code, and until when it is good.
    pub totp: Option<(SecretString, Timestamp)>,
    /// The account's own OAuth client; empty for none.
    pub client_id: String,
    /// That client's secret.
    pub client_secret: Option<SecretString>,
}

impl Automation {
    /// Sets those credentials that are given; with `replace`, the others are taken away.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where nothing is given or a seed is none; [`Error::NotFound`];
    /// [`Error::Constrained`] for a caller with constraints.
    pub async fn set_credentials(
        &self,
        caller: &Caller,
        id: &str,
        credentials: Credentials,
        replace: bool,
    ) -> Result<Account, Error> {
        permit(caller, Permission::WriteAccounts)?;
        if credentials.is_empty() && !replace {
            return Err(Error::invalid("credentials", "is required"));
        }
        transact!(self.parts.store, |tx| {
            let mut account = locked(&mut tx, &caller.tenant, id, None).await?;
            let mut entry = account_entry(Action::AccountCredentialsSet, caller, &account);
            if replace {
                account.password = None;
                account.totp_secret = None;
                account.client_secret = None;
                account.credentials_at = None;
                entry = entry.detail("replace", true);
            }
            let now = self.parts.clock.now();
            let set = self.put_credentials(&mut account, &credentials, now)?;
            let account = self.write_account(&mut tx, account).await?;
            let entry = entry.detail("credentials", set.join(" "));
            audit::record(&mut tx, &entry, now).await?;
            Ok(account)
        })
    }

    /// What the account of a job signs in with, for the worker that has the job while its lease lasts.
    /// An entry of the audit trail is written before anything is given, and for every refusal but that of
    /// a job that is not there.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the job; `LEASE_LOST`; `NO_CREDENTIALS`; [`Error::Constrained`] for a
    /// caller with constraints.
    pub async fn job_credentials(
        &self,
        caller: &Caller,
        job_id: &str,
        token: i64,
    ) -> Result<JobCredentials, Error> {
        permit(caller, Permission::WorkJobs)?;
        transact!(self.parts.store, |tx| {
            let now = self.parts.clock.now();
            let judged = judge(&mut tx, &caller.tenant, job_id, token).await?;
            let outcome = judged.and_then(|account| {
                let entry = account_entry(Action::AccountCredentialsRead, caller, &account);
                Ok((entry, self.opened(account, now)?))
            });
            let (entry, answer) = match outcome {
                Ok((entry, opened)) => (entry, Ok(opened)),
                Err(refusal) => {
                    let Some(reason) = reason(&refusal) else {
                        return Err(refusal);
                    };
                    let entry = Entry::new(Action::AccountCredentialsRead, caller);
                    (entry.on("job", job_id).failed(reason), Err(refusal))
                }
            };
            let entry = entry.detail("job_id", job_id);
            audit::record(&mut tx, &entry, now).await?;
            // Committed whichever it is.
            Ok(answer)
        })?
    }

    fn opened(&self, account: Account, now: Timestamp) -> Result<JobCredentials, Error> {
        let keyring = &self.parts.keyring;
        let text = |purpose, sealed: Option<&Sealed>| {
            let context = context(&account, purpose);
            sealed
                .map(|sealed| keyring.open_text(&context, sealed))
                .transpose()
        };
        let password = text(Purpose::AccountPassword, account.password.as_ref())?;
        let client_secret = text(Purpose::AccountClientSecret, account.client_secret.as_ref())?;
        let totp = match &account.totp_secret {
            Some(sealed) => {
                let context = context(&account, Purpose::AccountTotpSecret);
                Some(totp::code(&keyring.open(&context, sealed)?, now))
            }
            None => None,
        };
        Ok(JobCredentials {
            username: account.username,
            password,
            totp,
            client_id: account.client_id,
            client_secret,
        })
    }

    /// Seals those credentials that are given into the account; their names.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a seed that is no Base32.
    pub(super) fn put_credentials(
        &self,
        account: &mut Account,
        credentials: &Credentials,
        now: Timestamp,
    ) -> Result<Vec<&'static str>, Error> {
        let it = &*account;
        let seal = |purpose, plain: &[u8]| self.parts.keyring.seal(&context(it, purpose), plain);
        let sealed_text = |purpose, secret: &Option<SecretString>| {
            let plain = secret.as_ref().map(|it| it.expose_secret().as_bytes());
            plain.map(|plain| seal(purpose, plain)).transpose()
        };
        let password = sealed_text(Purpose::AccountPassword, &credentials.password)?;
        let client_secret = sealed_text(Purpose::AccountClientSecret, &credentials.client_secret)?;
        let totp_secret = match &credentials.totp_secret {
            Some(text) => {
                let seed =
                    totp::seed(text).ok_or_else(|| Error::InvalidArgument(vec![not_a_seed()]))?;
                Some(seal(Purpose::AccountTotpSecret, &seed)?)
            }
            None => None,
        };
        let mut set = Vec::new();
        for (name, field, sealed) in [
            ("password", &mut account.password, password),
            ("totp_secret", &mut account.totp_secret, totp_secret),
            ("client_secret", &mut account.client_secret, client_secret),
        ] {
            if sealed.is_some() {
                *field = sealed;
                set.push(name);
            }
        }
        if !set.is_empty() {
            account.credentials_at = Some(now);
        }
        Ok(set)
    }
}

fn context(account: &Account, purpose: Purpose) -> Context<'_> {
    Context {
        tenant: &account.tenant,
        purpose,
        row: &account.id,
    }
}

fn not_a_seed() -> FieldViolation {
    FieldViolation::new(
        "credentials.totp_secret",
        "is not 8 to 256 characters of Base32 (RFC 4648)",
    )
}

/// The account whose credentials the holder of this token may have now. The outer error is the store's,
/// the inner one a refusal.
async fn judge(
    tx: &mut Tx,
    tenant: &str,
    job_id: &str,
    token: i64,
) -> Result<Result<Account, Error>, Error> {
    let Some(job) = store::automation::jobs::find(tx, tenant, job_id).await? else {
        return Ok(Err(missing(job_id)));
    };
    if !store::automation::claims::holds(tx, tenant, job_id, token).await? {
        return Ok(Err(Error::precondition(
            Precondition::LeaseLost,
            "the lease was lost or is over: stop working on this job",
        )));
    }
    let account = match &job.account_id {
        Some(id) => store::automation::accounts::find(tx, tenant, id).await?,
        None => None,
    };
    let has_any = |it: &Account| {
        it.password.is_some() || it.totp_secret.is_some() || it.client_secret.is_some()
    };
    let none = || {
        Error::precondition(
            Precondition::NoCredentials,
            "the job has no account, or its account has no credentials; set them with SetCredentials",
        )
    };
    Ok(account.filter(has_any).ok_or_else(none))
}

/// What a refusal is recorded as; none for a failure of our own, and for a job that is not there: its id
/// may be another tenant's.
fn reason(refusal: &Error) -> Option<&'static str> {
    match refusal {
        Error::FailedPrecondition { precondition, .. } => Some(precondition.reason()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, String)> {
        let credentials = Credentials::parse_text(&SecretString::from(text)).ok()?;
        let shown = |secret: Option<SecretString>| {
            secret.map_or_else(String::new, |it| it.expose_secret().to_owned())
        };
        Some((shown(credentials.password), shown(credentials.totp_secret)))
    }

    #[test]
    fn the_old_text_is_read() {
        let both = |password: &str, seed: &str| Some((password.to_owned(), seed.to_owned()));
        for (text, expected) in [
            ("CSV_PASSWORD:pass|2FA_SECRET:SEED", both("pass", "SEED")),
            ("CSV_PASSWORD:pass", both("pass", "")),
            ("CSV_PASSWORD:pass|2FA_SECRET:", both("pass", "")),
            ("2FA_SECRET:SEED", both("", "SEED")),
            ("2FA_SECRET:SEED|CSV_PASSWORD:a|b:c", both("a|b:c", "SEED")),
            (
                "CSV_PASSWORD:a|b: c |2FA_SECRET: SE ED ",
                both("a|b: c ", "SE ED"),
            ),
            (
                "CSV_PASSWORD:a|2FA_SECRET:b|2FA_SECRET:SEED",
                both("a|2FA_SECRET:b", "SEED"),
            ),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn any_other_text_is_refused_and_not_repeated() {
        for text in ["", "pass", "PASSWORD:pass", "CSV_PASSWORD:|2FA_SECRET:"] {
            let refused = Credentials::parse_text(&SecretString::from(text));
            assert!(refused.is_err(), "{text}");
        }
        let refused = Credentials::parse_text(&SecretString::from("hunter2"));
        assert!(!format!("{refused:?}").contains("hunter2"));
    }
}
