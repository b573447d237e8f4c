//! How does a program or a VM attach its virtio queues to the switch by a socket?
//!
//! The backend side of the vhost-user protocol (QEMU `docs/interop/vhost-user`). A *frontend* (QEMU, a DPDK program)
//! sends its memory as file descriptors, then the addresses and eventfds of its rings; the rings themselves are
//! [`crate::virtio`]'s. One control thread serves all ports of the process: [`VhostUserControl`].
mod channel;
mod control;
mod endpoint;
mod error;
mod features;
pub mod fuzz;
mod message;
mod port;
mod queues;
mod reactor;
mod session;
mod spec;
mod vring;

pub use control::VhostUserControl;
pub use error::VhostUserError;
pub use spec::{MAX_QUEUE_PAIRS, Role, VhostUserSpec};
