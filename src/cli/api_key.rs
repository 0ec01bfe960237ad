//! `tokenbroker api-key`.

use std::sync::Arc;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Failure, Missing, Opened, check_constraints, note, open, print, table};
use crate::access::ApiKeys;
use crate::access::api_keys::{MAX_OVERLAP, NewApiKey, is_tenant};
use crate::access::bearer::BearerSecret;
use crate::bootstrap::{self, DEFAULT_TENANT};
use crate::clock::Clock;
use crate::config::Config;
use crate::freshness::Freshness;
use crate::model::{ApiKey as Stored, Constraints, IdKind, RateLimit, Role, Timestamp};
use crate::store::migrate;

/// Make, list, rotate and revoke the keys that callers authenticate with
///
/// These work on the database itself, so whoever may read its configuration may make keys. A
/// `serve` that runs notices within cache.max_staleness.
#[derive(Args, Debug)]
pub(super) struct ApiKey {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Create(Create),
    List(List),
    Rotate(Rotate),
    Revoke(Revoke),
}

/// Make a key and print it, this once
///
/// Standard output gets the key and nothing else, so that it can be captured. Only its hash is
/// stored: who loses it makes another.
///
/// Roles: admin (everything), operator (everything but receiving tokens, changing providers, and
/// deciding who may do what), auditor (the audit trail), consumer (tokens of the apps and owners it
/// is allowed), worker (automation jobs), issuer_ui (signs people in). --app, --owner and
/// --provider narrow a role down; each may be repeated, and without any of a kind all are
/// allowed.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker api-key create --name ops --role operator
  tokenbroker api-key create --name billing --role consumer --owner 'customer-*' --expires-in 90d
  KEY=$(tokenbroker api-key create --name ci --role consumer --tenant acme --provider github)")]
struct Create {
    /// What to call it, 1 to 128 characters
    #[arg(long)]
    name: String,
    /// What it may do
    #[arg(long, value_parser = PossibleValuesParser::new(ROLES).try_map(role))]
    role: Role,
    /// The tenant that it acts in
    #[arg(long, default_value = DEFAULT_TENANT)]
    tenant: String,
    /// Allow only this app, by id; repeatable
    #[arg(long = "app", value_name = "ID")]
    apps: Vec<String>,
    /// Allow only this owner, or with * at the end those that begin so; repeatable
    #[arg(long = "owner", value_name = "PATTERN")]
    owners: Vec<String>,
    /// Allow only this provider, by id such as github; repeatable
    #[arg(long = "provider", value_name = "ID")]
    providers: Vec<String>,
    /// Allow authorisations that no session of the owner confirms (links by e-mail)
    #[arg(long)]
    link_only: bool,
    /// How many calls a second it may make, and how many at once; the role's when not given
    #[arg(long, value_name = "RATE[:BURST]", value_parser = rate_limit)]
    rate_limit: Option<RateLimit>,
    /// When it ends, such as 90d or 12h; never when not given
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires_in: Option<Duration>,
}

/// List the keys, revoked and expired ones too; never the keys themselves
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker api-key list --tenant acme
  tokenbroker api-key list --json | jq -r '.api_keys[] | select(.state == \"active\").id'")]
struct List {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Make the successor of a key and print it, this once
///
/// It has the name, role and limits of the old one, and its own life where the old one has an end.
/// The old key works for --overlap still, then never again.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker api-key rotate key_01h455vb4pex5vsknk084sn02q
  KEY=$(tokenbroker api-key rotate key_01h455vb4pex5vsknk084sn02q --overlap 24h)")]
struct Rotate {
    /// The key's id
    id: String,
    /// How long the old key works still, 0s to 7d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = overlap)]
    overlap: Duration,
}

/// Revoke a key, by the id that `list` shows
#[derive(Args, Debug)]
#[command(after_long_help = "\
Example:
  tokenbroker api-key revoke key_01h455vb4pex5vsknk084sn02q")]
struct Revoke {
    /// The key's id
    id: String,
}

/// All but `user`, which is for people who sign in.
const ROLES: [&str; 6] = [
    Role::Admin.as_str(),
    Role::Operator.as_str(),
    Role::Auditor.as_str(),
    Role::Consumer.as_str(),
    Role::Worker.as_str(),
    Role::IssuerUi.as_str(),
];

fn role(text: String) -> Result<Role, String> {
    Role::parse(&text).ok_or_else(|| format!("{text:?} is no role"))
}

fn rate_limit(text: &str) -> Result<RateLimit, String> {
    const MOST: u32 = 1_000_000;
    let number = |text: &str| text.parse().ok().filter(|it| (1..=MOST).contains(it));
    let limit = match text.split_once(':') {
        Some((rate, burst)) => number(rate).zip(number(burst)),
        None => number(text).map(|rate| (rate, rate.saturating_mul(2))),
    };
    limit
        .map(|(requests_per_second, burst)| RateLimit {
            requests_per_second,
            burst,
        })
        .ok_or_else(|| format!("write a rate such as 50, or with a burst 50:200; 1 to {MOST}"))
}

fn overlap(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Err(_) => Err("write a duration such as 1h or 2d".to_owned()),
        Ok(overlap) if overlap > MAX_OVERLAP => Err("0s to 7d can be given".to_owned()),
        Ok(overlap) => Ok(overlap),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
    match humantime::parse_duration(text) {
        Err(_) => Err("write a duration such as 90d or 12h".to_owned()),
        Ok(life) if !(SHORTEST..=LONGEST).contains(&life) => {
            Err("1s to 3650d can be given".to_owned())
        }
        Ok(life) => Ok(life),
    }
}

impl ApiKey {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let missing = match &self.step {
            Step::Create(create) => {
                let Create {
                    apps,
                    owners,
                    providers,
                    ..
                } = create;
                check_constraints("--", apps, owners, providers)?;
                Missing::Make
            }
            Step::Revoke(Revoke { id }) | Step::Rotate(Rotate { id, .. }) => {
                check_id(id)?;
                Missing::Refuse
            }
            Step::List(_) => Missing::Refuse,
        };
        let Opened { store, made } = open(&config, missing).await?;
        if made {
            bootstrap::schema(&store).await?;
        } else {
            // Beside a `serve` that runs, the schema is its affair.
            migrate::check(&store).await?;
        }
        let clock = Clock::system();
        let freshness = Arc::new(Freshness::new(config.cache.max_staleness));
        let keys = ApiKeys::new(store, clock.clone(), freshness);
        match self.step {
            Step::Create(create) => create.run(&keys, clock.now()).await,
            Step::List(list) => list.run(&keys, clock.now()).await,
            Step::Rotate(rotate) => rotate.run(&keys).await,
            Step::Revoke(revoke) => revoke.run(&keys).await,
        }
    }
}

impl Create {
    async fn run(self, keys: &ApiKeys, now: Timestamp) -> Result<(), Failure> {
        let (key, secret) = keys
            .create(NewApiKey {
                tenant: self.tenant,
                name: self.name,
                role: self.role,
                constraints: Constraints {
                    apps: self.apps,
                    owners: self.owners,
                    providers: self.providers,
                    link_only: self.link_only,
                },
                rate_limit: self.rate_limit,
                created_by: "command line".to_owned(),
                expires_at: self.expires_in.map(|life| now.plus(life)),
            })
            .await?;
        show(keys, &key, &secret).await?;
        note(&format!("{}. The key is shown this once.", described(&key)));
        Ok(())
    }
}

impl Rotate {
    async fn run(self, keys: &ApiKeys) -> Result<(), Failure> {
        let rotated = keys
            .any_tenant_rotate(&self.id, "command line", self.overlap)
            .await;
        let (key, secret, ends_at) = match rotated {
            Err(crate::Error::NotFound(..)) => {
                return Err(Failure::Failed(format!("there is no API key {}", self.id)));
            }
            outcome => outcome?,
        };
        if let Err(failure) = show(keys, &key, &secret).await {
            note(&format!("{} works until {ends_at} all the same.", self.id));
            return Err(failure);
        }
        note(&format!(
            "{}. The key is shown this once; {} works until {ends_at}.",
            described(&key),
            self.id
        ));
        Ok(())
    }
}

/// Prints a new key. One that can't be printed is nobody's, and nobody should have to clear it away.
async fn show(keys: &ApiKeys, key: &Stored, secret: &BearerSecret) -> Result<(), Failure> {
    let line = Zeroizing::new(format!("{}\n", secret.text().expose_secret()));
    if let Err(failure) = print(&line) {
        keys.revoke(&key.id).await?;
        return Err(failure);
    }
    Ok(())
}

fn described(key: &Stored) -> String {
    let end = key
        .expires_at
        .map_or_else(|| "never expires".to_owned(), |at| format!("expires {at}"));
    let (id, role, tenant) = (&key.id, key.role.as_str(), &key.tenant);
    format!("{id} ({role}, tenant {tenant}, {end})")
}

impl List {
    async fn run(self, keys: &ApiKeys, now: Timestamp) -> Result<(), Failure> {
        if let Some(tenant) = &self.tenant
            && !is_tenant(tenant)
        {
            let text = format!("--tenant: {tenant:?} is not a tenant's name");
            return Err(Failure::Usage(text));
        }
        let all = keys.list(self.tenant.as_deref()).await?;
        if self.json {
            let objects: Vec<_> = all.iter().map(|key| as_object(key, now)).collect();
            return print(&format!("{:#}\n", json!({ "api_keys": objects })));
        }
        let headings = [
            "ID",
            "TENANT",
            "NAME",
            "ROLE",
            "BEGINS",
            "STATE",
            "EXPIRES",
            "LAST USED",
            "LIMITS",
            "REPLACED BY",
        ];
        let rows: Vec<_> = all.iter().map(|key| row(key, now)).collect();
        print(&table(headings, &rows))
    }
}

/// Whoever pastes the key itself must not find it in the error, nor in a log of it.
fn check_id(id: &str) -> Result<(), Failure> {
    if IdKind::ApiKey.matches(id) {
        return Ok(());
    }
    Err(Failure::Usage(
        "a key's id (key_…) is needed; `tokenbroker api-key list` shows them".to_owned(),
    ))
}

impl Revoke {
    async fn run(self, keys: &ApiKeys) -> Result<(), Failure> {
        match keys.revoke(&self.id).await {
            Err(crate::Error::NotFound(..)) => Err(Failure::Failed(format!(
                "there is no API key {}, or it was revoked before",
                self.id
            ))),
            outcome => {
                outcome?;
                print(&format!("revoked {}\n", self.id))
            }
        }
    }
}

fn state(key: &Stored, now: Timestamp) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.expires_at.is_some_and(|end| end <= now) {
        "expired"
    } else {
        "active"
    }
}

fn as_object(key: &Stored, now: Timestamp) -> serde_json::Value {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "role": key.role.as_str(),
        "prefix": key.prefix,
        "state": state(key, now),
        "constraints": key.constraints,
        "rate_limit": key.rate_limit.map(|limit| json!({
            "requests_per_second": limit.requests_per_second,
            "burst": limit.burst,
        })),
        "replaced_by": key.replaced_by,
        "created_by": key.created_by,
        "created_at": key.created_at.to_string(),
        "expires_at": text(key.expires_at),
        "revoked_at": text(key.revoked_at),
        "last_used_at": text(key.last_used_at),
    })
}

fn row(key: &Stored, now: Timestamp) -> [String; 10] {
    let text = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    [
        key.id.clone(),
        key.tenant.clone(),
        key.name.clone(),
        key.role.as_str().to_owned(),
        key.prefix.clone(),
        state(key, now).to_owned(),
        text(key.expires_at),
        text(key.last_used_at),
        limits(key),
        key.replaced_by.clone().unwrap_or_default(),
    ]
}

fn limits(key: &Stored) -> String {
    let constraints = &key.constraints;
    let lists = [
        ("app", &constraints.apps),
        ("owner", &constraints.owners),
        ("provider", &constraints.providers),
    ];
    let mut words: Vec<String> = lists
        .into_iter()
        .flat_map(|(name, list)| list.iter().map(move |one| format!("{name}={one}")))
        .collect();
    if constraints.link_only {
        words.push("link-only".to_owned());
    }
    if let Some(limit) = key.rate_limit {
        words.push(format!(
            "rate={}:{}",
            limit.requests_per_second, limit.burst
        ));
    }
    words.join(" ")
}
