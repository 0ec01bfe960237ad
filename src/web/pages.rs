//! The pages a person sees in the browser: a failed sign-in, a finished one, a link that is gone; those
//! of our own authorisation server are in `issuer`.
//!
//! They are whole documents without a script, an image or a second request, so the policy sent with
//! them can forbid everything but their one inline style. Text that came from a provider or out of a
//! query string is shown as text only: escaped by the template, stripped of control and direction
//! characters, cut to a length, and never made a link.

pub mod issuer;

use askama::Template;
use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use url::Url;

/// The one style sheet, inlined by `templates/layout.html`.
const CSS: &str = include_str!("../../templates/page.css");

/// What a page may do: apply the style sheet above, known by its SHA-256, and nothing else.
/// A test compares the digest with `templates/page.css` and prints the one to write here.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-DBfgK2L73RUtAhrVfKY0CPtkRex2fZiHo18nuARqvHc='; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Longest provider error code shown, in characters. RFC 6749 sets no limit; real codes have under 60.
const CODE_LIMIT: usize = 80;
/// Longest provider description shown, in characters.
const DESCRIPTION_LIMIT: usize = 400;
/// Longest provider or account name shown, in characters.
const NAME_LIMIT: usize = 120;

/// What the failure page says.
#[derive(Clone, Debug)]
pub struct Failure<'a> {
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// A heading of a few words, without a full stop.
    pub title: &'a str,
    /// What happened, in words for the person at the browser.
    pub message: &'a str,
    /// The provider's `error` (RFC 6749 section 4.1.2.1), where it sent one. Cleaned and cut to 80
    /// characters here.
    pub provider_code: Option<&'a str>,
    /// The provider's `error_description`, where it sent one. Cleaned and cut to 400 characters here.
    /// Pass it only when the request's `state` was ours: anybody can write a link with another text.
    pub provider_description: Option<&'a str>,
    /// What the person can do now.
    pub advice: &'a str,
    /// What finds this failure again: the authorisation's id, or the trace id where there is none.
    pub reference: &'a str,
}

/// What the page after a finished connection says.
#[derive(Clone, Debug)]
pub struct Connected<'a> {
    /// The provider's display name, such as `GitHub`.
    pub provider: &'a str,
    /// The account's display name at the provider, where it told one.
    pub account: Option<&'a str>,
}

/// Why a connect link no longer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkGone {
    /// Its time ran out before anybody finished.
    Expired,
    /// It was finished before, by this person or another.
    Used,
}

/// The page for an authorisation that failed, with the status, the provider's answer and a reference.
pub fn failure(failure: Failure<'_>) -> Response<Body> {
    let page = FailurePage {
        title: failure.title,
        message: failure.message,
        code: failure.provider_code.and_then(error_code),
        description: failure
            .provider_description
            .and_then(|text| plain(text, DESCRIPTION_LIMIT)),
        advice: failure.advice,
        reference: failure.reference,
    };
    respond(failure.status, &page)
}

/// The page for an account that is connected, when the caller named no `return_url` (200 OK).
pub fn connected(connected: Connected<'_>) -> Response<Body> {
    let page = ConnectedPage {
        provider: plain(connected.provider, NAME_LIMIT).unwrap_or_else(|| "The account".to_owned()),
        account: connected.account.and_then(|name| plain(name, NAME_LIMIT)),
    };
    respond(StatusCode::OK, &page)
}

/// The page for a connect link that expired or was used up (410 Gone).
pub fn link_gone(why: LinkGone) -> Response<Body> {
    let page = match why {
        LinkGone::Expired => NoticePage {
            mark: Mark::Clock,
            title: "This link has expired",
            message: "Links for connecting an account work for a short time only, and this one’s time \
                      is over. Nothing was connected and nothing has changed.",
            advice: "Go back to the application that gave you the link and ask it for a new one.",
        },
        LinkGone::Used => NoticePage {
            mark: Mark::Link,
            title: "This link was already used",
            message: "A link for connecting an account works once, and this one has done its work.",
            advice: "If you connected the account yourself, all is well and you can close this window. \
                     If you did not, ask the application that gave you the link for a new one.",
        },
    };
    respond(StatusCode::GONE, &page)
}

/// The page for an address that leads nowhere (404 Not Found). A link that never existed gets it too,
/// so the answer does not tell a guessed link from a mistyped one.
pub fn not_found() -> Response<Body> {
    let page = NoticePage {
        mark: Mark::Search,
        title: "There is nothing here",
        message: "The address leads to no page. A link copied from a message may have lost its end.",
        advice: "Open the whole link again, or ask the application that gave it to you for a new one.",
    };
    respond(StatusCode::NOT_FOUND, &page)
}

/// 303 See Other to `location`, with the headers of [`security_headers`]: the browser follows with GET,
/// keeps no copy, and tells the next site no address of ours (ours may hold a code or a state).
pub fn see_other(location: &Url) -> Response<Body> {
    // A serialised URL is visible ASCII, so this holds; were it ever not so, no half-read redirect goes out.
    let Ok(location) = HeaderValue::try_from(location.as_str()) else {
        return not_found();
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    *response.headers_mut() = security_headers();
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// The headers of every answer of the browser listener, pages and redirects alike.
pub fn security_headers() -> HeaderMap {
    const HEADERS: [(HeaderName, &str); 7] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ];
    HEADERS
        .into_iter()
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect()
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    title: &'a str,
    message: &'a str,
    code: Option<String>,
    description: Option<String>,
    advice: &'a str,
    reference: &'a str,
}

#[derive(Template)]
#[template(path = "connected.html")]
struct ConnectedPage {
    provider: String,
    account: Option<String>,
}

#[derive(Template)]
#[template(path = "notice.html")]
struct NoticePage {
    mark: Mark,
    title: &'static str,
    message: &'static str,
    advice: &'static str,
}

/// The drawing above a notice.
enum Mark {
    Clock,
    Link,
    Search,
}

fn respond(status: StatusCode, page: &impl Template) -> Response<Body> {
    // The templates write to a string, which cannot fail; the status still says what happened if it did.
    let html = page.render().unwrap_or_default();
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    *response.headers_mut() = security_headers();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    response
}

/// A provider's error code reduced to what RFC 6749 section 4.1.2.1 allows in one (visible ASCII but `"`
/// and `\`) and to [`CODE_LIMIT`]; nothing when nothing is left.
fn error_code(code: &str) -> Option<String> {
    let kept: String = code
        .chars()
        .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
        .collect();
    plain(&kept, CODE_LIMIT)
}

/// `text` on one line, without characters that are invisible or turn the reading direction, and with an
/// ellipsis in place of what is past `limit` characters; nothing when nothing is left.
fn plain(text: &str, limit: usize) -> Option<String> {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        let mut word = word.chars().filter(|c| !is_invisible(*c)).peekable();
        if word.peek().is_some() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word);
        }
    }
    if let Some((cut, _)) = line.char_indices().nth(limit) {
        line.truncate(cut);
        line.push('…');
    }
    (!line.is_empty()).then_some(line)
}

/// Zero-width, direction and tag characters (Unicode category Cf and its neighbours): they can hide or
/// reorder text. The joiners U+200C and U+200D stay, since Persian and Indic scripts and emoji need them.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}' | '\u{200E}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use base64::Engine;
    use sha2::Digest;

    const EXAMPLE: Failure<'static> = Failure {
        status: StatusCode::BAD_GATEWAY,
        title: "The account was not connected",
        message: "Example refused the request.",
        provider_code: None,
        provider_description: None,
        advice: "Try again.",
        reference: "auth_01h455vb4pex5vsknk084sn02q",
    };

    async fn text(response: Response<Body>) -> String {
        let bytes = to_bytes(response.into_body(), 64 * 1024)
            .await
            .expect("a body");
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn the_policy_names_the_style_sheet_as_it_is() {
        let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(CSS));
        assert!(
            CONTENT_SECURITY_POLICY.contains(&format!("style-src 'sha256-{digest}';")),
            "templates/page.css changed: write sha256-{digest} in CONTENT_SECURITY_POLICY"
        );
    }

    #[tokio::test]
    async fn every_page_is_whole_and_carries_the_headers() {
        let pages = [
            (failure(EXAMPLE), StatusCode::BAD_GATEWAY),
            (
                connected(Connected {
                    provider: "GitHub",
                    account: Some("octocat"),
                }),
                StatusCode::OK,
            ),
            (link_gone(LinkGone::Expired), StatusCode::GONE),
            (link_gone(LinkGone::Used), StatusCode::GONE),
            (not_found(), StatusCode::NOT_FOUND),
        ];
        for (page, status) in pages {
            assert_eq!(page.status(), status);
            assert_eq!(
                page.headers()[header::CONTENT_TYPE],
                "text/html; charset=utf-8"
            );
            for (name, value) in &security_headers() {
                assert_eq!(page.headers().get(name), Some(value), "{name}");
            }
            let html = text(page).await;
            assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
            assert!(
                html.contains(&format!("<style>{CSS}</style>")),
                "the style the digest was made of"
            );
            for part in ["<html lang=\"en\">", "<main>", "<h1>"] {
                assert_eq!(html.matches(part).count(), 1, "{part}");
            }
            for banned in ["<script", "<link", "<img", " src=", " href=", " style="] {
                assert!(!html.contains(banned), "{banned}");
            }
        }
    }

    #[tokio::test]
    async fn a_providers_words_are_shown_as_text() {
        let html = text(failure(Failure {
            provider_code: Some("access_denied\"\u{202e}\n<b>"),
            provider_description: Some("<script>alert(1)</script>\u{202e}\r\n  call\u{200b} us"),
            ..EXAMPLE
        }))
        .await;
        assert!(!html.contains("<script"));
        assert!(html.contains("access_denied&#60;b&#62;"));
        assert!(html.contains("&#60;script&#62;alert(1)&#60;/script&#62; call us"));
    }

    #[tokio::test]
    async fn an_answer_without_words_leaves_no_empty_box() {
        let empty = Failure {
            provider_code: Some("\u{7}"),
            provider_description: Some(" \n"),
            ..EXAMPLE
        };
        assert!(!text(failure(empty)).await.contains("<dl"));
        assert!(
            !text(connected(Connected {
                provider: "X",
                account: Some("")
            }))
            .await
            .contains("Account<")
        );
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(plain(&"é".repeat(5), 5).as_deref(), Some("ééééé"));
        assert_eq!(plain(&"é".repeat(6), 5).as_deref(), Some("ééééé…"));
        assert_eq!(plain("\u{feff}", 5), None);
    }

    #[test]
    fn a_redirect_is_seen_once_and_tells_nothing() {
        let url = Url::parse("https://app.example/done?código=1\n2").expect("a URL");
        let answer = see_other(&url);
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert_eq!(
            answer.headers()[header::LOCATION],
            "https://app.example/done?c%C3%B3digo=12"
        );
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers()[header::REFERRER_POLICY], "no-referrer");
    }
}
