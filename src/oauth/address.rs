//! Which addresses we connect to. A provider's URLs may come from an app's administrator, so what
//! stands behind a name is judged when it is resolved: nobody reaches our own network by DNS.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The addresses that may be connected to.
#[derive(Clone, Debug, Default)]
pub struct AddressFilter {
    allow_private: bool,
    allowed: Arc<[IpNet]>,
}

/// What is said of a refused address.
pub(super) const FORBIDDEN: &str = "the host's address is not allowed";

/// An address that is not connected to.
#[derive(Debug)]
pub(super) struct Forbidden;

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORBIDDEN)
    }
}

impl StdError for Forbidden {}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    /// Loopback, RFC 1918, shared address space, unique local.
    Private,
    /// Link-local (cloud metadata), multicast, reserved, and tunnels that embed another address.
    Special,
}

impl AddressFilter {
    /// Public addresses are always admitted; private ones, loopback among them, with
    /// `allow_private`; any within `allowed`, whatever it is.
    pub fn new(allow_private: bool, allowed: Vec<IpNet>) -> Self {
        Self {
            allow_private,
            allowed: allowed.into(),
        }
    }

    /// Whether an address may be connected to.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let listed = self.allowed.iter().any(|net| net.contains(&address));
        listed
            || match reach(address) {
                Reach::Public => true,
                Reach::Private => self.allow_private,
                Reach::Special => false,
            }
    }

    /// Whether a URL may be called: HTTPS (HTTP at loopback hosts), and an admitted address if
    /// the host is one or names this machine. Other names are judged when they are resolved.
    pub fn admits_url(&self, url: &Url) -> bool {
        let (admitted, loopback) = match url.host() {
            Some(Host::Ipv4(address)) => (self.admits(address.into()), address.is_loopback()),
            Some(Host::Ipv6(address)) => (self.admits(address.into()), address.is_loopback()),
            Some(Host::Domain(name)) => (
                !is_local(name) || self.admits_loopback(),
                name == "localhost",
            ),
            None => return false,
        };
        admitted && (url.scheme() == "https" || (url.scheme() == "http" && loopback))
    }

    fn admits_loopback(&self) -> bool {
        self.admits(Ipv4Addr::LOCALHOST.into()) || self.admits(Ipv6Addr::LOCALHOST.into())
    }
}

/// Whether a name is this machine's (RFC 6761 section 6.3). A dot at its end only says that it is
/// complete.
fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let octets = address.octets();
    match octets {
        _ if address.is_loopback() || address.is_private() => Reach::Private,
        // RFC 6598, shared address space.
        [100, 64..=127, _, _] => Reach::Private,
        [0, ..] => Reach::Special,
        _ if address.is_link_local() || address.is_documentation() => Reach::Special,
        // RFC 6890: protocol assignments; RFC 7526: 6to4 relays; RFC 2544: benchmarking.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, _, _] => Reach::Special,
        // Multicast, class E and broadcast.
        [224..=255, ..] => Reach::Special,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if address.is_loopback() || address.is_unique_local() {
        return Reach::Private;
    }
    match address.segments() {
        // RFC 4380 Teredo and the rest of 2001::/23; RFC 3849 documentation; RFC 3056 6to4.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x2002, ..] => Reach::Special,
        // RFC 9637 documentation.
        [0x3fff, 0..=0x0fff, ..] => Reach::Special,
        // Global unicast is 2000::/3 alone. What is outside is NAT64 (64:ff9b::/96 and /48),
        // discard-only, SRv6, link-local, site-local, multicast or unassigned.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Special,
    }
}

/// Resolves names to admitted addresses only, within the connector, so that the address judged is
/// the address connected to.
#[derive(Clone, Debug)]
pub(super) struct FilteredResolver(pub(super) AddressFilter);

impl Resolve for FilteredResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let filter = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let admitted: Vec<SocketAddr> = found
                .filter(|address| filter.admits(address.ip()))
                .collect();
            if admitted.is_empty() {
                return Err(Forbidden.into());
            }
            let admitted: Addrs = Box::new(admitted.into_iter());
            Ok(admitted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(filter: &AddressFilter, address: &str) -> bool {
        filter.admits(address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_admitted() {
        let filter = AddressFilter::default();
        for address in ["8.8.8.8", "100.63.0.1", "172.32.0.1", "2606:4700::1111"] {
            assert!(admits(&filter, address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!admits(&filter, address), "{address}");
        }
    }

    #[test]
    fn private_networks_are_a_setting_and_special_ones_a_list() {
        let private = AddressFilter::new(true, Vec::new());
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "::1",
            "fd00::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(admits(&private, address), "{address}");
        }
        assert!(!admits(&private, "169.254.169.254"));
        let listed = AddressFilter::new(false, vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(admits(&listed, "10.1.2.3"));
        assert!(admits(&listed, "::ffff:10.1.2.3"));
        assert!(!admits(&listed, "10.2.0.1"));
    }

    #[test]
    fn literal_hosts_and_schemes_are_judged() {
        let filter = AddressFilter::default();
        let private = AddressFilter::new(true, Vec::new());
        let admits = |filter: &AddressFilter, url: &str| filter.admits_url(&url.parse().unwrap());
        assert!(admits(&filter, "https://accounts.google.com/token"));
        assert!(!admits(&filter, "http://accounts.google.com/token"));
        // The URL parser reads the odd spellings of 127.0.0.1 as what they are.
        for url in [
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://[::ffff:127.0.0.1]/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://api.localhost./",
        ] {
            assert!(!admits(&filter, url), "{url}");
        }
        assert!(admits(&private, "http://127.0.0.1:8080/token"));
        assert!(admits(&private, "https://localhost./token"));
        // Not every resolver knows that name with its dot.
        assert!(!admits(&private, "http://localhost./token"));
        assert!(!admits(&private, "http://10.0.0.1/token"));
    }
}
