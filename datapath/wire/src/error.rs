//! Why are these bytes not the header they should be?

/// Why bytes were refused as a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end before the header does. With more of the packet at hand it may be fine.
    #[error("the bytes end inside the {0}")]
    Truncated(&'static str),
    /// The header contradicts itself or its protocol; more bytes would not help.
    #[error("{0}")]
    Malformed(&'static str),
}

/// `bytes` if there are at least `len`, else [`Error::Truncated`] in `what`.
#[inline]
pub(crate) fn at_least<'a>(bytes: &'a [u8], len: usize, what: &'static str) -> Result<&'a [u8], Error> {
    if bytes.len() < len { Err(Error::Truncated(what)) } else { Ok(bytes) }
}

/// The big-endian 16 bits at `at`, which the caller has checked.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The big-endian 32 bits at `at`, which the caller has checked.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The `N` bytes at `at`, which the caller has checked.
#[inline]
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
