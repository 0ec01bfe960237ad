//! Where a browser comes from, for the audit trail and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use ipnet::IpNet;

use crate::access::Origin;

/// Networks of the proxies before us (`web.trusted_proxies`).
#[derive(Clone, Debug)]
pub(super) struct Proxies(Arc<[IpNet]>);

impl Proxies {
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Whoever is behind the proxies: each appends the address that it was called from, so the last
    /// one that is no proxy of ours is the caller's, and what stands before it is anybody's word.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let hops: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        for hop in hops.into_iter().rev() {
            if !self.trusts(client) {
                break;
            }
            let Some(ip) = address(hop) else { break };
            client = ip.to_canonical();
        }
        client
    }
}

/// An address, as some proxies write it with its port, too.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    bare.parse()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

/// Where the request comes from.
pub(super) struct Visitor(pub(super) Origin);

impl<S> FromRequestParts<S> for Visitor
where
    S: Send + Sync,
    Proxies: FromRef<S>,
{
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let proxies = Proxies::from_ref(state);
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let user_agent = parts.headers.get(header::USER_AGENT);
        let user_agent = user_agent.and_then(|value| value.to_str().ok());
        Ok(Self(Origin {
            ip: peer.map(|peer| proxies.client(peer.0.ip(), &parts.headers)),
            user_agent: Origin::clean_user_agent(user_agent.unwrap_or_default()),
            trace_id: String::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let networks: Vec<IpNet> = trusted.iter().map(|it| it.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let peer = peer.parse().unwrap();
        Proxies::new(&networks).client(peer, &headers).to_string()
    }

    #[test]
    fn a_forged_header_is_not_believed() {
        assert_eq!(client(&[], "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        let proxies = ["10.0.0.0/8"];
        assert_eq!(
            client(&proxies, "192.0.2.1", &["198.51.100.7"]),
            "192.0.2.1"
        );
        // The caller wrote the first one itself.
        assert_eq!(
            client(&proxies, "10.0.0.1", &["203.0.113.9, 198.51.100.7"]),
            "198.51.100.7"
        );
    }

    #[test]
    fn the_last_that_is_no_proxy_is_the_caller() {
        let proxies = ["10.0.0.0/8", "fd00::/8"];
        let chain = ["198.51.100.7, 10.0.0.2", "fd00::5"];
        assert_eq!(client(&proxies, "10.0.0.1", &chain), "198.51.100.7");
        assert_eq!(
            client(&proxies, "::ffff:10.0.0.1", &["[2001:db8::1]"]),
            "2001:db8::1"
        );
        assert_eq!(
            client(&proxies, "10.0.0.1", &["198.51.100.7:4711"]),
            "198.51.100.7"
        );
        assert_eq!(client(&proxies, "10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(client(&proxies, "10.0.0.1", &[]), "10.0.0.1");
    }
}
