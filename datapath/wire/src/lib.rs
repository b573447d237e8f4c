//! Bytes to typed headers, addresses and checksums. No I/O, no unsafe, no state.
#![forbid(unsafe_code)]
mod mac;

pub use mac::{MacAddr, MacError};
