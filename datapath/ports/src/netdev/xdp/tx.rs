//! Frames for the interface: copied into chunks, which the kernel, or the driver itself, sends.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frame::{Burst, DropReason, Gather, Offload};
use rustix::io::Errno;

use super::ring::{Consumer, Producer};
use super::socket::{Descriptor, Socket};
use super::umem::TRANSMIT_CHUNKS;
use crate::offload::{Capabilities, Scratch, soften};
use crate::{SendReport, TxQueue};

/// System calls that one send may make for room. The kernel takes 32 frames by each (`TX_BATCH_SIZE`).
const WAKEUPS: u32 = 2 * TRANSMIT_CHUNKS / 32;

/// The transmit side of one queue.
pub(super) struct XdpTx {
    socket: Arc<Socket>,
    side: Mutex<Side>,
    /// The kernel has not taken all frames, and nobody may send another: the receive side sees to it.
    is_pending: AtomicBool,
}

/// What one send at a time uses.
struct Side {
    rings: Rings,
    scratch: Scratch,
}

/// The rings of frames that leave, and who has which chunk.
struct Rings {
    tx: Producer<Descriptor>,
    completion: Consumer<u64>,
    /// Chunks that are ours.
    free: Vec<u64>,
    /// By chunk: the kernel has it.
    in_flight: Box<[bool]>,
    /// The interface took nothing when it was last woken.
    is_down: bool,
}

impl XdpTx {
    pub(super) fn new(socket: Arc<Socket>, tx: Producer<Descriptor>, completion: Consumer<u64>) -> Self {
        let rings = Rings {
            tx,
            completion,
            free: socket.umem.transmit_chunks().collect(),
            in_flight: vec![false; TRANSMIT_CHUNKS as usize].into(),
            is_down: false,
        };
        let side = Side { rings, scratch: Scratch::default() };
        Self { socket, side: Mutex::new(side), is_pending: AtomicBool::new(false) }
    }

    fn side(&self) -> MutexGuard<'_, Side> {
        // Each chunk is free or in flight at any point where a worker could panic.
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has frames sent that the kernel did not take when they were given to it.
    pub(super) fn go_on(&self) {
        if self.is_pending.load(Relaxed) {
            self.wake(&mut self.side().rings);
        }
    }

    fn wake(&self, rings: &mut Rings) {
        rings.wake(&self.socket);
        self.is_pending.store(rings.tx.unread() > 0 && !rings.is_down, Relaxed);
    }
}

impl Rings {
    /// Takes back the chunks of frames that were sent.
    fn reclaim(&mut self, socket: &Socket) {
        let mut sent = [0; 64];
        loop {
            let sent = self.completion.read(&mut sent);
            if sent.is_empty() {
                return;
            }
            for chunk in sent {
                // Only what was given away comes back, once: else there would be two frames in one chunk.
                let Some(number) = socket.umem.transmit_number(*chunk) else { continue };
                if std::mem::replace(&mut self.in_flight[number], false) {
                    self.free.push(*chunk);
                }
            }
            self.completion.release();
        }
    }

    /// Hands what was written to the kernel, and has it sent if that takes a system call.
    fn wake(&mut self, socket: &Socket) {
        self.tx.publish();
        for _ in 0..WAKEUPS {
            if !self.tx.needs_wakeup() {
                break;
            }
            match socket.wake_transmit() {
                Ok(()) => self.is_down = false,
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS) => {}
                Err(_) => {
                    self.is_down = true;
                    break;
                }
            }
            if self.tx.unread() == 0 {
                break;
            }
        }
        self.reclaim(socket);
    }

    /// Puts one finished frame into the ring.
    fn write(&mut self, socket: &Socket, frame: &Gather<'_>) -> Result<(), DropReason> {
        if self.free.is_empty() {
            self.wake(socket);
        }
        let chunk = self.free.pop().ok_or(DropReason::RingFull)?;
        let number = socket.umem.transmit_number(chunk).expect("only such chunks are ever free");
        // SAFETY: a chunk for frames that leave, which the kernel has given back, or never had; `self` is exclusive.
        if !unsafe { socket.umem.write(chunk, frame) } {
            self.free.push(chunk);
            return Err(DropReason::TooBig);
        }
        if !self.tx.push(Descriptor { address: chunk, len: frame.len() as u32, options: 0 }) {
            self.free.push(chunk);
            return Err(DropReason::RingFull);
        }
        self.in_flight[number] = true;
        Ok(())
    }
}

impl Side {
    /// Puts one frame into the ring, in as many pieces as it takes.
    fn write(&mut self, socket: &Socket, frame: &Gather<'_>, offload: Offload) -> Result<(), DropReason> {
        let Self { rings, scratch } = self;
        let mut result = Ok(());
        let mut emit = |piece: Gather<'_>, _| {
            result = rings.write(socket, &piece);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let _ = soften(frame, offload, &Capabilities::NONE, scratch, &mut emit)?;
        result
    }
}

impl TxQueue for XdpTx {
    fn send(&self, burst: &Burst, frames: &[u8]) -> SendReport {
        let mut report = SendReport::default();
        let mut side = self.side();
        side.rings.reclaim(&self.socket);
        if side.rings.is_down {
            self.wake(&mut side.rings);
            if side.rings.is_down {
                report.drops.add(DropReason::PortDown, frames.len() as u64);
                return report;
            }
        }
        for index in frames.iter().map(|index| usize::from(*index)) {
            let frame = burst.gather(index);
            match side.write(&self.socket, &frame, burst.offload(index)) {
                Ok(()) => {
                    report.frames += 1;
                    report.bytes += frame.len() as u64;
                    report.copied_bytes += frame.body_len() as u64;
                }
                Err(reason) => report.drops.add(reason, 1),
            }
        }
        self.wake(&mut side.rings);
        report
    }
}
