//! The form of a sealed value, and what it is bound to.
//!
//! `version (1 byte) | length of the key id (1 byte) | key id | nonce (24 bytes) | ciphertext`,
//! where the ciphertext ends with the 16 bytes of the Poly1305 tag. The cipher is
//! XChaCha20-Poly1305: its nonce is long enough to be drawn at random for every value.

use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{Error, KEY_BYTES, is_key_id, random};

/// The only version so far. It is part of the associated data, so it cannot be changed in place.
const VERSION: u8 = 1;

/// Length of the nonce in bytes.
const NONCE_BYTES: usize = 24;

/// Length of the tag in bytes.
const TAG_BYTES: usize = 16;

/// What a sealed value is for: the column or file that it belongs to. Its label is part of what
/// the seal covers, so a value copied into another column does not open.
///
/// The labels are frozen. Rename a variant, a column or a table as you like, but never change a
/// label that was released, and never give an old one to something new: no value sealed under
/// it would open again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The client secret of an app.
    AppClientSecret,
    /// The secret that an app had before its rotation, tried until the rotation ends.
    AppPreviousSecret,
    /// A grant's access token.
    GrantAccessToken,
    /// A grant's refresh token.
    GrantRefreshToken,
    /// A grant's id token.
    GrantIdToken,
    /// The key of a connection of the kind `api_key`.
    GrantApiKey,
    /// The token secret of a connection of the kind `oauth1`.
    GrantOauth1Secret,
    /// An authorisation's PKCE verifier (RFC 7636).
    AuthorizationVerifier,
    /// The tokens of an authorisation whose connection is not made yet.
    AuthorizationTokens,
    /// An authorisation's OpenID Connect nonce.
    AuthorizationNonce,
    /// A file of the refresh journal.
    RefreshJournal,
    /// The answer kept for a retry of a request that returned a secret.
    IdempotentResponse,
    /// The additional request headers of a provider, which may carry a key.
    ProviderHeaders,
    /// What an OAuth client's webhooks are signed with.
    ClientWebhookSecret,
    /// What a refresh token of ours was exchanged for, for a repeated answer.
    IssuedSuccessor,
    /// A key that our tokens are signed with.
    IssuerKey,
    /// The secret of an automated account's own OAuth client.
    AccountClientSecret,
    /// The password of an automated account.
    AccountPassword,
    /// What an automated account's one-time codes are made of.
    AccountTotpSecret,
    /// The link of a job's authorisation.
    JobConnectUrl,
}

impl Purpose {
    /// Every purpose, in the order of the enum.
    pub const ALL: [Self; 20] = [
        Self::AppClientSecret,
        Self::AppPreviousSecret,
        Self::GrantAccessToken,
        Self::GrantRefreshToken,
        Self::GrantIdToken,
        Self::GrantApiKey,
        Self::GrantOauth1Secret,
        Self::AuthorizationVerifier,
        Self::AuthorizationTokens,
        Self::AuthorizationNonce,
        Self::RefreshJournal,
        Self::IdempotentResponse,
        Self::ProviderHeaders,
        Self::ClientWebhookSecret,
        Self::IssuedSuccessor,
        Self::IssuerKey,
        Self::AccountClientSecret,
        Self::AccountPassword,
        Self::AccountTotpSecret,
        Self::JobConnectUrl,
    ];

    /// The frozen label that the seal covers.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AppClientSecret => "app.client_secret",
            Self::AppPreviousSecret => "app.previous_secret",
            Self::GrantAccessToken => "grant.access_token",
            Self::GrantRefreshToken => "grant.refresh_token",
            Self::GrantIdToken => "grant.id_token",
            Self::GrantApiKey => "grant.api_key",
            Self::GrantOauth1Secret => "grant.oauth1_secret",
            Self::AuthorizationVerifier => "authorization.verifier",
            Self::AuthorizationTokens => "authorization.tokens",
            Self::AuthorizationNonce => "authorization.nonce",
            Self::RefreshJournal => "refresh_journal",
            Self::IdempotentResponse => "idempotent_response",
            Self::ProviderHeaders => "provider.headers",
            Self::ClientWebhookSecret => "client.webhook_secret",
            Self::IssuedSuccessor => "issued.successor",
            Self::IssuerKey => "issuer.key",
            Self::AccountClientSecret => "account.client_secret",
            Self::AccountPassword => "account.password",
            Self::AccountTotpSecret => "account.totp_secret",
            Self::JobConnectUrl => "job.connect_url",
        }
    }
}

/// Where a sealed value belongs. It opens there and nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The tenant that owns the row.
    pub tenant: &'a str,
    /// The column or file.
    pub purpose: Purpose,
    /// The row's id.
    pub row: &'a str,
}

impl Context<'_> {
    /// The associated data: the version, then each field behind its length, so that no two
    /// different contexts give the same bytes.
    fn associated_data(&self, key_id: &str) -> Vec<u8> {
        let fields = [key_id, self.tenant, self.purpose.label(), self.row];
        let length = fields.iter().map(|field| field.len() + 8).sum::<usize>();
        let mut data = Vec::with_capacity(1 + length);
        data.push(VERSION);
        for field in fields {
            data.extend_from_slice(&(field.len() as u64).to_be_bytes());
            data.extend_from_slice(field.as_bytes());
        }
        data
    }
}

/// An envelope taken apart; its parts are not yet known to be genuine.
pub(super) struct Parts<'a> {
    /// The id of the key that it claims to be sealed with.
    pub(super) key_id: &'a str,
    nonce: &'a [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
}

/// Takes an envelope apart.
///
/// # Errors
/// [`Error::Malformed`] when the bytes are no envelope of a known version.
pub(super) fn parse(envelope: &[u8]) -> Result<Parts<'_>, Error> {
    let (version, rest) = envelope.split_first().ok_or(Error::Malformed)?;
    let (length, rest) = rest.split_first().ok_or(Error::Malformed)?;
    let (key_id, rest) = rest
        .split_at_checked(usize::from(*length))
        .ok_or(Error::Malformed)?;
    let (nonce, ciphertext) = rest.split_first_chunk().ok_or(Error::Malformed)?;
    let key_id = std::str::from_utf8(key_id).map_err(|_| Error::Malformed)?;
    if *version != VERSION || !is_key_id(key_id) || ciphertext.len() < TAG_BYTES {
        return Err(Error::Malformed);
    }
    Ok(Parts {
        key_id,
        nonce,
        ciphertext,
    })
}

/// Seals `plaintext` with the key of that id under a fresh random nonce.
///
/// # Errors
/// [`Error::TooLong`] beyond the cipher's limit of 256 GiB.
pub(super) fn seal(
    key_id: &str,
    key: &[u8; KEY_BYTES],
    context: &Context<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, Error> {
    let nonce = random::random_bytes::<NONCE_BYTES>();
    // Room for the tag from the start: growing would leave a copy of the plaintext behind.
    let mut body = Zeroizing::new(Vec::with_capacity(plaintext.len() + TAG_BYTES));
    body.extend_from_slice(plaintext);
    XChaCha20Poly1305::new(key.into())
        .encrypt_in_place(
            &XNonce::from(nonce),
            &context.associated_data(key_id),
            &mut *body,
        )
        .map_err(|_| Error::TooLong)?;

    let id_length = u8::try_from(key_id.len()).map_err(|_| Error::KeyId)?;
    let mut envelope = Vec::with_capacity(2 + key_id.len() + NONCE_BYTES + body.len());
    envelope.extend_from_slice(&[VERSION, id_length]);
    envelope.extend_from_slice(key_id.as_bytes());
    envelope.extend_from_slice(&nonce);
    envelope.extend_from_slice(&body);
    Ok(envelope)
}

/// Opens what [`parse`] took apart.
///
/// # Errors
/// [`Error::Damaged`] when the key, the context or any byte is another than at sealing.
pub(super) fn open(
    parts: &Parts<'_>,
    key: &[u8; KEY_BYTES],
    context: &Context<'_>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut body = Zeroizing::new(parts.ciphertext.to_vec());
    XChaCha20Poly1305::new(key.into())
        .decrypt_in_place(
            &XNonce::from(*parts.nonce),
            &context.associated_data(parts.key_id),
            &mut *body,
        )
        .map_err(|_| Error::Damaged)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn labels_are_the_released_ones() {
        let labels: Vec<_> = Purpose::ALL.iter().map(|p| p.label()).collect();
        assert_eq!(
            labels.join(" "),
            "app.client_secret app.previous_secret grant.access_token grant.refresh_token \
             grant.id_token grant.api_key grant.oauth1_secret authorization.verifier \
             authorization.tokens authorization.nonce refresh_journal idempotent_response \
             provider.headers client.webhook_secret issued.successor issuer.key \
             account.client_secret account.password account.totp_secret job.connect_url"
        );
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len());
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let context = |tenant, row| Context {
            tenant,
            purpose: Purpose::GrantAccessToken,
            row,
        };
        assert_ne!(
            context("ab", "c").associated_data("k"),
            context("a", "bc").associated_data("k")
        );
        assert_ne!(
            context("a", "b").associated_data("ka"),
            context("aa", "b").associated_data("k")
        );
    }

    #[test]
    fn anything_cut_short_is_malformed() {
        let context = Context {
            tenant: "t",
            purpose: Purpose::GrantAccessToken,
            row: "r",
        };
        let envelope = seal("key", &[7; KEY_BYTES], &context, b"").unwrap();
        assert!(parse(&envelope).is_ok());
        for length in 0..envelope.len() {
            assert!(matches!(parse(&envelope[..length]), Err(Error::Malformed)));
        }
    }
}
