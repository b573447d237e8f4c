//! A guest's receive queue: whole frames or nothing, the payload copied once, the header true for this guest.

use frame::{Burst, Checksum, DropReason, Gso, GsoKind, Offload};
use proptest::prelude::*;

use super::driver::{DATA, Driver, MODERN, NEXT, WRITE, memfd, pattern};
use crate::virtio::header::{HEADER_BYTES, Source, decode};
use crate::virtio::{DirtyLog, Features, QueueLog, QueueSetup, VirtioTx};
use crate::{RxQueue, SendReport, TxQueue};

/// Sends `frames` as one burst.
pub(super) fn send(tx: &VirtioTx, frames: &[(Vec<u8>, Offload)]) -> SendReport {
    let mut burst = Burst::new();
    for (bytes, offload) in frames {
        // SAFETY: the bytes live until the burst is dropped.
        unsafe { burst.push(bytes.as_ptr(), bytes.len(), *offload) }.unwrap();
    }
    let indices: Vec<u8> = (0..frames.len() as u8).collect();
    let report = tx.send(&burst, &indices);
    assert_eq!(report.frames + report.drops.total(), frames.len() as u64);
    report
}

fn plain(len: usize, seed: u8) -> (Vec<u8>, Offload) {
    (pattern(len, seed), Offload::NONE)
}

/// Offers `count` single buffers of `len` bytes, buffer `i` at `DATA + i * 0x1000`.
fn offer_buffers(driver: &mut Driver, count: u16, len: u32) {
    for index in 0..count {
        driver.desc(index, (buffer(index), len), WRITE, 0);
        driver.offer(index);
    }
}

fn buffer(index: u16) -> u64 {
    DATA + u64::from(index) * 0x1000
}

/// The frames that the driver would take out of the ring, with their headers; buffers as [`offer_buffers`] makes them.
fn received(driver: &mut Driver, header_bytes: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = driver.used().into_iter();
    let mut frames = Vec::new();
    while let Some((id, len)) = entries.next() {
        let mut bytes = driver.read(buffer(id as u16), len as usize);
        let header = bytes[..header_bytes].to_vec();
        let buffers =
            if header_bytes == HEADER_BYTES { u16::from_le_bytes([header[10], header[11]]) } else { 1 };
        for _ in 1..buffers {
            let (id, len) = entries.next().expect("as many buffers as the header says");
            bytes.extend(driver.read(buffer(id as u16), len as usize));
        }
        frames.push((header, bytes[header_bytes..].to_vec()));
    }
    frames
}

#[test]
fn frames_arrive_whole_and_in_order() {
    let mut driver = Driver::new(64, MODERN);
    let (_slot, tx) = driver.tx();
    offer_buffers(&mut driver, 40, 2048);
    let frames: Vec<_> = (0..32).map(|seed| plain(60 + usize::from(seed) * 50, seed)).collect();
    let report = send(&tx, &frames);
    assert_eq!(report.frames, 32);
    assert_eq!(report.bytes, frames.iter().map(|(bytes, _)| bytes.len() as u64).sum::<u64>());
    let got = received(&mut driver, 12);
    assert!(got.iter().map(|(_, bytes)| bytes).eq(frames.iter().map(|(bytes, _)| bytes)));
    assert!(got.iter().all(|(header, _)| header[..10] == [0; 10] && header[10..] == [1, 0]));
}

#[test]
fn a_large_frame_is_spread_over_mergeable_buffers() {
    let mut driver = Driver::new(64, MODERN);
    let (_slot, tx) = driver.tx();
    offer_buffers(&mut driver, 64, 2000);
    let frames = [plain(60_000, 1), plain(64, 2)];
    assert_eq!(send(&tx, &frames).frames, 2);
    let got = received(&mut driver, 12);
    assert_eq!(got[0].0[10..], 31u16.to_le_bytes());
    assert_eq!(got[0].1, frames[0].0);
    assert_eq!(got[1].1, frames[1].0);
}

#[test]
fn a_large_frame_fits_a_chain_of_a_driver_without_mergeable_buffers() {
    let mut driver = Driver::new(64, Features::VERSION_1);
    let (_slot, tx) = driver.tx();
    for index in 0..20 {
        let flags = WRITE | if index < 19 { NEXT } else { 0 };
        driver.desc(index, (buffer(index), 0x1000), flags, index + 1);
    }
    driver.offer(0);
    let (frame, offload) = plain(65_000, 1);
    assert_eq!(send(&tx, &[(frame.clone(), offload)]).frames, 1);
    assert_eq!(driver.used(), [(0, 65_012)]);
    assert_eq!(driver.read(DATA + 12, 65_000), frame);
}

#[test]
fn a_frame_larger_than_the_only_chain_it_may_use_is_too_big_and_the_chain_stays() {
    let mut driver = Driver::new(8, Features::VERSION_1);
    let (_slot, tx) = driver.tx();
    offer_buffers(&mut driver, 2, 1526);
    let report = send(&tx, &[plain(1600, 1), plain(1500, 2)]);
    assert_eq!((report.frames, report.drops.get(DropReason::TooBig)), (1, 1));
    assert_eq!(driver.used(), [(0, 1512)]);
}

#[test]
fn a_ten_byte_header_is_written_without_version_1_and_mergeable_buffers() {
    let mut driver = Driver::new(8, Features::default());
    let (_slot, tx) = driver.tx();
    offer_buffers(&mut driver, 1, 2048);
    let frame = plain(100, 1);
    send(&tx, std::slice::from_ref(&frame));
    assert_eq!(received(&mut driver, 10), [(vec![0; 10], frame.0)]);
}

#[test]
fn a_full_ring_drops_whole_frames_and_shows_no_part_of_them() {
    let mut driver = Driver::new(16, MODERN);
    let (_slot, tx) = driver.tx();
    offer_buffers(&mut driver, 4, 1000);
    // Three buffers for the first frame; the second needs three more of which there is one; the third fits that one.
    let frames = [plain(2500, 1), plain(2500, 2), plain(500, 3)];
    let report = send(&tx, &frames);
    assert_eq!((report.frames, report.drops.get(DropReason::RingFull)), (2, 1));
    let got: Vec<_> = received(&mut driver, 12).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(got, [frames[0].0.clone(), frames[2].0.clone()]);
    assert_eq!(report.copied_bytes, (2500 - 128) + (500 - 128));
}

#[test]
fn an_empty_slot_and_a_disabled_one_are_ports_that_are_down() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, tx) = driver.tx();
    offer_buffers(&mut driver, 4, 1000);
    slot.set_enabled(false);
    assert_eq!(send(&tx, &[plain(60, 1)]).drops.get(DropReason::PortDown), 1);
    slot.set_enabled(true);
    slot.remove();
    assert_eq!(send(&tx, &[plain(60, 1)]).drops.get(DropReason::PortDown), 1);
    assert_eq!(driver.used(), []);
}

#[test]
fn a_queue_that_does_not_run_falls_back_to_the_first() {
    let mut first = Driver::new(16, MODERN);
    let second = Driver::new(16, MODERN);
    let (first_slot, _) = first.tx();
    let (second_slot, _) = second.tx();
    offer_buffers(&mut first, 4, 1000);
    second_slot.set_enabled(false);
    let tx = VirtioTx::with_fallback(second_slot, first_slot);
    assert_eq!(send(&tx, &[plain(60, 1)]).frames, 1);
    assert_eq!(first.used().len(), 1);
}

#[test]
fn a_malformed_receive_buffer_is_given_back_empty_and_costs_one_frame() {
    let mut driver = Driver::new(8, MODERN);
    let (_slot, tx) = driver.tx();
    driver.desc(0, (DATA, 2048), 0, 0); // not for the device to write
    driver.desc(1, (buffer(1), 2048), WRITE, 0);
    driver.offer(0);
    driver.offer(1);
    let report = send(&tx, &[plain(60, 1), plain(60, 2)]);
    assert_eq!((report.frames, report.drops.get(DropReason::BadDescriptor)), (1, 1));
    assert_eq!(driver.used(), [(0, 0), (1, 72)]);
    assert_eq!(driver.read(DATA, 72), [0; 72], "the buffer was not written");
}

/// An Ethernet + IPv4 + TCP frame with its checksum left to others, and what is left.
fn tcp_frame(payload: usize, gso_size: Option<u16>) -> (Vec<u8>, Offload) {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let total = (40 + payload) as u16;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x12, 0x34, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(pattern(payload, 7));
    let gso = gso_size.map(|size| Gso { kind: GsoKind::TcpV4, size, ecn: false, headers_bytes: 54 });
    (frame, Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso, ..Offload::NONE })
}

#[test]
fn a_driver_that_negotiated_segmentation_gets_the_frame_whole() {
    let features = MODERN.with(Features::GUEST_CSUM).with(Features::GUEST_TSO4);
    let mut driver = Driver::new(64, features);
    let (_slot, tx) = driver.tx();
    offer_buffers(&mut driver, 40, 0x1000);
    let frame = tcp_frame(60_000, Some(1448));
    assert_eq!(send(&tx, std::slice::from_ref(&frame)).frames, 1);
    let got = received(&mut driver, 12);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].1, frame.0);
    let header = got[0].0.clone().try_into().unwrap();
    assert_eq!(decode(&header, frame.0.len(), Source::Guest), Ok(frame.1));
}

#[test]
fn a_driver_that_negotiated_nothing_gets_finished_segments() {
    let mut driver = Driver::new(64, MODERN);
    let (_slot, tx) = driver.tx();
    offer_buffers(&mut driver, 40, 0x1000);
    let frame = tcp_frame(10_000, Some(1448));
    let report = send(&tx, std::slice::from_ref(&frame));
    assert_eq!(report.frames, 1, "a frame that is cut counts once");
    let body = frame.0.len() - frame::HEAD_BYTES;
    assert_eq!(report.copied_bytes, body as u64, "the payload is copied once all the same");
    let got = received(&mut driver, 12);
    assert_eq!(got.len(), 7);
    let payload: Vec<u8> = got.iter().flat_map(|(_, bytes)| bytes[54..].to_vec()).collect();
    assert_eq!(payload, frame.0[54..]);
    assert!(got.iter().all(|(header, _)| header[..10] == [0; 10]), "nothing is left to do");
}

#[test]
fn data_valid_is_told_only_to_a_driver_that_knows_it() {
    for (features, flag) in [(MODERN, 0), (MODERN.with(Features::GUEST_CSUM), 2)] {
        let mut driver = Driver::new(8, features);
        let (_slot, tx) = driver.tx();
        offer_buffers(&mut driver, 1, 2048);
        send(&tx, &[(pattern(60, 1), Offload { checksum: Checksum::Valid, ..Offload::NONE })]);
        assert_eq!(received(&mut driver, 12)[0].0[0], flag);
    }
}

#[test]
fn guest_to_guest_the_payload_is_copied_once() {
    let mut from = Driver::new(64, MODERN);
    let mut to = Driver::new(64, MODERN);
    let (_from_slot, mut rx) = from.rx();
    let (_to_slot, tx) = to.tx();
    offer_buffers(&mut to, 60, 2000);
    let frames: Vec<_> = [64usize, 129, 1500, 9000].iter().map(|len| pattern(*len, *len as u8)).collect();
    for (index, frame) in frames.iter().enumerate() {
        let addr = DATA + index as u64 * 0x4000;
        from.write(addr, &[&[0; 12], &frame[..]].concat());
        from.desc(index as u16, (addr, 12 + frame.len() as u32), 0, 0);
        from.offer(index as u16);
    }
    let mut sent = SendReport::default();
    let received_report = rx.poll(&mut Burst::new(), &mut |burst| {
        let indices: Vec<u8> = (0..burst.len() as u8).collect();
        sent = tx.send(burst, &indices);
    });
    assert_eq!((received_report.frames, sent.frames), (4, 4));
    // Heads are the switch's private copies; every other byte was copied exactly once on its way.
    let bodies: usize = frames.iter().map(|frame| frame.len().saturating_sub(frame::HEAD_BYTES)).sum();
    assert_eq!(sent.copied_bytes, bodies as u64);
    let got: Vec<_> = received(&mut to, 12).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(got, frames);
}

#[test]
fn every_page_that_the_device_writes_is_logged() {
    let mut driver = Driver::new(8, MODERN);
    offer_buffers(&mut driver, 8, 1000);
    let log_file = memfd(0x1000);
    let log = DirtyLog::map(std::os::fd::AsFd::as_fd(&log_file), 0, 0x1000).unwrap();
    let slot = crate::virtio::QueueSlot::for_transmit();
    let used_guest_addr = Some(0x3000);
    slot.install(QueueSetup { log: Some(QueueLog { log, used_guest_addr }), ..driver.setup() }).unwrap();
    slot.set_enabled(true);
    let tx = VirtioTx::new(slot);
    // One frame in one buffer, one over three.
    assert_eq!(send(&tx, &[plain(60, 1), plain(2500, 2)]).frames, 2);
    let mut bits = [0; 0x1000];
    std::os::unix::fs::FileExt::read_exact_at(&log_file, &mut bits, 0).unwrap();
    let marked: Vec<usize> =
        (0..bits.len() * 8).filter(|page| bits[page / 8] >> (page % 8) & 1 == 1).collect();
    let first = (DATA / 0x1000) as usize;
    assert_eq!(marked, [3, first, first + 1, first + 2, first + 3]);
}

proptest! {
    /// Whatever the buffers, each frame arrives exactly as it was or is a named drop.
    #[test]
    fn frames_arrive_whole_or_not_at_all(
        lens in proptest::collection::vec(1usize..6000, 1..32),
        buffers in proptest::collection::vec(13u32..4096, 0..64),
        mergeable: bool,
    ) {
        let features = if mergeable { MODERN } else { Features::VERSION_1 };
        let mut driver = Driver::new(64, features);
        let (_slot, tx) = driver.tx();
        for (index, len) in buffers.iter().enumerate() {
            driver.desc(index as u16, (buffer(index as u16), *len), WRITE, 0);
            driver.offer(index as u16);
        }
        let frames: Vec<_> = lens.iter().enumerate().map(|(seed, len)| plain(*len, seed as u8)).collect();
        let report = send(&tx, &frames);
        let got = received(&mut driver, 12);
        prop_assert_eq!(got.len() as u64, report.frames);
        let mut sent = frames.iter();
        for (_, bytes) in &got {
            prop_assert!(sent.any(|(frame, _)| frame == bytes), "in order, and as it was");
        }
    }
}
