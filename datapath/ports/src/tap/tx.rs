//! Frames for the pod's kernel: one `writev(2)` each, straight from where they lie.

use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use frame::{Burst, DropReason, Gather, MAX_SEGMENTS, Offload};
use libc::iovec;

use super::Queue;
use crate::offload::{Capabilities, Scratch, needs_software, soften};
use crate::virtio::header;
use crate::{SendReport, TxQueue};

/// Pieces of one write: the header, the head, the body.
const MAX_PIECES: usize = 2 + MAX_SEGMENTS;

/// The transmit side of one queue.
pub(super) struct TapTx {
    queue: Arc<Queue>,
    capabilities: Capabilities,
}

impl TapTx {
    pub(super) fn new(queue: Arc<Queue>, capabilities: Capabilities) -> Self {
        Self { queue, capabilities }
    }

    /// Writes one frame with the work that is left to the kernel.
    fn write(&self, frame: &Gather<'_>, offload: &Offload) -> Result<(), DropReason> {
        let header = header::encode(offload);
        let mut pieces = [const { MaybeUninit::<iovec>::uninit() }; MAX_PIECES];
        let first = [(header.as_ptr(), header.len()), (frame.head().as_ptr(), frame.head().len())];
        let body = frame.body().map(|run| (run.base(), run.len()));
        let mut count = 0;
        for (piece, (base, len)) in pieces.iter_mut().zip(first.into_iter().chain(body)) {
            piece.write(iovec { iov_base: base.cast_mut().cast(), iov_len: len });
            count += 1;
        }
        // SAFETY: the first `count` pieces are written. They are the header and the head, which live here, and runs of
        // the body, readable for the burst's life (`Segment::new`); the kernel only reads them.
        let written = unsafe { libc::writev(self.queue.fd.as_raw_fd(), pieces.as_ptr().cast(), count) };
        if written >= 0 { Ok(()) } else { Err(self.refusal()) }
    }

    /// What the errno of a failed write means for the frame.
    #[cold]
    fn refusal(&self) -> DropReason {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        match errno {
            libc::EAGAIN | libc::ENOBUFS => DropReason::RingFull,
            // EIO: the netdev is not up. EBADFD: it was deleted.
            libc::EIO | libc::EBADFD => DropReason::PortDown,
            _ => {
                self.queue.refusal.store(errno, Relaxed);
                DropReason::KernelRefused
            }
        }
    }

    /// Writes a frame after doing what the kernel may not be left with. All of its pieces, or none and a reason, or
    /// the first few and a reason: the receiver's transport then repeats the rest.
    #[cold]
    fn write_softened(&self, frame: &Gather<'_>, offload: Offload) -> Result<(), DropReason> {
        let mut refused = Ok(());
        let mut scratch = Scratch::default();
        let mut emit = |piece: Gather<'_>, left: Offload| {
            refused = self.write(&piece, &left);
            if refused.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let _ = soften(frame, offload, &self.capabilities, &mut scratch, &mut emit)?;
        refused
    }
}

impl TxQueue for TapTx {
    fn send(&self, burst: &Burst, frames: &[u8]) -> SendReport {
        let mut report = SendReport::default();
        for index in frames.iter().map(|index| usize::from(*index)) {
            let frame = burst.gather(index);
            let offload = burst.offload(index);
            let sent = if needs_software(&offload, &self.capabilities) {
                self.write_softened(&frame, offload)
            } else {
                self.write(&frame, &offload)
            };
            match sent {
                Ok(()) => {
                    report.frames += 1;
                    report.bytes += frame.len() as u64;
                }
                Err(reason) => report.drops.add(reason, 1),
            }
        }
        report
    }
}
