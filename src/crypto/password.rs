//! Passwords: hashed with Argon2id (RFC 9106), kept as PHC strings.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret as _, SecretString};

use super::Error;
use super::random::random_bytes;

/// Bytes of salt: RFC 9106 section 3.1 recommends 16.
const SALT_BYTES: usize = 16;

/// Bytes of a hash.
const OUTPUT_BYTES: usize = 32;

/// What hashing costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// In KiB.
    pub memory: u32,
    /// Passes over that memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

/// What comparing a password with a hash came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is another password.
    Wrong,
    /// It is the password.
    Right {
        /// The hash was made at another cost than today's: make it anew.
        outdated: bool,
    },
}

/// Hashes at one cost, and compares with hashes of any.
#[derive(Clone, Debug)]
pub struct Hasher {
    params: Params,
}

impl Hasher {
    /// At this cost.
    ///
    /// # Errors
    /// [`Error::Password`] for a cost that Argon2 does not have, such as no memory.
    pub fn new(cost: Cost) -> Result<Self, Error> {
        let Cost {
            memory,
            iterations,
            parallelism,
        } = cost;
        Params::new(memory, iterations, parallelism, Some(OUTPUT_BYTES))
            .map(|params| Self { params })
            .map_err(|error| Error::Password(error.to_string()))
    }

    fn argon2(&self) -> Argon2<'static> {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone())
    }

    /// What is left of today's work when a hash of this cost was computed; none where that was as
    /// much, or more.
    fn rest(&self, computed: &Params) -> Option<Params> {
        let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
        let rest = work(&self.params).checked_sub(work(computed))?;
        let passes = rest.div_ceil(u64::from(self.params.m_cost()).max(1));
        let memory = u32::try_from(rest.checked_div(passes)?).ok()?;
        let lanes = self.params.p_cost();
        let memory = memory.max(lanes.saturating_mul(Params::MIN_M_COST));
        Params::new(memory, u32::try_from(passes).ok()?, lanes, None).ok()
    }

    /// Does what is left of today's work, in vain.
    fn make_up(&self, hash: &PasswordHash, password: &[u8]) {
        let computed = Params::try_from(hash).ok();
        if let Some(rest) = computed.and_then(|computed| self.rest(&computed)) {
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, rest);
            let mut output = [0; OUTPUT_BYTES];
            let salt = random_bytes::<SALT_BYTES>();
            // Its failing would make an answer early, not wrong.
            let _ = argon2.hash_password_into(password, &salt, &mut output);
            std::hint::black_box(output);
        }
    }

    /// The hash of a password, as a PHC string. Takes its cost in memory and time on this thread.
    ///
    /// # Errors
    /// [`Error::Password`] when there is no memory to be had.
    pub fn hash(&self, password: &SecretString) -> Result<String, Error> {
        let salt = random_bytes::<SALT_BYTES>();
        self.argon2()
            .hash_password_with_salt(password.expose_secret().as_bytes(), &salt)
            .map(|hash| hash.to_string())
            .map_err(|error| Error::Password(error.to_string()))
    }

    /// A hash of no password that anybody knows: comparing with it costs what any comparison costs,
    /// and never succeeds.
    ///
    /// # Errors
    /// None in a build whose tests pass.
    pub fn dummy(&self) -> Result<String, Error> {
        let fault = |error: argon2::password_hash::phc::Error| Error::Password(error.to_string());
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&self.params)
                .map_err(|error| Error::Password(error.to_string()))?,
            salt: Some(Salt::new(&random_bytes::<SALT_BYTES>()).map_err(fault)?),
            hash: Some(Output::new(&random_bytes::<OUTPUT_BYTES>()).map_err(fault)?),
        };
        Ok(hash.to_string())
    }

    /// Compares a password with a hash, at the hash's own cost, on this thread. Where that is less than
    /// today's, the rest of today's work is done too: otherwise an answer that comes early would tell
    /// that there is such a user, since without one the comparison is with the dummy of today's cost.
    /// What remains: a user whose hash costs more than today's, after the cost was lowered, is
    /// answered later than nobody is, until they sign in.
    ///
    /// # Errors
    /// [`Error::Password`] when the hash is no PHC string of Argon2id.
    pub fn verify(&self, hash: &str, password: &SecretString) -> Result<Verdict, Error> {
        let unreadable = |error: &dyn std::fmt::Display| Error::Password(error.to_string());
        let parsed = PasswordHash::new(hash).map_err(|error| unreadable(&error))?;
        let password = password.expose_secret().as_bytes();
        let compared = self.argon2().verify_password(password, &parsed);
        self.make_up(&parsed, password);
        match compared {
            Ok(()) => Ok(Verdict::Right {
                outdated: self.is_outdated(&parsed),
            }),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(Verdict::Wrong),
            Err(error) => Err(unreadable(&error)),
        }
    }

    fn is_outdated(&self, hash: &PasswordHash) -> bool {
        let same = Params::try_from(hash).is_ok_and(|params| {
            (params.m_cost(), params.t_cost(), params.p_cost())
                == (
                    self.params.m_cost(),
                    self.params.t_cost(),
                    self.params.p_cost(),
                )
        });
        let current = hash.algorithm == Algorithm::Argon2id.ident()
            && hash.version == Some(Version::V0x13.into());
        !(same && current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(memory: u32) -> Hasher {
        let cost = Cost {
            memory,
            iterations: 2,
            parallelism: 1,
        };
        Hasher::new(cost).unwrap()
    }

    fn password(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[test]
    fn a_hash_is_a_phc_string_with_its_cost() {
        let hash = hasher(64).hash(&password("a password of mine")).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{hash}");
    }

    #[test]
    fn the_same_password_never_hashes_alike() {
        let one = hasher(64).hash(&password("a password of mine")).unwrap();
        let other = hasher(64).hash(&password("a password of mine")).unwrap();
        assert_ne!(one, other);
    }

    #[test]
    fn a_password_is_told_from_others_and_an_old_cost_from_todays() {
        let old = hasher(64).hash(&password("a password of mine")).unwrap();
        let verify = |memory, text| hasher(memory).verify(&old, &password(text)).unwrap();
        assert_eq!(
            verify(64, "a password of mine"),
            Verdict::Right { outdated: false }
        );
        assert_eq!(
            verify(128, "a password of mine"),
            Verdict::Right { outdated: true }
        );
        assert_eq!(verify(64, "a password of yours"), Verdict::Wrong);
    }

    #[test]
    fn a_cheap_old_hash_does_not_answer_early() {
        let work = |params: &Params| params.m_cost() * params.t_cost();
        let today = hasher(1_024);
        for (memory, passes) in [(64, 1), (64, 3), (1_024, 1), (512, 2)] {
            let old = Params::new(memory, passes, 1, None).unwrap();
            let rest = today.rest(&old).unwrap();
            let missing = work(&today.params).abs_diff(work(&old) + work(&rest));
            assert!(
                missing <= rest.t_cost() && rest.m_cost() <= 1_024,
                "{rest:?}"
            );
        }
        for (memory, passes) in [(1_024, 2), (4_096, 1)] {
            let old = Params::new(memory, passes, 1, None).unwrap();
            assert!(today.rest(&old).is_none());
        }
    }

    #[test]
    fn nobody_has_the_dummys_password_and_it_costs_the_same() {
        let dummy = hasher(64).dummy().unwrap();
        assert!(dummy.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{dummy}");
        let verdict = hasher(64).verify(&dummy, &password("")).unwrap();
        assert_eq!(verdict, Verdict::Wrong);
    }

    /// RFC 9106 has its vectors with a secret and associated data, which PHC strings don't carry;
    /// this is the reference implementation's own (`test.c`, version 0x13, m=65536, t=2, p=1).
    #[test]
    fn agrees_with_the_reference_implementation() {
        let hash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                    $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let verdict = hasher(65_536).verify(hash, &password("password")).unwrap();
        assert_eq!(verdict, Verdict::Right { outdated: false });
    }

    #[test]
    fn a_broken_hash_is_a_defect_and_not_a_wrong_password() {
        for broken in ["", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", "plain"] {
            assert!(hasher(64).verify(broken, &password("plain")).is_err());
        }
    }
}
