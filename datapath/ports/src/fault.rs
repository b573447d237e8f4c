//! What if frames are lost, damaged or late? A device wrapped so that some of what it sends is. Tests only.
//!
//! Which frames suffer is drawn from a seed, so that a failing run can be repeated.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use frame::{Burst, DropReason, Offload};

use crate::{Device, SendReport, TxQueue};

/// How often each fault strikes, in frames out of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Frames that end as [`DropReason::Fault`].
    pub drop_per_mille: u16,
    /// Frames in which one bit is flipped.
    pub corrupt_per_mille: u16,
    /// Frames that are sent only after the next ones of their queue.
    pub delay_per_mille: u16,
}

/// `device`, with `faults` in what it sends, drawn from `seed`.
pub fn wrap(device: Device, faults: Faults, seed: u64) -> Device {
    let Device { rx, tx, handle } = device;
    let wrapped = tx.into_iter().zip(0u64..).map(|(queue, number)| {
        let state = State { random: Random(seed ^ number), late: VecDeque::new() };
        Arc::new(Tx { queue, faults, state: Mutex::new(state) }) as Arc<dyn TxQueue>
    });
    Device { rx, tx: wrapped.collect(), handle }
}

/// splitmix64: enough to choose victims.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn strikes(&mut self, per_mille: u16) -> bool {
        self.next() % 1000 < u64::from(per_mille)
    }
}

struct State {
    random: Random,
    /// Frames held back until the next send.
    late: VecDeque<(Vec<u8>, Offload)>,
}

struct Tx {
    queue: Arc<dyn TxQueue>,
    faults: Faults,
    state: Mutex<State>,
}

impl Tx {
    /// Sends frames made here, in place of the burst's.
    fn send_made(&self, made: Vec<(Vec<u8>, Offload)>, report: &mut SendReport) {
        let mut burst = Burst::new();
        for (bytes, offload) in made {
            if burst.is_full() {
                self.send_burst(&burst, report);
                burst.clear();
            }
            if burst.push_owned(bytes, offload).is_err() {
                report.drops.add(DropReason::Fault, 1);
            }
        }
        self.send_burst(&burst, report);
    }

    fn send_burst(&self, burst: &Burst, report: &mut SendReport) {
        let frames: Vec<u8> = (0..burst.len() as u8).collect();
        let sent = self.queue.send(burst, &frames);
        report.frames += sent.frames;
        report.bytes += sent.bytes;
        report.copied_bytes += sent.copied_bytes;
        report.drops.merge(&sent.drops);
    }
}

impl TxQueue for Tx {
    /// Late frames are counted as sent when they are held back, so that each send accounts for its own frames; what
    /// becomes of them later is this wrapper's secret.
    fn send(&self, burst: &Burst, frames: &[u8]) -> SendReport {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = SendReport::default();
        let overdue: Vec<_> = state.late.drain(..).collect();
        let mut made = Vec::new();
        for index in frames.iter().map(|frame| usize::from(*frame)) {
            let (mut bytes, offload) = (burst.gather(index).to_vec(), burst.offload(index));
            if state.random.strikes(self.faults.drop_per_mille) {
                report.drops.add(DropReason::Fault, 1);
                continue;
            }
            if state.random.strikes(self.faults.corrupt_per_mille) {
                let bit = state.random.next() as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            if state.random.strikes(self.faults.delay_per_mille) {
                report.frames += 1;
                report.bytes += bytes.len() as u64;
                state.late.push_back((bytes, offload));
                continue;
            }
            made.push((bytes, offload));
        }
        self.send_made(made, &mut report);
        self.send_made(overdue, &mut SendReport::default());
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{self, MemPeer, MemSpec};

    fn through(faults: Faults, frames: usize) -> (SendReport, MemPeer) {
        let (device, peer) = mem::open(MemSpec::default()).unwrap();
        let device = wrap(device, faults, 7);
        let mut total = SendReport::default();
        for number in 0..frames {
            let mut burst = Burst::new();
            burst.push_owned(vec![number as u8; 60], Offload::NONE).unwrap();
            let sent = device.tx[0].send(&burst, &[0]);
            assert_eq!(sent.frames + sent.drops.total(), 1);
            total.frames += sent.frames;
            total.drops.merge(&sent.drops);
        }
        (total, peer)
    }

    #[test]
    fn dropped_frames_are_counted_as_faults() {
        let (sent, peer) = through(Faults { drop_per_mille: 300, ..Faults::default() }, 100);
        let lost = sent.drops.get(DropReason::Fault);
        assert!((1..100).contains(&lost), "{lost}");
        assert_eq!(peer.collect().len() as u64, 100 - lost);
    }

    #[test]
    fn a_corrupt_frame_differs_in_one_bit() {
        let (_, peer) = through(Faults { corrupt_per_mille: 1000, ..Faults::default() }, 10);
        for (number, frame) in peer.collect().into_iter().enumerate() {
            let flipped: u32 = frame.bytes.iter().map(|byte| (byte ^ number as u8).count_ones()).sum();
            assert_eq!(flipped, 1);
        }
    }

    #[test]
    fn a_late_frame_comes_after_the_next() {
        let (_, peer) = through(Faults { delay_per_mille: 500, ..Faults::default() }, 100);
        let order: Vec<u8> = peer.collect().into_iter().map(|frame| frame.bytes[0]).collect();
        assert!(!order.is_sorted(), "{order:?}");
        assert!(order.len() >= 99, "only the last may still be held back");
    }
}
