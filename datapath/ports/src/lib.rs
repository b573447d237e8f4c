//! Where do frames enter and leave the switch?
//!
//! A *port* is a set of receive queues and transmit queues behind one device. Receive is a loan: [`RxQueue::poll`] fills
//! a burst from the device, lends it to the worker's turn, and gives the memory back to the device before it returns, so
//! that no body outlives its burst. Transmit is shared: any worker may call [`TxQueue::send`] at any time.
//!
//! **Invariant:** the numbers a guest or the kernel writes are checked in release builds; no guest can make a queue panic,
//! hang or grow memory.
mod control;
pub mod cycles;
mod device;
pub mod fault;
mod ifreq;
pub mod mem;
pub mod netdev;
pub mod offload;
pub mod pcap;
mod queue;
mod quiet;
mod reactor;
pub mod tap;
pub mod vduse;
pub mod vhost_user;
pub mod virtio;
mod wait;

pub use device::{Device, DeviceHandle, Link, Waker};
pub use queue::{PollReport, RxQueue, SendReport, TxQueue};
pub use wait::WaitSet;
