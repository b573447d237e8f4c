//! What went through a port, for a person with a protocol analyser? A device wrapped so that each frame is also written
//! to a capture file (pcap, draft-ietf-opsawg-pcap).
//!
//! For tests and state dumps: it copies every frame and locks. A file that cannot be written ends the capture, never the
//! traffic.

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use frame::Burst;

use crate::{Device, PollReport, RxQueue, SendReport, TxQueue};

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
/// No frame is longer, so none is cut.
const SNAP_BYTES: u32 = 0x4_0000;

/// A capture that any number of ports write to.
#[derive(Clone)]
pub struct Capture(Arc<Mutex<Sink>>);

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

struct Sink {
    /// `None` once a write has failed.
    to: Option<Box<dyn Write + Send>>,
    start: Instant,
}

impl Capture {
    /// Begins a capture; its time stamps count from now.
    ///
    /// # Errors
    /// The header cannot be written.
    #[allow(clippy::disallowed_methods, reason = "a capture's time stamps are its own, not the switch's")]
    pub fn begin(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NANOSECONDS.to_le_bytes());
        header.extend(2u16.to_le_bytes());
        header.extend(4u16.to_le_bytes());
        header.extend([0; 8]);
        header.extend(SNAP_BYTES.to_le_bytes());
        header.extend(LINKTYPE_ETHERNET.to_le_bytes());
        to.write_all(&header)?;
        Ok(Self(Arc::new(Mutex::new(Sink { to: Some(Box::new(to)), start: Instant::now() }))))
    }

    /// `device`, with every frame that comes in or goes out also written to this capture.
    pub fn of(&self, device: Device) -> Device {
        let Device { rx, tx, handle } = device;
        let rx =
            rx.into_iter().map(|queue| Box::new(Rx { queue, capture: self.clone() }) as Box<dyn RxQueue>);
        let tx =
            tx.into_iter().map(|queue| Arc::new(Tx { queue, capture: self.clone() }) as Arc<dyn TxQueue>);
        Device { rx: rx.collect(), tx: tx.collect(), handle }
    }

    fn write(&self, burst: &Burst, frames: impl Iterator<Item = usize>) {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = sink.start.elapsed();
        let Some(to) = &mut sink.to else { return };
        let written = frames.map(|index| burst.gather(index).to_vec()).try_for_each(|frame| {
            to.write_all(&record_header(since, frame.len() as u32))?;
            to.write_all(&frame)
        });
        if written.and_then(|()| to.flush()).is_err() {
            sink.to = None;
        }
    }
}

fn record_header(since: Duration, bytes: u32) -> [u8; 16] {
    let mut header = [0; 16];
    let fields = [since.as_secs() as u32, since.subsec_nanos(), bytes, bytes];
    for (to, field) in header.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_le_bytes());
    }
    header
}

struct Rx {
    queue: Box<dyn RxQueue>,
    capture: Capture,
}

impl RxQueue for Rx {
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        let capture = &self.capture;
        self.queue.poll(burst, &mut |burst| {
            capture.write(burst, 0..burst.len());
            turn(burst);
        })
    }

    fn arm(&mut self) -> bool {
        self.queue.arm()
    }

    fn disarm(&mut self) {
        self.queue.disarm();
    }

    fn fd(&self) -> Option<RawFd> {
        self.queue.fd()
    }
}

struct Tx {
    queue: Arc<dyn TxQueue>,
    capture: Capture,
}

impl TxQueue for Tx {
    fn send(&self, burst: &Burst, frames: &[u8]) -> SendReport {
        self.capture.write(burst, frames.iter().map(|frame| usize::from(*frame)));
        self.queue.send(burst, frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{self, MemSpec};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn both_directions_are_written_as_records() {
        let file = Shared::default();
        let (device, peer) = mem::open(MemSpec::default()).unwrap();
        let mut device = Capture::begin(file.clone()).unwrap().of(device);
        peer.inject((0..200).collect::<Vec<u8>>());
        let tx = device.tx[0].clone();
        device.rx[0].poll(&mut Burst::new(), &mut |burst| {
            tx.send(burst, &[0]);
        });
        let bytes = file.0.lock().unwrap();
        assert_eq!(bytes.len(), 24 + 2 * (16 + 200));
        assert_eq!(bytes[24 + 8..24 + 12], 200u32.to_le_bytes());
        assert_eq!(bytes[40..240], (0..200).collect::<Vec<u8>>());
        assert_eq!(bytes[40..240], bytes[256..456]);
        assert_eq!(peer.collect().len(), 1);
    }
}
