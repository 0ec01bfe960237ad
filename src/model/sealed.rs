//! Ciphertext on its way to or from a column.

/// A sealed envelope. The store takes secrets in this form only, so that persisting a plaintext
/// secret does not compile. Only `crypto` (after sealing) and `store/columns.rs` (after reading)
/// may construct one; the tidy test sees to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Wraps bytes that are an envelope already.
    pub fn from_envelope(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The envelope's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
