//! How does a pod get a plain kernel netdev whose other end is this switch? By VDUSE: the kernel's own virtio-net driver on
//! one end of two virtqueues, the switch on the other. (Linux `Documentation/userspace-api/vduse.rst`)
//!
//! The same device serves a DPDK program or a VM that drives it by `/dev/vhost-vdpa-*`. In both cases the rings are
//! [`crate::virtio`]'s, as for vhost-user; what differs is who says where they are, and how their driver is interrupted.
//!
//! | what happens | where |
//! |---|---|
//! | a device is created, or found again | `spec`, `port` |
//! | the kernel asks: status, queue state, memory changed | `port` |
//! | device addresses become memory of this process | `memory` |
//! | used chains become interrupts | `irq` |
//!
//! **States.** A port is *idle* until its driver sets DRIVER_OK, then it *runs* until the driver resets it. Which driver that
//! is, and when, is decided on the vDPA bus (`vdpa dev add`), by control.
//!
//! **Restarts.** The device, its netdev and the rings are the kernel's and outlive the switch. A port that finds its device
//! goes on at the used index, as vhost-user does, and is asked again what its predecessor left unanswered. Closing a port
//! leaves the device; [`crate::DeviceHandle::retire`] destroys it with the port, if it is off the bus by then.
//!
//! **Errors.** A device that the kernel gave up, because a message was not answered for `msg_timeout`, cannot be mended: its
//! port says so, and the next port of that name destroys it and begins anew.
//!
//! **Invariant:** the control thread never blocks: it answers from what it has. Who waits for these answers holds locks of
//! the kernel's.
//! **Invariant:** nothing of the device's memory is in use once the answer to a reset, or to a change of its addresses, is
//! given.
//! **Limit:** one queue pair: the kernel allows a VDUSE net device no control queue, by which a driver would ask for more.
mod control;
mod irq;
mod memory;
mod port;
mod spec;

pub use control::VduseControl;
pub use spec::{VduseError, VduseSpec};
