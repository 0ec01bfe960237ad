//! `tokenbroker user`.

use std::io::{self, IsTerminal as _, Read as _};
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::{Failure, Missing, Opened, check_constraints, note, open, print, table};
use crate::access::api_keys::is_tenant;
use crate::access::users::{NewUser, UserFilter, UserName};
use crate::access::{Caller, Users};
use crate::bootstrap::{self, DEFAULT_TENANT};
use crate::clock::Clock;
use crate::config::Config;
use crate::model::{Constraints, IdKind, Role, Timestamp, User as Stored, UserState};
use crate::store::migrate;

/// Make, list and change users, who sign in with a password or through a provider
///
/// These work on the database itself, so whoever may read its configuration may do everything: make
/// the first admin, or give one who forgot it a new password. A `serve` that runs notices within
/// cache.max_staleness. Passwords are never arguments, which other processes see: they are asked for
/// on a terminal, or else read as the first line of standard input.
#[derive(Args, Debug)]
pub(super) struct User {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Create(Create),
    List(List),
    Show(Show),
    SetPassword(SetPassword),
    Deactivate(Deactivate),
    Reactivate(Reactivate),
    Delete(Delete),
}

/// Make a user and print their id
///
/// Roles: admin (everything), operator (everything but receiving tokens, changing providers and
/// deciding who may do what), auditor (the audit trail), consumer (tokens of the apps and owners they
/// are allowed), worker (automation jobs), issuer_ui (an application that signs people in), user (their
/// own connections). The options that begin with --allow narrow a role down; each may be repeated.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker user create --email ada@example.com --role admin
  tokenbroker user create --email bob@example.com --owner customer-7 --no-password
  pass show broker/ada | tokenbroker user create --email ada@example.com --role operator")]
struct Create {
    /// Their e-mail address, 3 to 254 characters
    #[arg(long)]
    email: String,
    /// Their name for people, at most 255 characters
    #[arg(long, default_value = "")]
    name: String,
    /// What they may do
    #[arg(long, default_value = Role::User.as_str(), value_parser = PossibleValuesParser::new(ROLES).try_map(role))]
    role: Role,
    /// Whose connections are theirs; their id when not given
    #[arg(long, default_value = "")]
    owner: String,
    /// Somebody has made sure that the address is theirs
    #[arg(long)]
    email_verified: bool,
    /// Without a password: they sign in through a provider
    #[arg(long)]
    no_password: bool,
    /// Allow only this app, by id; repeatable
    #[arg(long = "allow-app", value_name = "ID")]
    apps: Vec<String>,
    /// Allow only this owner, or with * at the end those that begin so; repeatable
    #[arg(long = "allow-owner", value_name = "PATTERN")]
    owners: Vec<String>,
    /// Allow only this provider, by id such as github; repeatable
    #[arg(long = "allow-provider", value_name = "ID")]
    providers: Vec<String>,
    #[command(flatten)]
    place: Place,
}

/// List users, oldest first; never their passwords
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker user list --query example.com
  tokenbroker user list --json | jq -r '.users[] | select(.role == \"admin\").email'")]
struct List {
    /// Only those whose e-mail address or name contains this, in any case
    #[arg(long, default_value = "")]
    query: String,
    /// Only those who may sign in (active) or may not (inactive)
    #[arg(long, value_parser = PossibleValuesParser::new(STATES).try_map(state))]
    state: Option<UserState>,
    #[command(flatten)]
    place: Place,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Show one user
#[derive(Args, Debug)]
#[command(after_long_help = "\
Example:
  tokenbroker user show ada@example.com")]
struct Show {
    #[command(flatten)]
    who: Named,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Set a user's password, or take it away; all their sessions end
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker user set-password ada@example.com
  tokenbroker user set-password ada@example.com < new-password
  tokenbroker user set-password ada@example.com --remove")]
struct SetPassword {
    #[command(flatten)]
    who: Named,
    /// Take the password away: they sign in through a provider
    #[arg(long)]
    remove: bool,
}

/// Switch a user off: their sessions end and they can't sign in
#[derive(Args, Debug)]
#[command(after_long_help = "\
Example:
  tokenbroker user deactivate ada@example.com --reason 'left the company'")]
struct Deactivate {
    #[command(flatten)]
    who: Named,
    /// Why, for the audit trail
    #[arg(long, default_value = "")]
    reason: String,
}

/// Switch a user on again
#[derive(Args, Debug)]
#[command(after_long_help = "\
Example:
  tokenbroker user reactivate ada@example.com")]
struct Reactivate {
    #[command(flatten)]
    who: Named,
}

/// Delete a user: their sessions end and the e-mail address is free again; connections stay
#[derive(Args, Debug)]
#[command(after_long_help = "\
Example:
  tokenbroker user delete user_01h455vb4pex5vsknk084sn02q")]
struct Delete {
    #[command(flatten)]
    who: Named,
}

#[derive(Args, Debug)]
struct Place {
    /// The tenant
    #[arg(long, default_value = DEFAULT_TENANT)]
    tenant: String,
}

#[derive(Args, Debug)]
struct Named {
    /// The user's id or e-mail address
    user: String,
    #[command(flatten)]
    place: Place,
}

const ROLES: [&str; 7] = [
    Role::Admin.as_str(),
    Role::Operator.as_str(),
    Role::Auditor.as_str(),
    Role::Consumer.as_str(),
    Role::Worker.as_str(),
    Role::IssuerUi.as_str(),
    Role::User.as_str(),
];

const STATES: [&str; 2] = [UserState::Active.as_str(), UserState::Inactive.as_str()];

/// Longest password in bytes, with a line's end; more on standard input is no password.
const INPUT_MAX: u64 = 4 * 1024;

/// Users read in one page.
const PAGE: usize = 1_000;

fn role(text: String) -> Result<Role, String> {
    Role::parse(&text).ok_or_else(|| format!("{text:?} is no role"))
}

fn state(text: String) -> Result<UserState, String> {
    UserState::parse(&text).ok_or_else(|| format!("{text:?} is no state"))
}

impl User {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let (place, missing) = match &self.step {
            Step::Create(create) => {
                let Create {
                    apps,
                    owners,
                    providers,
                    ..
                } = create;
                check_constraints("--allow-", apps, owners, providers)?;
                (&create.place, Missing::Make)
            }
            Step::List(list) => (&list.place, Missing::Refuse),
            Step::Show(Show { who, .. })
            | Step::SetPassword(SetPassword { who, .. })
            | Step::Deactivate(Deactivate { who, .. })
            | Step::Reactivate(Reactivate { who })
            | Step::Delete(Delete { who }) => (&who.place, Missing::Refuse),
        };
        if !is_tenant(&place.tenant) {
            let text = format!("--tenant: {:?} is not a tenant's name", place.tenant);
            return Err(Failure::Usage(text));
        }
        let caller = Caller::command_line(&place.tenant);
        let Opened { store, made } = open(&config, missing).await?;
        if made {
            bootstrap::schema(&store).await?;
        } else {
            // Beside a `serve` that runs, the schema is its affair.
            migrate::check(&store).await?;
        }
        let keyring = bootstrap::keyring(&config)?;
        let poke = Arc::new(Notify::new());
        let users = Users::new(store, keyring, Clock::system(), &config.passwords, poke)?;
        match self.step {
            Step::Create(create) => create.run(&users, &caller).await,
            Step::List(list) => list.run(&users, &caller).await,
            Step::Show(show) => {
                let user = show.who.find(&users, &caller).await?;
                print_one(&user, show.json)
            }
            Step::SetPassword(set) => set.run(&users, &caller).await,
            Step::Deactivate(Deactivate { who, reason }) => {
                let id = who.find(&users, &caller).await?.id;
                users.deactivate(&caller, &id, &reason).await?;
                print(&format!("deactivated {id}\n"))
            }
            Step::Reactivate(Reactivate { who }) => {
                let id = who.find(&users, &caller).await?.id;
                users.reactivate(&caller, &id).await?;
                print(&format!("reactivated {id}\n"))
            }
            Step::Delete(Delete { who }) => {
                let id = who.find(&users, &caller).await?.id;
                users.delete(&caller, &id, None).await?;
                print(&format!("deleted {id}\n"))
            }
        }
    }
}

impl Create {
    async fn run(self, users: &Users, caller: &Caller) -> Result<(), Failure> {
        let new = NewUser {
            email: self.email,
            email_verified: self.email_verified,
            display_name: self.name,
            password: if self.no_password {
                None
            } else {
                Some(read_password()?)
            },
            role: self.role,
            constraints: Constraints {
                apps: self.apps,
                owners: self.owners,
                providers: self.providers,
                link_only: false,
            },
            owner: self.owner,
            request_id: String::new(),
        };
        let user = users.create(caller, new).await?;
        note(&format!(
            "{} ({}, tenant {})",
            user.email,
            user.role.as_str(),
            user.tenant
        ));
        print(&format!("{}\n", user.id))
    }
}

impl List {
    async fn run(self, users: &Users, caller: &Caller) -> Result<(), Failure> {
        let filter = UserFilter {
            state: self.state,
            query: self.query,
        };
        let mut all = Vec::new();
        let mut after = Some(String::new());
        while let Some(from) = after {
            let page = users.list(caller, &filter, &from, PAGE).await?;
            all.extend(page.users);
            after = page.next;
        }
        if self.json {
            let objects: Vec<_> = all.iter().map(as_object).collect();
            return print(&format!("{:#}\n", json!({ "users": objects })));
        }
        print(&rows(&all))
    }
}

impl SetPassword {
    async fn run(self, users: &Users, caller: &Caller) -> Result<(), Failure> {
        let user = self.who.find(users, caller).await?;
        let password = if self.remove {
            None
        } else {
            Some(read_password()?)
        };
        let ended = users
            .set_password(caller, &user.id, None, password.as_ref())
            .await?;
        let what = if self.remove { "taken away" } else { "set" };
        print(&format!(
            "password of {} {what}; {ended} sessions ended\n",
            user.id
        ))
    }
}

impl Named {
    async fn find(&self, users: &Users, caller: &Caller) -> Result<Stored, Failure> {
        let name = if IdKind::User.matches(&self.user) {
            UserName::Id(self.user.clone())
        } else if self.user.contains('@') {
            UserName::Email(self.user.clone())
        } else {
            let text = "a user's id (user_…) or e-mail address is needed; `tokenbroker user list` shows them";
            return Err(Failure::Usage(text.to_owned()));
        };
        Ok(users.get(caller, &name).await?)
    }
}

/// From a terminal twice and without echo, or the first line of standard input.
fn read_password() -> Result<SecretString, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("no password could be read: {error}"));
    if io::stdin().is_terminal() {
        let ask = |prompt: &str| {
            let typed = rpassword::prompt_password(prompt).map_err(failed)?;
            Ok::<SecretString, Failure>(typed.into())
        };
        let (once, again) = (ask("Password: ")?, ask("Again: ")?);
        if once.expose_secret() != again.expose_secret() {
            return Err(Failure::Usage("the two passwords differ".to_owned()));
        }
        return not_empty(once);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let mut input = io::stdin().lock().take(INPUT_MAX);
    input.read_to_end(&mut bytes).map_err(failed)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::Usage("the password on standard input is not UTF-8".to_owned()))?;
    let line = text.split('\n').next().unwrap_or_default();
    not_empty(line.strip_suffix('\r').unwrap_or(line).to_owned().into())
}

fn not_empty(password: SecretString) -> Result<SecretString, Failure> {
    if password.expose_secret().is_empty() {
        return Err(Failure::Usage(
            "a password is needed, as the first line of standard input or typed".to_owned(),
        ));
    }
    Ok(password)
}

fn print_one(user: &Stored, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print(&format!("{:#}\n", as_object(user)));
    }
    print(&rows(std::slice::from_ref(user)))
}

fn as_object(user: &Stored) -> serde_json::Value {
    json!({
        "id": user.id,
        "tenant": user.tenant,
        "email": user.email,
        "email_verified": user.email_verified,
        "display_name": user.display_name,
        "role": user.role.as_str(),
        "constraints": user.constraints,
        "owner": user.owner,
        "state": user.state.as_str(),
        "has_password": user.password_hash.is_some(),
        "created_at": user.created_at.to_string(),
        "updated_at": user.updated_at.to_string(),
        "last_sign_in_at": user.last_sign_in_at.map(|at| at.to_string()),
    })
}

fn rows(users: &[Stored]) -> String {
    let never = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let rows: Vec<_> = users
        .iter()
        .map(|user| {
            [
                user.id.clone(),
                user.email.clone(),
                user.display_name.clone(),
                user.role.as_str().to_owned(),
                user.owner.clone(),
                user.state.as_str().to_owned(),
                if user.password_hash.is_some() {
                    "yes"
                } else {
                    "no"
                }
                .to_owned(),
                never(user.last_sign_in_at),
            ]
        })
        .collect();
    let headings = [
        "ID",
        "EMAIL",
        "NAME",
        "ROLE",
        "OWNER",
        "STATE",
        "PASSWORD",
        "LAST SIGN-IN",
    ];
    table(headings, &rows)
}
