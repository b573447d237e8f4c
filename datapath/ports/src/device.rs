//! What does a port kind hand to the datapath when it is opened?

use std::sync::Arc;

use crate::{RxQueue, TxQueue};

/// An open device: its queues, and the handle that keeps it open.
pub struct Device {
    /// Receive queues; each goes to one worker.
    pub rx: Vec<Box<dyn RxQueue>>,
    /// Transmit queues. Frames of a receive queue that began on worker `w` leave by queue `w % tx.len()`, wherever it
    /// moves.
    pub tx: Vec<Arc<dyn TxQueue>>,
    /// The device itself. Dropping it closes the device but leaves what must survive a restart of the switch (a
    /// persistent netdev); [`DeviceHandle::retire`] first removes that too.
    pub handle: Box<dyn DeviceHandle>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("rx", &self.rx.len())
            .field("tx", &self.tx.len())
            .finish_non_exhaustive()
    }
}

/// A port's link, as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Somebody is attached (vhost-user) or the carrier is up (TAP).
    pub up: bool,
    /// In words: features, peer, or the reason for a link that is down.
    pub detail: String,
}

/// Wakes the workers that hold a device's receive queues, so that they poll them once and then ask for
/// [`RxQueue::fd`] again before they sleep. Cheap; may be called from any thread, at any time.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The part of a device that is neither receive nor transmit.
pub trait DeviceHandle: Send + Sync {
    /// Called once, when the port joins the datapath. A device whose [`RxQueue::fd`] changes (a peer attached or left,
    /// a ring started) calls `wake` after each such change; one whose descriptors never change ignores it.
    fn set_waker(&self, _wake: Waker) {}

    /// The link as it is now.
    fn link(&self) -> Link;

    /// The port is deleted for good: what would have survived a restart goes too, once the handle is dropped.
    fn retire(&self);
}
