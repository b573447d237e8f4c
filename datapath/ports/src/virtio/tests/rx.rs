//! A guest's transmit queue: every legal layout of a frame comes out as the same frame.

use frame::{Burst, Checksum, DropReason, MAX_SEGMENTS, Offload};
use proptest::prelude::*;

use super::driver::{DATA, Driver, GUEST_BASE, INDIRECT, MODERN, NEXT, descriptor, pattern};
use crate::virtio::{Features, VirtioRx};
use crate::{PollReport, RxQueue};

/// One poll: the frames it lent, and its report.
pub(super) fn poll(rx: &mut VirtioRx) -> (Vec<(Vec<u8>, Offload)>, PollReport) {
    let mut burst = Burst::new();
    let mut frames = Vec::new();
    let report = rx.poll(&mut burst, &mut |burst| {
        for index in 0..burst.len() {
            frames.push((burst.gather(index).to_vec(), burst.offload(index)));
        }
    });
    assert!(burst.is_empty());
    assert_eq!(report.frames, frames.len() as u64);
    assert_eq!(report.bytes, frames.iter().map(|(bytes, _)| bytes.len() as u64).sum::<u64>());
    (frames, report)
}

fn with_header(frame: &[u8]) -> Vec<u8> {
    [&[0; 12], frame].concat()
}

#[test]
fn a_frame_in_one_descriptor_is_lent_and_given_back() {
    let mut driver = Driver::new(8, MODERN);
    let (_slot, mut rx) = driver.rx();
    let frame = pattern(1500, 1);
    driver.write(DATA, &with_header(&frame));
    driver.desc(3, (DATA, 1512), 0, 0);
    driver.offer(3);
    let (frames, report) = poll(&mut rx);
    assert_eq!(frames, [(frame, Offload::NONE)]);
    assert_eq!(report.drops.total(), 0);
    assert_eq!(driver.used(), [(3, 0)]);
    assert_eq!(poll(&mut rx).1, PollReport::default(), "nothing more");
}

#[test]
fn a_ten_byte_header_is_understood_without_version_1_and_mergeable_buffers() {
    let mut driver = Driver::new(8, Features::default());
    let (_slot, mut rx) = driver.rx();
    let frame = pattern(60, 2);
    driver.write(DATA, &[&[0; 10], &frame[..]].concat());
    driver.desc(0, (DATA, 70), 0, 0);
    driver.offer(0);
    assert_eq!(poll(&mut rx).0, [(frame, Offload::NONE)]);
}

#[test]
fn the_offload_travels_with_the_frame() {
    let mut driver = Driver::new(8, MODERN);
    let (_slot, mut rx) = driver.rx();
    let frame = pattern(100, 3);
    let mut bytes = with_header(&frame);
    bytes[0] = 1;
    bytes[6..10].copy_from_slice(&[34, 0, 16, 0]);
    driver.write(DATA, &bytes);
    driver.desc(0, (DATA, 112), 0, 0);
    driver.offer(0);
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, ..Offload::NONE };
    assert_eq!(poll(&mut rx).0, [(frame, offload)]);
}

#[test]
fn a_chain_over_two_regions_is_one_frame_of_two_segments() {
    let split = DATA - GUEST_BASE + 500;
    let mut driver = Driver::with_regions(8, MODERN, &[split, 0x10_0000]);
    let (_slot, mut rx) = driver.rx();
    let frame = pattern(1500, 4);
    driver.write(DATA, &with_header(&frame));
    driver.desc(0, (DATA, 1512), 0, 0);
    driver.offer(0);
    assert_eq!(poll(&mut rx).0, [(frame, Offload::NONE)]);
}

#[test]
fn a_burst_is_published_with_one_step_of_the_used_index() {
    let mut driver = Driver::new(64, MODERN);
    let (_slot, mut rx) = driver.rx();
    for index in 0..40 {
        driver.desc(index, (DATA, 72), 0, 0);
        driver.offer(index);
    }
    let mut burst = Burst::new();
    let mut during = None;
    rx.poll(&mut burst, &mut |burst| during = Some((burst.len(), driver.used_index())));
    assert_eq!(during, Some((32, 0)), "nothing is given back while the burst is lent");
    assert_eq!(driver.used_index(), 32);
    assert_eq!(poll(&mut rx).1.frames, 8);
    assert_eq!(driver.used().len(), 40);
}

#[test]
fn a_frame_of_too_many_segments_is_a_named_drop() {
    let mut driver = Driver::new(512, MODERN);
    let (_slot, mut rx) = driver.rx();
    let descriptors = MAX_SEGMENTS as u16 + 10;
    for index in 0..descriptors {
        let last = index + 1 == descriptors;
        driver.desc(index, (DATA, 12), if last { 0 } else { NEXT }, index + 1);
    }
    driver.offer(0);
    let (frames, report) = poll(&mut rx);
    assert!(frames.is_empty());
    assert_eq!(report.drops.get(DropReason::TooManySegments), 1);
    assert_eq!(driver.used(), [(0, 0)]);
}

#[test]
fn indices_wrap_around() {
    let mut driver = Driver::new(4, MODERN);
    driver.set_used_index(u16::MAX - 1);
    let (_slot, mut rx) = driver.rx();
    for round in 0..8 {
        driver.desc(0, (DATA, 72), 0, 0);
        driver.offer(0);
        assert_eq!(poll(&mut rx).1.frames, 1, "round {round}");
    }
    assert_eq!(driver.used_index(), 6);
}

/// How a frame with its header is laid out: the cuts, and from which descriptor on they lie in an indirect table.
fn layouts() -> impl Strategy<Value = (usize, Vec<usize>, Option<usize>)> {
    let cuts = proptest::collection::vec(0usize..3000, 0..6);
    (1usize..5000, cuts, proptest::option::of(0usize..6))
}

proptest! {
    #[test]
    fn any_layout_of_a_frame_gives_the_same_frame((len, mut cuts, indirect) in layouts(), seed: u8) {
        let mut driver = Driver::new(16, MODERN);
        let (_slot, mut rx) = driver.rx();
        let frame = pattern(len, seed);
        let bytes = with_header(&frame);
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut start = 0;
        let mut parts = Vec::new();
        for (index, end) in cuts.into_iter().enumerate() {
            // Apart from each other, so that nothing is contiguous by luck.
            let addr = DATA + index as u64 * 0x4000;
            driver.write(addr, &bytes[start..end]);
            parts.push((addr, (end - start) as u32));
            start = end;
        }
        let direct = indirect.map_or(parts.len(), |at| at.min(parts.len() - 1));
        for (index, (addr, len)) in parts[..direct].iter().enumerate() {
            let more = index + 1 < parts.len();
            driver.desc(index as u16, (*addr, *len), if more { NEXT } else { 0 }, index as u16 + 1);
        }
        let rest = &parts[direct..];
        if !rest.is_empty() {
            let table = DATA + 0x4_0001;
            for (index, (addr, len)) in rest.iter().enumerate() {
                let flags = if index + 1 < rest.len() { NEXT } else { 0 };
                let bytes = descriptor(*addr, *len, flags, index as u16 + 1);
                driver.write(table + index as u64 * 16, &bytes);
            }
            driver.desc(direct as u16, (table, rest.len() as u32 * 16), INDIRECT, 0);
        }
        driver.offer(0);
        let (frames, report) = poll(&mut rx);
        prop_assert_eq!(report.drops.total(), 0);
        prop_assert_eq!(frames, [(frame, Offload::NONE)]);
        prop_assert_eq!(driver.used(), [(0, 0)]);
    }
}
