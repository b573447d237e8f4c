//! Bytes to typed headers, addresses and checksums. No I/O, no unsafe, no state.
//!
//! One file per protocol, and every file has the same parts:
//!
//! - `field`: where each field lies, as ranges to edit a header in place;
//! - `View`: a borrowed header whose accessors cannot fail, because `View::new` checked what they rely on. A view may
//!   look at the first bytes of a longer packet: lengths that a header claims are returned, not compared with the bytes
//!   at hand, and `payload` is what of the payload is there;
//! - `Repr`: the header as plain values. `Repr::parse` reads a view, `Repr::emit` writes the bytes: a round trip.
//!
//! What ends in options of any number and length (DHCP, router advertisements) is written with a [`Writer`] instead, which
//! says whether it fitted.
//!
//! **Panics:** `emit` panics if its buffer is shorter than the length that the same value reports. Nothing else in this
//! crate panics, whatever the bytes.
#![forbid(unsafe_code)]
pub mod arp;
pub mod build;
pub mod checksum;
pub mod dhcpv4;
pub mod dhcpv6;
pub mod domain;
mod error;
pub mod ethernet;
pub mod geneve;
pub mod icmpv4;
pub mod icmpv6;
mod ip;
pub mod ipv4;
pub mod ipv6;
mod mac;
pub mod nd;
pub mod router_advert;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vlan;
mod writer;

pub use error::Error;
pub use ethernet::EtherType;
pub use ip::IpProtocol;
pub use mac::{MacAddr, MacError};
pub use writer::Writer;
