//! How does a program without a VM become the guest of a vhost-user port?
//!
//! The crate is the *frontend* side of the vhost-user protocol and a virtio network *driver* for split rings. Tests and
//! the demo send and receive single frames with it ([`Guest`]); benchmarks drive a pair of ports at full rate with it
//! ([`load`]). It shares no code with the switch's side of the rings, so that one cannot hide the other's mistakes, and it
//! can face any vhost-user backend.
//!
//! ```no_run
//! # fn main() -> Result<(), guest::GuestError> {
//! use std::time::Duration;
//! let mut guest = guest::Guest::builder().features(guest::Features::RINGS).connect("/run/pod/net1")?;
//! guest.send(&[0; 60])?;
//! let (frame, header) = guest.recv(Duration::from_secs(1))?.expect("an echo");
//! # let _ = (frame, header);
//! # Ok(())
//! # }
//! ```
#![allow(clippy::disallowed_methods, reason = "a guest has its own clock: deadlines of sends and receives")]

mod connection;
pub mod connections;
pub mod cycles;
mod error;
mod features;
mod guest;
mod header;
pub mod load;
mod memory;
mod ring;
mod rx;
mod tx;

pub use error::GuestError;
pub use features::Features;
pub use guest::{Builder, Guest, Listener, Notify};
pub use header::NetHeader;
pub use tx::TxLayout;
