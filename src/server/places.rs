//! Places for connections: so many in all, and so many from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::access::limits::network;

/// Places, some of them taken.
pub(super) struct Places {
    most: usize,
    /// 0 for no limit.
    most_per_address: usize,
    /// Whoever is here may have as many as there are.
    exempt: Vec<IpNet>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// By what one holder has of addresses; none without a place.
    by_network: HashMap<IpAddr, usize>,
}

/// A connection's place. It is free again when this is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken.
    All,
    /// The address has as many as it may.
    Address,
}

impl Places {
    /// So many; `most_per_address` is 0 for no limit, and does not hold those in `exempt`.
    pub(super) fn new(most: usize, most_per_address: usize, exempt: &[IpNet]) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_address,
            exempt: exempt.to_vec(),
            taken: Mutex::default(),
        })
    }

    /// Takes one for a connection from there.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let network = network(address);
        let canonical = address.to_canonical();
        let exempt = self
            .exempt
            .iter()
            .any(|proxies| proxies.contains(&canonical));
        let mut taken = self.taken();
        let here = taken.by_network.get(&network).copied().unwrap_or_default();
        if self.most_per_address > 0 && here >= self.most_per_address && !exempt {
            return Err(Full::Address);
        }
        if taken.all >= self.most {
            return Err(Full::All);
        }
        taken.all += 1;
        taken.by_network.insert(network, here + 1);
        drop(taken);
        Ok(Place {
            places: Arc::clone(self),
            network,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(here) = taken.by_network.get_mut(&self.network) {
            *here -= 1;
            if *here == 0 {
                taken.by_network.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(places: &Arc<Places>, address: &str) -> Option<Full> {
        places.take(address.parse().unwrap()).err()
    }

    #[test]
    fn an_address_takes_no_more_than_its_share_and_gives_it_back() {
        let places = Places::new(3, 2, &[]);
        let take = |address: &str| places.take(address.parse().unwrap()).ok().unwrap();
        let (one, two) = (take("192.0.2.1"), take("::ffff:192.0.2.1"));
        assert_eq!(refused(&places, "192.0.2.1"), Some(Full::Address));
        let other = take("192.0.2.2");
        assert_eq!(refused(&places, "192.0.2.2"), Some(Full::All));
        drop((one, other));
        drop(take("192.0.2.1"));
        drop(two);
        assert!(places.taken().by_network.is_empty());
        assert_eq!(places.taken().all, 0);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let places = Places::new(9, 1, &[]);
        let _one = places.take("2001:db8::1".parse().unwrap());
        assert_eq!(refused(&places, "2001:db8::2"), Some(Full::Address));
        assert_eq!(refused(&places, "2001:db8:0:1::1"), None);
    }

    #[test]
    fn a_proxy_stands_for_many() {
        let places = Places::new(3, 1, &["10.0.0.0/8".parse().unwrap()]);
        let take = |address: &str| places.take(address.parse().unwrap()).ok().unwrap();
        let _kept = [take("10.0.0.1"), take("::ffff:10.0.0.1")];
        let _one = take("192.0.2.1");
        assert_eq!(refused(&places, "192.0.2.1"), Some(Full::Address));
        assert_eq!(refused(&places, "10.0.0.1"), Some(Full::All));
    }

    #[test]
    fn no_limit_for_an_address_means_none() {
        let places = Places::new(2, 0, &[]);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let _kept = [places.take(address), places.take(address)];
        assert_eq!(refused(&places, "192.0.2.1"), Some(Full::All));
    }
}
