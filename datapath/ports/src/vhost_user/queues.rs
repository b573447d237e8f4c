//! Which queues does a vhost-user port give to the workers?

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use frame::{Burst, Offload};
use wire::MacAddr;

use crate::virtio::{QueueSlot, VirtioRx, VirtioTx};
use crate::{PollReport, RxQueue, TxQueue};

/// Bytes of an announcement: the shortest Ethernet frame, without its checksum.
const ANNOUNCEMENT_BYTES: usize = 60;

/// The slots of a port's rings, and what else the control thread says to the workers.
#[derive(Debug)]
pub(super) struct Queues {
    /// In the order of the frontend's ring indices: each pair's receive queue (the guest's), then its transmit queue.
    slots: Vec<Arc<QueueSlot>>,
    announcement: Arc<Announcement>,
}

impl Queues {
    /// # Errors
    /// No descriptors are left for what workers sleep on.
    pub(super) fn new(pairs: u16) -> io::Result<Arc<Self>> {
        let mut slots = Vec::with_capacity(2 * usize::from(pairs));
        for _ in 0..pairs {
            slots.push(QueueSlot::for_transmit());
            slots.push(QueueSlot::for_receive()?);
        }
        Ok(Arc::new(Self { slots, announcement: Arc::default() }))
    }

    pub(super) fn slots(&self) -> &[Arc<QueueSlot>] {
        &self.slots
    }

    /// The receive queues, in the order of pairs.
    pub(super) fn rx(&self) -> Vec<Box<dyn RxQueue>> {
        let mut queues: Vec<Box<dyn RxQueue>> = Vec::new();
        for slot in self.slots.iter().skip(1).step_by(2) {
            let ring = VirtioRx::new(Arc::clone(slot));
            if queues.is_empty() {
                queues.push(Box::new(AnnouncingRx { ring, announcement: Arc::clone(&self.announcement) }));
            } else {
                queues.push(Box::new(ring));
            }
        }
        queues
    }

    /// The transmit queues, in the order of pairs.
    pub(super) fn tx(&self) -> Vec<Arc<dyn TxQueue>> {
        let first = &self.slots[0];
        let queue = |slot: &Arc<QueueSlot>| -> Arc<dyn TxQueue> {
            Arc::new(VirtioTx::with_fallback(Arc::clone(slot), Arc::clone(first)))
        };
        self.slots.iter().step_by(2).map(queue).collect()
    }

    /// Lets the network know, by the next poll of the first queue, that `mac` is behind this port (SEND_RARP).
    pub(super) fn announce(&self, mac: MacAddr) {
        self.announcement.set(mac);
    }
}

/// A MAC address to announce, or none (zero).
#[derive(Debug, Default)]
struct Announcement(AtomicU64);

impl Announcement {
    fn set(&self, MacAddr([a, b, c, d, e, f]): MacAddr) {
        self.0.store(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), Ordering::Relaxed);
    }

    #[inline]
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn take(&self) -> MacAddr {
        let [_, _, mac @ ..] = self.0.swap(0, Ordering::Relaxed).to_be_bytes();
        MacAddr(mac)
    }
}

/// The port's first receive queue. After a live migration it also brings the frame by which the network learns where the
/// guest is now, for guests that do not announce themselves.
struct AnnouncingRx {
    ring: VirtioRx,
    announcement: Arc<Announcement>,
}

impl AnnouncingRx {
    #[cold]
    fn announce(&self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        let frame = rarp(self.announcement.take());
        // SAFETY: `frame` outlives the burst's use of it, which ends below.
        let pushed = unsafe { burst.push(frame.as_ptr(), frame.len(), Offload::NONE) };
        if pushed.is_err() {
            return PollReport::default();
        }
        turn(burst);
        burst.clear();
        PollReport { frames: 1, bytes: frame.len() as u64, ..PollReport::default() }
    }
}

impl RxQueue for AnnouncingRx {
    #[inline]
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        if self.announcement.is_set() {
            return self.announce(burst, turn);
        }
        self.ring.poll(burst, turn)
    }

    fn arm(&mut self) -> bool {
        self.ring.arm() | self.announcement.is_set()
    }

    fn disarm(&mut self) {
        self.ring.disarm();
    }

    fn fd(&self) -> Option<RawFd> {
        self.ring.fd()
    }
}

/// A "request reverse" of `mac` for itself to all (RFC 903): what QEMU and DPDK announce a guest by.
fn rarp(MacAddr(mac): MacAddr) -> [u8; ANNOUNCEMENT_BYTES] {
    const ETHERTYPE_RARP: [u8; 2] = [0x80, 0x35];
    const ETHERNET_IPV4_REQUEST_REVERSE: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 3];
    let mut frame = [0; ANNOUNCEMENT_BYTES];
    frame[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ETHERTYPE_RARP);
    frame[14..22].copy_from_slice(&ETHERNET_IPV4_REQUEST_REVERSE);
    frame[22..28].copy_from_slice(&mac);
    frame[32..38].copy_from_slice(&mac);
    frame
}
