//! The two sides of a queue that a worker sees; every port kind implements both.

use std::os::fd::RawFd;

use frame::{Burst, DropCounts};

/// What one [`RxQueue::poll`] took from the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PollReport {
    /// Frames lent to the turn.
    pub frames: u64,
    /// Their bytes, without virtio-net headers.
    pub bytes: u64,
    /// Frames that the device handed out but that could not enter a burst.
    pub drops: DropCounts,
}

/// What became of the frames of one [`TxQueue::send`]. `frames + drops.total()` is the number of frames given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Frames written to the device (a frame segmented in software counts once).
    pub frames: u64,
    /// Their bytes, without virtio-net headers.
    pub bytes: u64,
    /// Body bytes copied in user space to write them.
    pub copied_bytes: u64,
    /// Frames that the device did not take.
    pub drops: DropCounts,
}

/// A queue that frames come in from. Owned by one worker at a time.
pub trait RxQueue: Send {
    /// Takes up to a burst of frames from the device, lends them to `turn`, then gives their memory back to the device.
    /// `turn` is not called when there is nothing (and the burst is empty). `burst` is empty before and after.
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport;

    /// Asks the device to signal [`RxQueue::fd`] for the next frame. Returns true if frames are there already, in which
    /// case the caller must poll instead of sleep. Idempotent.
    fn arm(&mut self) -> bool;

    /// Ends what [`RxQueue::arm`] began: the worker polls again and wants no signals. Idempotent.
    fn disarm(&mut self);

    /// The descriptor that becomes readable when an armed queue has frames. It may change while a device reconnects:
    /// a worker asks again before each sleep. `None` while no peer is attached.
    fn fd(&self) -> Option<RawFd>;
}

/// A queue that frames leave by. Shared by all workers.
pub trait TxQueue: Send + Sync {
    /// Writes the frames of `burst` named by `frames` (indices, in order) to the device. Frames are read, never changed.
    /// What the device cannot take (a checksum left partial, a frame larger than it accepts) is done in software here.
    fn send(&self, burst: &Burst, frames: &[u8]) -> SendReport;
}
