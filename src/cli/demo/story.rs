//! What happens in the demo, step by step. Each step shows what it does while it does it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future;
use secrecy::SecretString;
use serde_json::json;
use url::Url;

use super::Trouble;
use super::calls::{Calls, mask};
use super::events::Watcher;
use super::ground::Ground;
use super::person::{self, Person};
use super::stage::{CLIENT_SECRET, Stage, quoted};
use crate::cli::Failure;
use crate::clock::Clock;
use crate::pb;
use crate::pb::json::{duration, structure};

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the provider's access tokens live.
const TOKEN_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// How many ask for a token at once.
const CALLERS: usize = 100;

const PASSWORD: &str = "a quiet lighthouse at noon";

/// Ada, as the product that uses the broker calls her.
const OWNER: &str = "ada";

/// The page of the product that the browser comes back to. It is not opened.
const RETURN_URL: &str = "https://product.example/connected";

const SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// What the story is told with.
pub(super) struct Story<'a> {
    pub(super) ground: &'a Ground,
    pub(super) calls: Calls,
    pub(super) stage: &'a Stage,
    pub(super) clock: &'a Clock,
    pub(super) web: SocketAddr,
    pub(super) issuer: SocketAddr,
    /// Ends names that must be new.
    pub(super) mark: &'a str,
}

/// An OAuth client of our own authorisation server.
struct Client {
    id: String,
    secret: SecretString,
}

/// A connection, and the token that it gave.
struct Held {
    connection: String,
    token: String,
}

impl Story<'_> {
    /// Tells it. The watcher goes on showing events.
    ///
    /// # Errors
    /// The step that failed or took too long, and why.
    pub(super) async fn tell(&self) -> Result<Watcher, Failure> {
        let client = step(1, self.register_client()).await?;
        step(2, self.create_user()).await?;
        step(3, self.create_provider()).await?;
        let app = step(4, self.create_app(&client)).await?;
        let mut watcher = step(5, self.watch()).await?;
        let connection = step(6, self.connect(&app, &mut watcher)).await?;
        let held = step(7, self.use_token(connection)).await?;
        step(8, self.refresh_once(&held, &mut watcher)).await?;
        Ok(watcher)
    }

    async fn register_client(&self) -> Result<Client, Trouble> {
        self.stage.step(
            1,
            "A third party registers with our authorisation server",
            &[
                "It has a client id and a secret, shown once and kept as a hash. Nothing is issued to",
                "it until somebody approves it.",
            ],
        )?;
        // Where people are sent back to is known once there is an app.
        let redirect_uri = format!("http://{}/callback/later", self.web);
        let request = pb::CreateClientRequest {
            client: Some(pb::Client {
                name: "Calendar".to_owned(),
                auth_method: pb::ClientAuthMethod::ClientSecretBasic.into(),
                redirect_uris: vec![redirect_uri.clone()],
                allowed_scopes: scopes(),
                access_token_lifetime: Some(duration(TOKEN_LIFETIME)),
                ..pb::Client::default()
            }),
            ..pb::CreateClientRequest::default()
        };
        let made = self.calls.create_client(request).await?;
        let id = made.client.ok_or_else(|| missing("client"))?.id;
        let secret = SecretString::from(made.client_secret);
        let file = self.ground.keep_client_secret(&secret)?;
        self.stage.done(&format!("registered {id}"))?;
        let shown = json!({ "client": {
            "name": "Calendar", "auth_method": "CLIENT_AUTH_METHOD_CLIENT_SECRET_BASIC",
            "redirect_uris": [redirect_uri], "allowed_scopes": SCOPES,
            "access_token_lifetime": format!("{}s", TOKEN_LIFETIME.as_secs()),
        } });
        self.stage.call("ClientRegistry/CreateClient", &shown)?;
        self.stage
            .shell(&format!("SECRET=$(cat {})", quoted(&file)))?;
        let request = pb::ApproveClientRequest {
            client_id: id.clone(),
            ..pb::ApproveClientRequest::default()
        };
        self.calls.approve_client(request).await?;
        self.stage.done("approved it")?;
        let shown = json!({ "client_id": id });
        self.stage.call("ClientRegistry/ApproveClient", &shown)?;
        Ok(Client { id, secret })
    }

    async fn create_user(&self) -> Result<(), Trouble> {
        self.stage.step(
            2,
            "Ada gets an account at the provider",
            &["Passwords are hashed with Argon2id, and wrong ones are slowed down."],
        )?;
        let email = self.email();
        let request = pb::CreateUserRequest {
            email: email.clone(),
            email_verified: true,
            display_name: "Ada Lovelace".to_owned(),
            password: PASSWORD.to_owned(),
            ..pb::CreateUserRequest::default()
        };
        let made = self.calls.create_user(request).await?;
        let id = made.user.ok_or_else(|| missing("user"))?.id;
        self.stage
            .done(&format!("{email} is {id}; password: {PASSWORD}"))?;
        let shown = json!({
            "email": email, "email_verified": true, "display_name": "Ada Lovelace", "password": PASSWORD,
        });
        Ok(self.stage.call("Administration/CreateUser", &shown)?)
    }

    async fn create_provider(&self) -> Result<(), Trouble> {
        self.stage.step(
            3,
            "The broker meets a provider: itself",
            &[
                "Providers are data. This one's endpoints are discovered from its issuer's address, as",
                "those of any OpenID provider; what discovery can't tell is given.",
            ],
        )?;
        let (provider_id, issuer) = (self.provider(), format!("http://{}", self.issuer));
        let definition = json!({
            "display_name": "Demo", "authorization_params": { "prompt": "consent" }, "rotation": "always",
        });
        let request = pb::CreateProviderRequest {
            provider_id: provider_id.clone(),
            issuer: issuer.clone(),
            definition: definition.as_object().map(structure),
            ..pb::CreateProviderRequest::default()
        };
        self.calls.create_provider(request).await?;
        self.stage
            .done(&format!("provider {provider_id}, found at {issuer}"))?;
        let shown =
            json!({ "provider_id": provider_id, "issuer": issuer, "definition": definition });
        Ok(self.stage.call("ClientRegistry/CreateProvider", &shown)?)
    }

    async fn create_app(&self, client: &Client) -> Result<String, Trouble> {
        use secrecy::ExposeSecret as _;
        self.stage.step(
            4,
            "An app: our registration at that provider",
            &[
                "The broker seals the client's secret, and says where the provider is to send people",
                "back to. The provider takes that address and no other.",
            ],
        )?;
        let request = pb::CreateAppRequest {
            app: Some(pb::App {
                provider: self.provider(),
                client_id: client.id.clone(),
                display_name: "Calendar".to_owned(),
                default_scopes: scopes(),
                allowed_return_urls: vec![RETURN_URL.to_owned()],
                ..pb::App::default()
            }),
            client_secret: client.secret.expose_secret().to_owned(),
            ..pb::CreateAppRequest::default()
        };
        let made = self.calls.create_app(request).await?;
        let app = made.app.ok_or_else(|| missing("app"))?;
        self.stage.done(&format!("made {}", app.id))?;
        let shown = json!({
            "app": {
                "provider": self.provider(), "client_id": client.id, "display_name": "Calendar",
                "default_scopes": SCOPES, "allowed_return_urls": [RETURN_URL],
            },
            "client_secret": CLIENT_SECRET,
        });
        self.stage.call("ClientRegistry/CreateApp", &shown)?;
        let request = pb::UpdateClientRequest {
            client: Some(pb::Client {
                id: client.id.clone(),
                redirect_uris: vec![app.callback_url.clone()],
                ..pb::Client::default()
            }),
            update_mask: Some(mask("redirect_uris")),
        };
        self.calls.update_client(request).await?;
        self.stage
            .done(&format!("people come back to {}", app.callback_url))?;
        let shown = json!({
            "client": { "id": client.id, "redirect_uris": [app.callback_url] },
            "update_mask": "redirectUris",
        });
        self.stage.call("ClientRegistry/UpdateClient", &shown)?;
        Ok(app.id)
    }

    async fn watch(&self) -> Result<Watcher, Trouble> {
        self.stage.step(
            5,
            "A service follows what happens to connections",
            &[
                "Events are written in the transaction that causes them, so a watcher that resumes from",
                "its last cursor misses none. From here on they are shown as they come.",
            ],
        )?;
        let watcher = Watcher::begin(&self.calls, self.stage).await?;
        self.stage.done("watching")?;
        let shown = json!({});
        self.stage.call("TokenBroker/WatchTokenEvents", &shown)?;
        Ok(watcher)
    }

    async fn connect(&self, app: &str, watcher: &mut Watcher) -> Result<String, Trouble> {
        self.stage.step(
            6,
            "Ada connects her account",
            &[
                "A product asks for a link and sends her browser there. She signs in at the provider and",
                "agrees; the connection counts once the product says that she is who is signed in there,",
                "so nobody can connect an account by sending somebody a link.",
            ],
        )?;
        let request = pb::StartAuthorizationRequest {
            app: app.to_owned(),
            owner: OWNER.to_owned(),
            return_url: RETURN_URL.to_owned(),
            // Refreshed ahead of its end otherwise, before the callers of step 8 come.
            refresh_policy: pb::RefreshPolicy::OnDemand.into(),
            ..pb::StartAuthorizationRequest::default()
        };
        let started = self.calls.start_authorization(request).await?;
        self.stage.done("the product has a link for her browser")?;
        let shown = json!({
            "app": app, "owner": OWNER, "return_url": RETURN_URL,
            "refresh_policy": "REFRESH_POLICY_ON_DEMAND",
        });
        self.stage.call("TokenBroker/StartAuthorization", &shown)?;

        let back = self.browse(&started.connect_url).await?;
        let authorization_id = query(&back, "authorization_id")?;
        let confirmation_code = query(&back, "confirmation_code")?;
        self.stage
            .done(&format!("back at {RETURN_URL}, with a confirmation code"))?;
        let shown = json!({
            "authorization_id": authorization_id, "confirmation_code": confirmation_code, "owner": OWNER,
        });
        let request = pb::ConfirmAuthorizationRequest {
            authorization_id,
            confirmation_code,
            owner: OWNER.to_owned(),
        };
        let confirmed = self.calls.confirm_authorization(request).await?;
        let connection = confirmed.connection.ok_or_else(|| missing("connection"))?;
        watcher
            .seen(pb::TokenEventType::Activated, &connection.id)
            .await?;
        let pb::Connection { id, email, .. } = connection;
        self.stage
            .done(&format!("{id} is active, for {email}; the code is spent"))?;
        self.stage
            .call("TokenBroker/ConfirmAuthorization", &shown)?;
        Ok(id)
    }

    /// Ada's browser, from the link to where the product takes over.
    async fn browse(&self, connect_url: &str) -> Result<Url, Trouble> {
        let home = Url::parse(&format!("http://{}/", self.web));
        let home = home.map_err(|error| Trouble(error.to_string()))?;
        let mut ada = Person::new(home)?;
        let sign_in = ada.open(connect_url).await?.page("oauth2/sign-in/")?;
        self.stage
            .done(&format!("her browser shows: {}", sign_in.heading()))?;
        let email = self.email();
        let filled = [("email", email.as_str()), ("password", PASSWORD)];
        let consent = ada.submit(&sign_in, &filled).await?;
        let consent = consent.page("oauth2/consent/")?;
        self.stage.done(&format!("then: {}", consent.heading()))?;
        for wish in consent.items() {
            self.stage.point(&wish)?;
        }
        let agreed = ada.submit(&consent, &[("decision", "allow")]).await?;
        agreed.away()
    }

    async fn use_token(&self, connection: String) -> Result<Held, Trouble> {
        self.stage.step(
            7,
            "A service works with her account",
            &[
                "It asks the broker for a token that is good now, and calls the provider with it. It",
                "never sees a refresh token, nor a secret of the client.",
            ],
        )?;
        let token = self.token(&connection).await?;
        let lives = humantime::format_duration(TOKEN_LIFETIME);
        self.stage.done(&format!(
            "access token {}, good for {lives}",
            shortened(&token)
        ))?;
        let shown = json!({ "connection_id": connection });
        self.stage.call("TokenBroker/GetAccessToken", &shown)?;
        let endpoint = format!("http://{}/oauth2/userinfo", self.issuer);
        let claims = person::read_with_token(&endpoint, &token.clone().into()).await?;
        let claim = |name: &str| claims.get(name).and_then(|it| it.as_str()).unwrap_or("?");
        let (name, email) = (claim("name"), claim("email"));
        self.stage
            .done(&format!("the provider says with it: {name}, {email}"))?;
        let pasted = "curl -H \"authorization: Bearer ACCESS_TOKEN\"";
        self.stage.shell(&format!("{pasted} {endpoint}"))?;
        Ok(Held { connection, token })
    }

    async fn refresh_once(&self, held: &Held, watcher: &mut Watcher) -> Result<(), Trouble> {
        self.stage.step(
            8,
            &format!("The token ends, and {CALLERS} callers come at once"),
            &[
                "The provider takes each refresh token once. Two refreshes at the same time would end",
                "the grant, and Ada would have to agree again. So there is one, and all wait for it.",
            ],
        )?;
        let ahead = TOKEN_LIFETIME + Duration::from_secs(1);
        self.clock.advance(ahead);
        let ahead = humantime::format_duration(ahead);
        self.stage
            .done(&format!("the demo's clock is moved {ahead} ahead"))?;
        let began = Instant::now();
        let asking = (0..CALLERS).map(|_| self.token(&held.connection));
        let tokens = future::try_join_all(asking).await?;
        let took = began.elapsed().as_millis();
        let different: HashSet<&String> = tokens.iter().collect();
        if different.contains(&held.token) {
            return Err(Trouble("a caller got the token that has ended".to_owned()));
        }
        let [new] = Vec::from_iter(different)[..] else {
            return Err(Trouble("the callers got different tokens".to_owned()));
        };
        watcher
            .seen(pb::TokenEventType::Refreshed, &held.connection)
            .await?;
        let new = shortened(new);
        self.stage.done(&format!(
            "{CALLERS} callers, 1 new token ({new}), all within {took} ms"
        ))?;
        let request = pb::ListRefreshAttemptsRequest {
            connection_id: held.connection.clone(),
            ..pb::ListRefreshAttemptsRequest::default()
        };
        let attempts = self.calls.list_refresh_attempts(request).await?.attempts;
        let [attempt] = &attempts[..] else {
            let count = attempts.len();
            return Err(Trouble(format!("there were {count} refreshes")));
        };
        if attempt.outcome() != pb::RefreshOutcome::Succeeded {
            let code = &attempt.error_code;
            return Err(Trouble(format!("the refresh failed: {code}")));
        }
        let generation = attempt.generation;
        self.stage.done(&format!(
            "1 refresh at the provider ({}, on {}): generation {generation} became {}",
            attempt.id,
            attempt.trigger,
            generation + 1
        ))?;
        let shown = json!({ "connection_id": held.connection });
        self.stage.call("TokenBroker/ListRefreshAttempts", &shown)?;
        self.stage.told(&format!(
            "{CALLERS} callers, 1 refresh. That is what the broker is for."
        ))?;
        Ok(())
    }

    async fn token(&self, connection: &str) -> Result<String, Trouble> {
        let request = pb::GetAccessTokenRequest {
            connection_id: connection.to_owned(),
            ..pb::GetAccessTokenRequest::default()
        };
        let answer = self.calls.get_access_token(request).await?;
        let token = answer.token.ok_or_else(|| missing("token"))?;
        Ok(token.access_token)
    }

    fn email(&self) -> String {
        format!("ada{}@example.com", self.mark)
    }

    fn provider(&self) -> String {
        format!("demo{}", self.mark)
    }
}

/// A step, within its time.
async fn step<T>(
    number: u32,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Failure> {
    let failed = |why: String| Failure::Failed(format!("the demo failed in step {number}: {why}"));
    match tokio::time::timeout(PATIENCE, Box::pin(work)).await {
        Ok(outcome) => outcome.map_err(|trouble| failed(trouble.0)),
        Err(_) => Err(failed(format!("it took longer than {PATIENCE:?}"))),
    }
}

fn scopes() -> Vec<String> {
    SCOPES.map(str::to_owned).to_vec()
}

/// Enough of a token to tell it from others.
fn shortened(token: &str) -> String {
    let begin: String = token.chars().take(12).collect();
    format!("{begin}…")
}

/// What the product's page receives.
fn query(url: &Url, name: &str) -> Result<String, Trouble> {
    let mut pairs = url.query_pairs();
    let found = pairs.find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned()).ok_or_else(|| {
        let outcome = url.query_pairs().find(|(key, _)| key == "outcome");
        let outcome = outcome.map(|(_, value)| value.into_owned());
        Trouble(format!(
            "the browser came back without {name} (outcome: {})",
            outcome.unwrap_or_default()
        ))
    })
}

fn missing(what: &str) -> Trouble {
    Trouble(format!("the answer has no {what}"))
}
