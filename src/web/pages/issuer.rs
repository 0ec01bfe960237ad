//! The pages of our own authorisation server: sign-in, consent, a device's code, refusals. Those with a
//! form are the only ones that may send one, and only to where it has to go.

use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use url::Url;

use super::{
    CONTENT_SECURITY_POLICY, CSS, DESCRIPTION_LIMIT, NAME_LIMIT, error_code, is_invisible, plain,
    respond,
};
use crate::access::users::EMAIL_MAX;
use crate::config;

/// Longest words for a scope, and longest resource shown, in characters.
const LINE_LIMIT: usize = 200;

/// Longest user code shown, in characters: twice what ours have.
const USER_CODE_LIMIT: usize = 32;

/// Why a form is shown once more.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// What is wrong and what to do, for the person at the browser.
    pub message: String,
    /// How long to wait before the next try.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// Whether what was typed is wrong. Whoever only has to wait is not told to correct anything.
    fn is_of_values(&self) -> bool {
        self.retry_after.is_none()
    }
}

/// What the sign-in page says.
#[derive(Clone, Debug)]
pub struct SignIn<'a> {
    /// The client's name.
    pub client: &'a str,
    /// Whether a device waits for it.
    pub device: bool,
    /// Proves that the form is ours.
    pub csrf: &'a str,
    /// What is in the field already.
    pub email: &'a str,
    /// What was wrong with the last try.
    pub problem: Option<&'a Problem>,
}

/// What the consent page says.
#[derive(Clone, Debug)]
pub struct Consent<'a> {
    /// The client's name.
    pub client: &'a str,
    /// What it says of itself; may be empty.
    pub description: &'a str,
    /// Its home page; may be empty. Never made a link.
    pub homepage_url: &'a str,
    /// Whether it is one of the tenant's own.
    pub trusted: bool,
    /// Who signed in: their e-mail address.
    pub account: &'a str,
    /// What it asks for, in words.
    pub scopes: Vec<&'a str>,
    /// For which resources.
    pub resources: &'a [String],
    /// Where the browser is sent; empty for a device.
    pub redirect_uri: &'a str,
    /// Proves that the form is ours.
    pub csrf: &'a str,
}

/// What the page for a device's code says.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// What is in the field already.
    pub code: &'a str,
    /// Proves that the form is ours.
    pub csrf: &'a str,
    /// Where the form leads besides our own pages: the operator's own application.
    pub next: Option<&'a Url>,
    /// What was wrong with the last try.
    pub problem: Option<&'a Problem>,
}

/// What the page for a request that can't go on says.
#[derive(Clone, Debug)]
pub struct Refusal<'a> {
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// A heading of a few words, without a full stop.
    pub title: &'a str,
    /// What happened, in words for the person at the browser.
    pub message: &'a str,
    /// The `error` of OAuth 2.0, and its description, for the client's developer.
    pub error: Option<(&'a str, &'a str)>,
    /// What the person can do now.
    pub advice: &'a str,
    /// What finds this in the log.
    pub reference: &'a str,
}

/// The page that asks who is there.
pub fn sign_in(page: &SignIn<'_>) -> Response<Body> {
    let shown = SignInPage {
        client: name(page.client),
        device: page.device,
        csrf: page.csrf,
        email: typed(page.email, EMAIL_MAX),
        problem: page.problem.map(|problem| problem.message.as_str()),
        invalid: page.problem.is_some_and(Problem::is_of_values),
    };
    form(&shown, page.problem, "'self'")
}

/// The page that asks whether the client may.
pub fn consent(page: &Consent<'_>) -> Response<Body> {
    let shown = ConsentPage {
        client: name(page.client),
        description: plain(page.description, DESCRIPTION_LIMIT),
        homepage: homepage(page.homepage_url),
        trusted: page.trusted,
        account: plain(page.account, NAME_LIMIT).unwrap_or_default(),
        scopes: lines(page.scopes.iter().copied()),
        resources: lines(page.resources.iter().map(String::as_str)),
        destination: Destination::of(page.redirect_uri),
        csrf: page.csrf,
    };
    form(&shown, None, &form_targets(page.redirect_uri))
}

/// The page for a device's code.
pub fn device(page: &Device<'_>) -> Response<Body> {
    let shown = DevicePage {
        code: typed(page.code, USER_CODE_LIMIT),
        csrf: page.csrf,
        problem: page.problem.map(|problem| problem.message.as_str()),
        invalid: page.problem.is_some_and(Problem::is_of_values),
    };
    let targets = form_targets(page.next.map_or("", Url::as_str));
    form(&shown, page.problem, &targets)
}

/// The page after a device's person has decided (200 OK).
pub fn device_done(accepted: bool) -> Response<Body> {
    respond(StatusCode::OK, &DeviceDonePage { accepted })
}

/// The page for a request that can't go on.
pub fn refusal(page: &Refusal<'_>) -> Response<Body> {
    let shown = RefusalPage {
        title: page.title,
        message: page.message,
        code: page.error.and_then(|(code, _)| error_code(code)),
        description: page
            .error
            .and_then(|(_, text)| plain(text, DESCRIPTION_LIMIT)),
        advice: page.advice,
        reference: page.reference,
    };
    respond(page.status, &shown)
}

/// A page whose form may be sent to `targets`, which are source expressions of CSP.
fn form(page: &impl Template, problem: Option<&Problem>, targets: &str) -> Response<Body> {
    let status = problem.map_or(StatusCode::OK, |problem| problem.status);
    let mut response = respond(status, page);
    let headers = response.headers_mut();
    let allowed = format!("form-action {targets}");
    let policy = CONTENT_SECURITY_POLICY.replace("form-action 'none'", &allowed);
    // Were it ever no header value, the page's form could go nowhere, which is the safe side.
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if let Some(wait) = problem.and_then(|problem| problem.retry_after) {
        let seconds = HeaderValue::from(wait.as_secs().max(1));
        headers.insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// Where a form may lead: to us, and by our redirect on to `then`, where that is a URL. Some browsers
/// apply `form-action` to all redirects that follow a form, the client's own too: by scheme, so that
/// one which sends people on to another host of its own does not strand them there.
fn form_targets(then: &str) -> String {
    match Url::parse(then) {
        Ok(url) if url.scheme() == "http" => "'self' http: https:".to_owned(),
        // A scheme is always a word (RFC 3986 section 3.1).
        Ok(url) => format!("'self' {}:", url.scheme()),
        Err(_) => "'self'".to_owned(),
    }
}

fn name(name: &str) -> String {
    plain(name, NAME_LIMIT).unwrap_or_else(|| "an application".to_owned())
}

/// What a field holds: it is sent again, so nothing is put into it that was not typed.
fn typed(text: &str, limit: usize) -> String {
    let visible = |c: &char| !c.is_control() && !is_invisible(*c);
    text.chars().filter(visible).take(limit).collect()
}

fn lines<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    texts.filter_map(|text| plain(text, LINE_LIMIT)).collect()
}

/// The host alone: what stands behind it could pretend to be another.
fn homepage(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    plain(url.host_str()?, NAME_LIMIT)
}

/// Where a browser goes on.
enum Destination {
    /// Nowhere: a device waits.
    Device,
    /// To a site, by its host and port.
    Site(String),
    /// To a program that listens on the person's own machine.
    Computer,
    /// To an app, by its scheme.
    App(String),
}

impl Destination {
    fn of(redirect_uri: &str) -> Self {
        let Ok(url) = Url::parse(redirect_uri) else {
            return Self::Device;
        };
        match (url.scheme(), url.host()) {
            ("http", _) if config::is_loopback(&url) => Self::Computer,
            // In its ASCII form: letters of another script can look like those of a known name.
            ("http" | "https", Some(host)) => {
                let port = url.port().map(|port| format!(":{port}"));
                Self::Site(format!("{host}{}", port.unwrap_or_default()))
            }
            _ => Self::App(url.scheme().to_owned()),
        }
    }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    client: String,
    device: bool,
    csrf: &'a str,
    email: String,
    problem: Option<&'a str>,
    invalid: bool,
}

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage<'a> {
    client: String,
    description: Option<String>,
    homepage: Option<String>,
    trusted: bool,
    account: String,
    scopes: Vec<String>,
    resources: Vec<String>,
    destination: Destination,
    csrf: &'a str,
}

#[derive(Template)]
#[template(path = "device.html")]
struct DevicePage<'a> {
    code: String,
    csrf: &'a str,
    problem: Option<&'a str>,
    invalid: bool,
}

#[derive(Template)]
#[template(path = "device_done.html")]
struct DeviceDonePage {
    accepted: bool,
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct RefusalPage<'a> {
    title: &'a str,
    message: &'a str,
    code: Option<String>,
    description: Option<String>,
    advice: &'a str,
    reference: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    async fn html(response: Response<Body>) -> String {
        let bytes = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn example<'a>(resources: &'a [String], redirect_uri: &'a str) -> Consent<'a> {
        Consent {
            client: "<b>Acme</b>\u{202e}",
            description: "",
            homepage_url: "https://acme.example/~bank.example",
            trusted: false,
            account: "ada@example.com",
            scopes: vec!["See your files"],
            resources,
            redirect_uri,
            csrf: "0a",
        }
    }

    #[tokio::test]
    async fn every_form_is_labelled_and_asks_for_nothing_from_elsewhere() {
        let problem = Problem {
            status: StatusCode::TOO_MANY_REQUESTS,
            message: "Wait.".to_owned(),
            retry_after: Some(Duration::from_millis(1)),
        };
        let asked = SignIn {
            client: "Acme",
            device: true,
            csrf: "0a",
            email: "\"ada",
            problem: Some(&problem),
        };
        let typed = Device {
            code: "BCDF",
            csrf: "0a",
            next: None,
            problem: None,
        };
        let again = sign_in(&asked);
        assert_eq!(again.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(again.headers()[header::RETRY_AFTER], "1");
        for page in [again, consent(&example(&[], "")), device(&typed)] {
            let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str();
            assert!(policy.unwrap().contains("form-action 'self';"));
            let html = html(page).await;
            assert!(html.contains("name=\"csrf\" value=\"0a\"") && html.contains("<main>"));
            for field in ["email", "password", "user_code"] {
                let there = html.contains(&format!("id=\"{field}\""));
                assert_eq!(there, html.contains(&format!("for=\"{field}\"")));
            }
            for banned in [
                "<script", "<link", "<img", " src=", " href=", " style=", "\"\"ada",
            ] {
                assert!(!html.contains(banned), "{banned}");
            }
        }
        let html = html(sign_in(&asked)).await;
        assert!(html.contains("role=\"alert\"") && html.contains("aria-describedby=\"problem\""));
        assert!(!html.contains("aria-invalid=\"true\""));
    }

    #[test]
    fn a_field_holds_what_was_typed() {
        let email = format!("{}@example.com", "é".repeat(EMAIL_MAX - 12));
        assert_eq!(typed(&email, EMAIL_MAX), email);
        assert_eq!(typed(&format!("{email}x"), EMAIL_MAX), email);
        assert_eq!(typed("a  b\u{202e}\n", EMAIL_MAX), "a  b");
    }

    #[tokio::test]
    async fn the_client_is_shown_for_what_it_is() {
        let html = html(consent(&example(&[], "https://acme.example:8443/cb?x"))).await;
        assert!(html.contains("&#60;b&#62;Acme&#60;/b&#62;"));
        assert!(html.contains("<strong>acme.example</strong>") && !html.contains("~bank"));
        assert!(html.contains("<strong>acme.example:8443</strong>"));
        assert!(html.contains("It is run by somebody else."));
        assert_eq!(html.matches("class=\"choice\"").count(), 2);
    }

    #[test]
    fn a_form_leads_to_the_client_and_nowhere_else() {
        for (redirect_uri, targets) in [
            ("", "'self'"),
            ("https://a;b*.example/cb?x#y", "'self' https:"),
            ("http://127.0.0.1:8000/", "'self' http: https:"),
            ("com.example.app:/cb", "'self' com.example.app:"),
        ] {
            assert_eq!(form_targets(redirect_uri), targets);
        }
    }

    #[test]
    fn a_destination_is_named_by_what_decides() {
        let named = |uri: &str| match Destination::of(uri) {
            Destination::Device => "device".to_owned(),
            Destination::Computer => "computer".to_owned(),
            Destination::Site(host) | Destination::App(host) => host,
        };
        assert_eq!(named("https://bücher.example/x"), "xn--bcher-kva.example");
        assert_eq!(named("http://localhost:1/x"), "computer");
        assert_eq!(named("https://localhost:1/x"), "localhost:1");
        assert_eq!(named("com.example.app://localhost/x"), "com.example.app");
        assert_eq!(named("com.example.app:/x"), "com.example.app");
        assert_eq!(named(""), "device");
    }
}
