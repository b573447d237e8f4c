//! A port that lives in this process: tests, the simulator and the demo put frames in and take frames out.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frame::{Burst, DropReason, Offload};
use rustix::event::{EventfdFlags, eventfd};

use crate::{Device, DeviceHandle, Link, PollReport, RxQueue, SendReport, TxQueue};

/// How a [`MemPeer`]'s port is made.
#[derive(Debug, Clone, Copy)]
pub struct MemSpec {
    /// Receive queues, and as many transmit queues; at least 1.
    pub queues: usize,
    /// Frames that a queue holds in either direction before it is full.
    pub capacity_frames: usize,
}

impl Default for MemSpec {
    fn default() -> Self {
        Self { queues: 1, capacity_frames: 1024 }
    }
}

/// A frame outside of the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemFrame {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// The work left on it.
    pub offload: Offload,
}

impl From<Vec<u8>> for MemFrame {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, offload: Offload::NONE }
    }
}

/// Frames on their way, in one direction of one queue.
struct Lane {
    frames: Mutex<VecDeque<MemFrame>>,
    arrived: Condvar,
    /// Readable while frames wait.
    event: OwnedFd,
    capacity_frames: usize,
}

impl Lane {
    fn new(capacity_frames: usize) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            frames: Mutex::default(),
            arrived: Condvar::new(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            capacity_frames,
        }))
    }

    fn frames(&self) -> MutexGuard<'_, VecDeque<MemFrame>> {
        // A test that panics elsewhere leaves the queue itself whole.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: MemFrame) -> bool {
        let mut frames = self.frames();
        if frames.len() >= self.capacity_frames {
            return false;
        }
        frames.push_back(frame);
        // The counter cannot overflow: it grows by one per queued frame at most 2^63 times.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        self.arrived.notify_all();
        true
    }
}

struct Shared {
    /// Into the switch, by queue.
    inward: Vec<Arc<Lane>>,
    /// Out of the switch, all queues.
    outward: Arc<Lane>,
    up: AtomicBool,
    retired: AtomicBool,
}

/// The outer end of a port in memory.
#[derive(Clone)]
pub struct MemPeer(Arc<Shared>);

impl std::fmt::Debug for MemPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemPeer").field("queues", &self.0.inward.len()).finish_non_exhaustive()
    }
}

/// Opens a port in memory.
///
/// # Errors
/// No descriptor is left for the queues' events.
pub fn open(spec: MemSpec) -> std::io::Result<(Device, MemPeer)> {
    let queues = spec.queues.max(1);
    let inward = (0..queues).map(|_| Lane::new(spec.capacity_frames)).collect::<std::io::Result<Vec<_>>>()?;
    let shared = Arc::new(Shared {
        inward,
        outward: Lane::new(spec.capacity_frames)?,
        up: AtomicBool::new(true),
        retired: AtomicBool::new(false),
    });
    let rx = shared.inward.iter().map(|lane| Box::new(MemRx(lane.clone())) as Box<dyn RxQueue>).collect();
    let tx = (0..queues).map(|_| Arc::new(MemTx(shared.clone())) as Arc<dyn TxQueue>).collect();
    Ok((Device { rx, tx, handle: Box::new(MemHandle(shared.clone())) }, MemPeer(shared)))
}

impl MemPeer {
    /// Hands `frame` to the switch by receive queue 0; false if the queue is full.
    pub fn inject(&self, frame: impl Into<MemFrame>) -> bool {
        self.inject_by(0, frame)
    }

    /// Hands `frame` to the switch by receive queue `queue`; false if there is no such queue or it is full.
    pub fn inject_by(&self, queue: usize, frame: impl Into<MemFrame>) -> bool {
        self.0.inward.get(queue).is_some_and(|lane| lane.push(frame.into()))
    }

    /// Frames handed in that the switch has not taken yet.
    pub fn waiting(&self) -> usize {
        self.0.inward.iter().map(|lane| lane.frames().len()).sum()
    }

    /// Takes all frames that the switch has sent so far.
    pub fn collect(&self) -> Vec<MemFrame> {
        self.0.outward.frames().drain(..).collect()
    }

    /// Takes the next frame that the switch sends, waiting for it; `None` once `timeout` has passed.
    pub fn recv(&self, timeout: Duration) -> Option<MemFrame> {
        let lane = &self.0.outward;
        let (mut frames, _) = lane
            .arrived
            .wait_timeout_while(lane.frames(), timeout, |frames| frames.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        frames.pop_front()
    }

    /// Takes the port's link up or down. A port that is down takes no frame.
    pub fn set_up(&self, up: bool) {
        self.0.up.store(up, SeqCst);
    }

    /// True once the port was deleted for good.
    pub fn is_retired(&self) -> bool {
        self.0.retired.load(SeqCst)
    }
}

struct MemRx(Arc<Lane>);

impl RxQueue for MemRx {
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        let mut report = PollReport::default();
        while !burst.is_full() {
            let Some(MemFrame { bytes, offload }) = self.0.frames().pop_front() else { break };
            let len = bytes.len() as u64;
            match burst.push_owned(bytes, offload) {
                Ok(()) => {
                    report.frames += 1;
                    report.bytes += len;
                }
                Err(_) => report.drops.add(DropReason::Malformed, 1),
            }
        }
        if !burst.is_empty() {
            turn(burst);
            burst.clear();
        }
        report
    }

    fn arm(&mut self) -> bool {
        let mut counter = [0; 8];
        // EAGAIN is the usual case: nothing was signalled since the last time.
        let _ = rustix::io::read(&self.0.event, &mut counter);
        !self.0.frames().is_empty()
    }

    fn disarm(&mut self) {}

    fn fd(&self) -> Option<RawFd> {
        Some(self.0.event.as_raw_fd())
    }
}

struct MemTx(Arc<Shared>);

impl TxQueue for MemTx {
    fn send(&self, burst: &Burst, frames: &[u8]) -> SendReport {
        let mut report = SendReport::default();
        for index in frames.iter().map(|index| usize::from(*index)) {
            let gather = burst.gather(index);
            let frame = MemFrame { bytes: gather.to_vec(), offload: burst.offload(index) };
            if !self.0.up.load(SeqCst) {
                report.drops.add(DropReason::PortDown, 1);
            } else if self.0.outward.push(frame) {
                report.frames += 1;
                report.bytes += gather.len() as u64;
                report.copied_bytes += gather.body_len() as u64;
            } else {
                report.drops.add(DropReason::RingFull, 1);
            }
        }
        report
    }
}

struct MemHandle(Arc<Shared>);

impl DeviceHandle for MemHandle {
    fn link(&self) -> Link {
        let up = self.0.up.load(SeqCst);
        Link { up, detail: if up { "in memory" } else { "in memory, taken down" }.to_owned() }
    }

    fn retire(&self) {
        self.0.retired.store(true, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_put_in_is_lent_and_a_frame_sent_comes_out() {
        let (mut device, peer) = open(MemSpec::default()).unwrap();
        let bytes: Vec<u8> = (0..200).collect();
        assert!(peer.inject(bytes.clone()));
        let mut burst = Burst::new();
        let tx = device.tx[0].clone();
        let mut sent = SendReport::default();
        let report = device.rx[0].poll(&mut burst, &mut |burst| sent = tx.send(burst, &[0]));
        assert_eq!((report.frames, report.bytes), (1, 200));
        assert_eq!((sent.frames, sent.copied_bytes), (1, 72));
        assert!(burst.is_empty());
        assert_eq!(peer.recv(Duration::ZERO), Some(bytes.into()));
    }

    #[test]
    fn arm_says_when_frames_wait_already() {
        let (mut device, peer) = open(MemSpec::default()).unwrap();
        assert!(!device.rx[0].arm());
        peer.inject(vec![1; 60]);
        assert!(device.rx[0].arm());
        device.rx[0].poll(&mut Burst::new(), &mut |_| ());
        assert!(!device.rx[0].arm());
    }

    #[test]
    fn a_full_or_downed_port_names_its_drops() {
        let (mut device, peer) = open(MemSpec { queues: 1, capacity_frames: 1 }).unwrap();
        let tx = device.tx[0].clone();
        let mut reports = Vec::new();
        for up in [true, true, false] {
            peer.set_up(up);
            assert!(peer.inject(vec![1; 60]));
            device.rx[0].poll(&mut Burst::new(), &mut |burst| reports.push(tx.send(burst, &[0]).drops));
        }
        assert_eq!(reports[0].total(), 0);
        assert_eq!(reports[1].get(DropReason::RingFull), 1);
        assert_eq!(reports[2].get(DropReason::PortDown), 1);
    }
}
