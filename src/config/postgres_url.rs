//! PostgreSQL connection URLs: checking them without a connection, and making them from parts.
//!
//! The `url` crate knows one host a URL, while PostgreSQL's admit several
//! (`postgres://a:5432,b:5432/db`) and sockets (`?host=/run/postgresql`), so the authority is
//! split by hand. No error text holds any part of the URL, which may carry a password.

use zeroize::Zeroizing;

/// Whether this is a PostgreSQL URL.
pub(super) fn is_postgres(url: &str) -> bool {
    rest_of(url).is_some()
}

/// A URL cut at its delimiters.
struct Cut<'a> {
    scheme: &'a str,
    user_info: Option<&'a str>,
    hosts: &'a str,
    /// From the `/` on, without the query.
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Cut<'a> {
    fn new(url: &'a str) -> Option<Self> {
        let (scheme, rest) = rest_of(url)?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user_info, hosts) = match authority.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, authority),
        };
        Some(Self {
            scheme,
            user_info,
            hosts,
            path,
            query,
        })
    }

    fn joined(&self, user_info: Option<&str>, query: Option<&str>) -> Zeroizing<String> {
        let mut url = Zeroizing::new(self.scheme.to_owned());
        if let Some(user_info) = user_info {
            url.push_str(user_info);
            url.push('@');
        }
        url.push_str(self.hosts);
        url.push_str(self.path);
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            url.push('?');
            url.push_str(query);
        }
        url
    }

    fn parameters(&self) -> impl Iterator<Item = &'a str> {
        self.query.unwrap_or_default().split('&')
    }
}

fn rest_of(url: &str) -> Option<(&str, &str)> {
    ["postgres://", "postgresql://"]
        .into_iter()
        .find(|scheme| url.starts_with(scheme))
        .map(|scheme| url.split_at(scheme.len()))
}

/// What is wrong with a PostgreSQL URL, as far as can be told without a connection.
pub(super) fn problem(url: &str) -> Option<&'static str> {
    let Some(cut) = Cut::new(url) else {
        return Some("this does not begin with postgres://");
    };
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("this holds a blank or a control character; write it as %20 and so on");
    }
    let has_host = cut.parameters().any(|part| part.starts_with("host="));
    if cut.hosts.is_empty() && !has_host {
        return Some("this names no host");
    }
    for host in cut.hosts.split(',').filter(|_| !cut.hosts.is_empty()) {
        let after_brackets = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
        match after_brackets.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_err() => {
                return Some("a port in this is not a number up to 65535");
            }
            _ if host.is_empty() || host.starts_with(':') => {
                return Some("a host in this is empty");
            }
            _ => {}
        }
    }
    None
}

/// Takes `sslmode` out of a URL, where the driver would refuse libpq's `verify-full`.
pub(super) fn without_sslmode(url: &str) -> (Zeroizing<String>, Option<String>) {
    let Some(cut) = Cut::new(url) else {
        return (Zeroizing::new(url.to_owned()), None);
    };
    let mode = cut
        .parameters()
        .find_map(|part| part.strip_prefix("sslmode="))
        .map(str::to_owned);
    let kept: Vec<&str> = cut
        .parameters()
        .filter(|part| !part.starts_with("sslmode="))
        .collect();
    (cut.joined(cut.user_info, Some(&kept.join("&"))), mode)
}

/// Puts a password into a URL that names a user and no password yet.
pub(super) fn with_password(url: &str, password: &str) -> Result<Zeroizing<String>, &'static str> {
    let cut = Cut::new(url).ok_or("this does not begin with postgres://")?;
    let user = match cut.user_info {
        None | Some("") => return Err("the URL names no user whom the password could belong to"),
        Some(user) if user.contains(':') => return Err("database.url holds a password already"),
        Some(user) => user,
    };
    let user_info = Zeroizing::new(format!("{user}:{}", encoded(password).as_str()));
    Ok(cut.joined(Some(&user_info), cut.query))
}

/// The parts of a connection, as they are written in the configuration.
pub(super) struct Parts<'a> {
    /// A name, an address, or the folder of a socket.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) name: &'a str,
    pub(super) user: &'a str,
    pub(super) password: Option<&'a str>,
}

/// A URL made of parts, each percent-encoded (RFC 3986 section 2.1).
pub(super) fn from_parts(parts: &Parts<'_>) -> Zeroizing<String> {
    let mut url = Zeroizing::new(format!("postgres://{}", encoded(parts.user).as_str()));
    if let Some(password) = parts.password {
        url.push(':');
        url.push_str(&encoded(password));
    }
    url.push('@');
    if parts.host.contains(':') && !parts.host.starts_with('[') {
        url.push_str(&format!("[{}]", parts.host));
    } else if parts.host.starts_with('[') {
        url.push_str(parts.host);
    } else {
        url.push_str(&encoded(parts.host));
    }
    url.push_str(&format!(":{}/", parts.port));
    url.push_str(&encoded(parts.name));
    url
}

fn encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
