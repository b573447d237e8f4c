//! How do frames cross a split virtqueue, seen from the device? (virtio 1.2 §2.7, §5.1)
//!
//! This code knows rings and memory, and no transport: vhost-user and VDUSE both drive it. A transport makes one
//! [`QueueSlot`] per virtqueue, hands [`VirtioRx`] and [`VirtioTx`] around them to the datapath, and installs, changes
//! and removes the ring in the slot as its peer says. The slot's lock is taken once per burst, so that every change
//! falls between two bursts and nothing of the old ring or memory is in use when the change returns.
//!
//! Directions are the switch's: [`VirtioRx`] serves the guest's transmit queue, [`VirtioTx`] its receive queue.
//!
//! **Invariant:** a descriptor, an index or a header is read from guest memory once, then checked, then used.
//! **Invariant:** chains are given back in the order in which they were taken, all within the call that took them; the
//! used index alone therefore says where a ring stands.
//! **Limit:** split rings only; no legacy byte order or layout but for the ten-byte header.
mod bell;
mod chain;
pub(crate) mod config;
mod features;
pub mod header;
mod log;
mod mapping;
mod memory;
mod ring;
mod rx;
mod sigbus;
mod slot;
#[cfg(test)]
mod tests;
mod tx;

pub use features::Features;
pub use log::DirtyLog;
pub use memory::{GuestMemory, MAX_MEMORY_BYTES, MAX_MEMORY_SLOTS, MemoryError, Region, RegionSpec};
pub use ring::{AddressSpace, MAX_RING_SIZE, QueueSetup, RingAddresses, RingError};
pub use rx::VirtioRx;
pub(crate) use slot::Teller;
pub use slot::{QueueLog, QueueSlot, RingPosition, SlotState};
pub use tx::VirtioTx;
