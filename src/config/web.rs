//! `[web]`: the browser listener.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

use super::reader::Reader;
use super::{MINUTE, SECOND};

/// The browser listener.
#[derive(Clone, Debug)]
pub struct Web {
    /// The address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where browsers reach the listener. Its path ends with a slash, so that
    /// `public_url.join("callback/…")` keeps a path prefix.
    pub public_url: Url,
    /// Networks of proxies that are believed where a browser comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// The longest a page, or an answer to an OAuth client, may take.
    pub request_timeout: Duration,
    /// The most connections kept at once.
    pub max_connections: usize,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
}

impl Web {
    /// `None` only if `web.public_url` can't be read at all.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let listen = reader
            .parsed("web.listen", "an address such as \"127.0.0.1:7481\"")
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let public_url = reader.url("web.public_url");
        let trusted_proxies =
            reader.list("web.trusted_proxies", "a network such as \"10.1.0.0/16\"");
        let request_timeout = reader.duration("web.request_timeout", SECOND..=5 * MINUTE);
        let max_connections = reader.integer("web.max_connections", 1..=1_000_000);
        let idle_timeout = reader.duration("web.idle_timeout", SECOND..=10 * MINUTE);
        let mut public_url = public_url?;
        if let Some(problem) = problem_of(&public_url) {
            reader.fault("web.public_url", problem);
        }
        if !public_url.path().ends_with('/') {
            let path = format!("{}/", public_url.path());
            public_url.set_path(&path);
        }
        Some(Self {
            listen,
            public_url,
            trusted_proxies,
            request_timeout,
            max_connections,
            idle_timeout,
        })
    }
}

/// Whether a browser on the same machine is meant.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What is wrong with an address under which browsers or clients reach us.
pub(super) fn problem_of(url: &Url) -> Option<&'static str> {
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(url) => {}
        "http" => return Some("http is for loopback addresses only; browsers need https here"),
        _ => return Some("the scheme must be https"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("this must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some("this must not have a query or a fragment");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let path = url.path().trim_start_matches('/').trim_end_matches('/');
    let simple = path.is_empty()
        || path
            .split('/')
            .all(|segment| !segment.is_empty() && segment.chars().all(plain));
    (!simple).then_some("the path prefix may only hold letters, digits and - . _ ~")
}
