//! The made-up person's browser: it keeps cookies, follows redirects within the service, and fills in
//! forms. It sends nothing anywhere else.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::Trouble;

/// More redirects than this in a row are a loop.
const LONGEST_WALK: usize = 10;

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody with a browser.
pub(super) struct Person {
    client: Client,
    /// Where the pages are. Cookies are for this place alone.
    home: Url,
    cookies: Vec<(String, String)>,
}

/// What a browser shows in the end.
pub(super) enum Seen {
    /// A page of ours.
    Page(Page),
    /// It was sent away, to this address, which is not opened.
    Away(Url),
}

/// A page.
pub(super) struct Page {
    url: Url,
    status: StatusCode,
    body: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Person {
    /// Somebody who has not been there before.
    ///
    /// # Errors
    /// No client can be made.
    pub(super) fn new(home: Url) -> Result<Self, Trouble> {
        Ok(Self {
            client: client()?,
            home,
            cookies: Vec::new(),
        })
    }

    /// Opens an address.
    ///
    /// # Errors
    /// It does not answer, or redirects do not end.
    pub(super) async fn open(&mut self, url: &str) -> Result<Seen, Trouble> {
        let url = Url::parse(url).map_err(|_| Trouble("a link is no address".to_owned()))?;
        self.walk(Method::GET, url, String::new()).await
    }

    /// Sends a page's form back to it: its hidden fields, and what is filled in.
    ///
    /// # Errors
    /// As [`Person::open`].
    pub(super) async fn submit(
        &mut self,
        page: &Page,
        filled: &[(&str, &str)],
    ) -> Result<Seen, Trouble> {
        let hidden = hidden_fields(&page.body);
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(hidden)
            .extend_pairs(filled)
            .finish();
        self.walk(Method::POST, page.url.clone(), form).await
    }

    async fn walk(
        &mut self,
        mut method: Method,
        mut url: Url,
        mut form: String,
    ) -> Result<Seen, Trouble> {
        for _ in 0..LONGEST_WALK {
            if url.origin() != self.home.origin() {
                return Ok(Seen::Away(url));
            }
            let answer = self.ask(method, &url, form).await?;
            let next = answer.headers.get(LOCATION);
            let next = next.and_then(|to| url.join(to.to_str().ok()?).ok());
            match next.filter(|_| answer.status.is_redirection()) {
                Some(next) => url = next,
                None => {
                    return Ok(Seen::Page(Page {
                        url,
                        status: answer.status,
                        body: answer.body,
                    }));
                }
            }
            (method, form) = (Method::GET, String::new());
        }
        Err(Trouble("the redirects do not end".to_owned()))
    }

    async fn ask(&mut self, method: Method, url: &Url, form: String) -> Result<Answer, Trouble> {
        let mut request = self.client.request(method.clone(), url.clone());
        if !self.cookies.is_empty() {
            let pairs = self.cookies.iter();
            let pairs: Vec<_> = pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            request = request.header(COOKIE, pairs.join("; "));
        }
        if method == Method::POST {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form);
        }
        let answer = send(request, url).await?;
        for header in answer.headers.get_all(SET_COOKIE) {
            let parts = header.to_str().ok().and_then(|text| {
                let (pair, attributes) = text.split_once(';').unwrap_or((text, ""));
                Some((pair.split_once('=')?, attributes))
            });
            let Some(((name, value), attributes)) = parts else {
                continue;
            };
            self.cookies.retain(|(held, _)| held != name);
            if !attributes.split(';').any(|it| it.trim() == "Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(answer)
    }
}

impl Seen {
    /// The page that must be seen at this point.
    ///
    /// # Errors
    /// It is another, or none.
    pub(super) fn page(self, path: &str) -> Result<Page, Trouble> {
        match self {
            Self::Page(page) if page.status.is_success() && page.url.path().contains(path) => {
                Ok(page)
            }
            Self::Page(page) => Err(page.unexpected(path)),
            Self::Away(url) => Err(Trouble(format!(
                "the browser was sent to {} in place of {path}",
                bare(&url)
            ))),
        }
    }

    /// Where the browser must be sent at this point.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn away(self) -> Result<Url, Trouble> {
        match self {
            Self::Away(url) => Ok(url),
            Self::Page(page) => Err(page.unexpected("the product's page")),
        }
    }
}

impl Page {
    /// Its heading.
    pub(super) fn heading(&self) -> String {
        let headings = texts(&self.body, "<h1>", "</h1>");
        headings.into_iter().next().unwrap_or_default()
    }

    /// The lines of its lists.
    pub(super) fn items(&self) -> Vec<String> {
        texts(&self.body, "<li>", "</li>")
    }

    fn unexpected(&self, wanted: &str) -> Trouble {
        Trouble(format!(
            "the browser shows {} ({}, {:?}) in place of {wanted}",
            bare(&self.url),
            self.status.as_u16(),
            self.heading()
        ))
    }
}

/// Reads JSON with an access token, as a service that was given one would.
///
/// # Errors
/// It is refused, or what comes is no JSON.
pub(super) async fn read_with_token(url: &str, token: &SecretString) -> Result<Value, Trouble> {
    let url = Url::parse(url).map_err(|_| Trouble(format!("{url} is no address")))?;
    let bearer = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    let request = client()?
        .get(url.clone())
        .header(AUTHORIZATION, bearer.as_str());
    let answer = send(request, &url).await?;
    if !answer.status.is_success() {
        let (at, status) = (bare(&url), answer.status.as_u16());
        return Err(Trouble(format!("{at} answered {status}")));
    }
    serde_json::from_str(&answer.body).map_err(|_| Trouble(format!("{} sent no JSON", bare(&url))))
}

async fn send(request: reqwest::RequestBuilder, url: &Url) -> Result<Answer, Trouble> {
    let broken = |error: reqwest::Error| {
        let error = error.without_url();
        Trouble(format!("{} does not answer: {error}", bare(url)))
    };
    let answer = request.send().await.map_err(broken)?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.text().await.map_err(broken)?;
    Ok(Answer {
        status,
        headers,
        body,
    })
}

/// For plain HTTP on loopback: no proxy, no redirects of its own, no certificate trusted.
fn client() -> Result<Client, Trouble> {
    Client::builder()
        .redirect(Policy::none())
        .timeout(PATIENCE)
        .no_proxy()
        .tls_certs_only(Vec::new())
        .build()
        .map_err(|error| Trouble(format!("no browser can be made: {error}")))
}

/// The hidden fields of a page's form. Their values are base64url, so nothing in them is escaped.
fn hidden_fields(body: &str) -> Vec<(&str, &str)> {
    body.split("<input ")
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
        .filter(|input| between(input, "type=\"", "\"") == Some("hidden"))
        .filter_map(|input| {
            let name = between(input, "name=\"", "\"")?;
            Some((name, between(input, "value=\"", "\"")?))
        })
        .collect()
}

/// The texts of elements, without the markup in them.
fn texts(body: &str, open: &str, close: &str) -> Vec<String> {
    let inner = body.split(open).skip(1);
    let inner = inner.filter_map(|rest| rest.split_once(close));
    inner
        .map(|(inner, _)| {
            let mut text = String::new();
            let mut within = true;
            for c in inner.chars() {
                match c {
                    '<' => within = false,
                    '>' => within = true,
                    c if within => text.push(c),
                    _ => {}
                }
            }
            text
        })
        .collect()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// An address without its query, which can hold codes.
fn bare(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_far_as_it_must_be() {
        let body = "<h1>Allow <b>Acme</b>?</h1><form><input type=\"hidden\" name=\"csrf\" value=\"a-b\">\
                    <input id=\"email\" name=\"email\" type=\"email\" value=\"x\"></form><li>See</li>";
        assert_eq!(hidden_fields(body), [("csrf", "a-b")]);
        assert_eq!(texts(body, "<h1>", "</h1>"), ["Allow Acme?"]);
        assert_eq!(texts(body, "<li>", "</li>"), ["See"]);
    }
}
