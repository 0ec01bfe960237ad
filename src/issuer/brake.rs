//! What anybody may set off, without having proved who they are, is counted by address on each replica:
//! nobody fills the tables or the audit trail by calling in a loop.

use std::net::IpAddr;

use crate::access::limits::{Failures, network};
use crate::clock::Clock;
use crate::error::Error;

/// So many in a minute from one address, where a /64 of IPv6 is one. A sound one counts, too: whoever
/// sends a thousand at once is not to have them all judged first.
pub(super) struct Brake {
    counted: Failures<IpAddr>,
    /// What the one who has to wait is told.
    message: &'static str,
}

impl Brake {
    /// Of codes that people type for their devices, which could be guessed.
    pub(super) fn of_typed_codes(clock: Clock) -> Self {
        let message = "too many codes were typed from this address";
        Self::new(20, message, clock)
    }

    /// Of authorisation requests that browsers bring. Many people may share an address.
    pub(super) fn of_requests(clock: Clock) -> Self {
        let message = "too many authorisation requests were begun from this address";
        Self::new(300, message, clock)
    }

    /// Of what public clients leave here: their ids are anybody's to send.
    pub(super) fn of_public_clients(clock: Clock) -> Self {
        let message = "public clients began too much from this address";
        Self::new(60, message, clock)
    }

    fn new(per_minute: u32, message: &'static str, clock: Clock) -> Self {
        Self {
            counted: Failures::new(per_minute, clock),
            message,
        }
    }

    /// One more from there.
    ///
    /// # Errors
    /// [`Error::ResourceExhausted`] with the time to wait.
    pub(super) fn charge(&self, address: Option<IpAddr>) -> Result<(), Error> {
        let Some(holder) = address.map(network) else {
            return Ok(());
        };
        if let Some(retry_after) = self.counted.wait(&holder) {
            return Err(Error::ResourceExhausted {
                message: self.message.to_owned(),
                retry_after,
            });
        }
        self.counted.count(holder);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn an_address_waits_and_others_do_not() {
        let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let brake = Brake::of_typed_codes(clock.clone());
        let one = Some("192.0.2.1".parse().unwrap());
        for _ in 0..20 {
            brake.charge(one).unwrap();
        }
        match brake.charge(one) {
            Err(Error::ResourceExhausted { retry_after, .. }) => {
                assert_eq!(retry_after, Duration::from_secs(3));
            }
            other => panic!("{other:?}"),
        }
        brake.charge(Some("192.0.2.2".parse().unwrap())).unwrap();
        clock.advance(Duration::from_secs(3));
        brake.charge(one).unwrap();
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let brake = Brake::of_public_clients(clock);
        for host in 0..60 {
            let ip = format!("2001:db8::{host:x}").parse().unwrap();
            brake.charge(Some(ip)).unwrap();
        }
        brake
            .charge(Some("2001:db8::ffff".parse().unwrap()))
            .unwrap_err();
        brake
            .charge(Some("2001:db8:0:1::1".parse().unwrap()))
            .unwrap();
    }
}
