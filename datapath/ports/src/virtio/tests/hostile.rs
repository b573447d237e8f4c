//! A guest that breaks the rules, one test for each way that has been a CVE somewhere: a named drop or a named fault,
//! never a panic, a hang, or a byte outside its memory.

use frame::{Burst, Checksum, DropReason, Offload};
use proptest::prelude::*;

use super::driver::{
    DATA, Driver, GUEST_BASE, INDIRECT, MEMORY_BYTES, MODERN, NEXT, Stop, WRITE, descriptor, pattern,
};
use super::rx::poll;
use super::tx::send;
use crate::RxQueue;
use crate::virtio::{Features, RingError, SlotState};

/// The head that a hostile chain starts with.
const HEAD: u16 = 0;
const TABLE: u64 = DATA + 0x1_0000;

/// Polls a chain that starts at [`HEAD`], and expects it back empty and counted as `reason`; then a good frame passes.
fn is_dropped(mut driver: Driver, reason: DropReason) {
    let (slot, mut rx) = driver.rx();
    driver.offer(HEAD);
    let (frames, report) = poll(&mut rx);
    assert!(frames.is_empty());
    assert_eq!(report.drops.get(reason), 1, "{:?}", report.drops);
    assert_eq!(driver.used(), [(u32::from(HEAD), 0)]);
    driver.desc(7, (DATA, 72), 0, 0);
    driver.offer(7);
    assert_eq!(poll(&mut rx).1.frames, 1, "the ring goes on");
    assert_eq!(slot.state(), SlotState::Running);
}

fn is_bad(driver: Driver) {
    is_dropped(driver, DropReason::BadDescriptor);
}

#[test]
fn direct_descriptor_loop_is_bounded() {
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (DATA, 10), NEXT, 1);
    driver.desc(1, (DATA, 10), NEXT, 0);
    is_bad(driver);
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (DATA, 0), NEXT, 0);
    is_bad(driver);
}

#[test]
fn indirect_descriptor_loop_is_bounded() {
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (TABLE, 32), INDIRECT, 0);
    driver.write(TABLE, &descriptor(DATA, 0, NEXT, 1));
    driver.write(TABLE + 16, &descriptor(DATA, 0, NEXT, 0));
    is_bad(driver);
}

#[test]
fn nested_indirect_table_is_refused() {
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (TABLE, 16), INDIRECT, 0);
    driver.write(TABLE, &descriptor(TABLE, 16, INDIRECT, 0));
    is_bad(driver);
}

#[test]
fn indirect_descriptor_with_next_is_refused() {
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (TABLE, 16), INDIRECT | NEXT, 1);
    driver.write(TABLE, &descriptor(DATA, 100, 0, 0));
    driver.desc(1, (DATA, 100), 0, 0);
    is_bad(driver);
}

#[test]
fn indirect_table_of_an_impossible_length_is_refused() {
    for len in [0, 8, 17, 16 * ((1 << 16) + 1), u32::MAX, u32::MAX - 15] {
        let driver = Driver::new(8, MODERN);
        driver.desc(0, (TABLE, len), INDIRECT, 0);
        driver.write(TABLE, &descriptor(DATA, 100, 0, 0));
        is_bad(driver);
    }
}

#[test]
fn indirect_table_that_leaves_its_region_is_refused() {
    for table in [GUEST_BASE + MEMORY_BYTES - 16, 0x10, u64::MAX - 7] {
        let driver = Driver::new(8, MODERN);
        driver.desc(0, (table, 32), INDIRECT, 0);
        is_bad(driver);
    }
}

#[test]
fn indirect_table_over_two_regions_is_refused() {
    let driver = Driver::with_regions(8, MODERN, &[TABLE - GUEST_BASE + 16, 0x10_0000]);
    driver.desc(0, (TABLE, 32), INDIRECT, 0);
    driver.write(TABLE, &descriptor(DATA, 50, NEXT, 1));
    driver.write(TABLE + 16, &descriptor(DATA, 50, 0, 0));
    is_bad(driver);
}

#[test]
fn indirect_table_that_was_not_negotiated_is_refused() {
    let driver = Driver::new(8, Features::VERSION_1);
    driver.desc(0, (TABLE, 16), INDIRECT, 0);
    driver.write(TABLE, &descriptor(DATA, 100, 0, 0));
    is_bad(driver);
}

#[test]
fn descriptor_index_outside_its_table_is_refused() {
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (DATA, 50), NEXT, 8);
    is_bad(driver);
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (TABLE, 32), INDIRECT, 0);
    driver.write(TABLE, &descriptor(DATA, 50, NEXT, 2));
    is_bad(driver);
}

#[test]
fn chain_head_outside_the_table_is_refused() {
    let mut driver = Driver::new(8, MODERN);
    let (_slot, mut rx) = driver.rx();
    for head in [8, 0x7fff, 0xffff] {
        driver.offer(head);
    }
    let (frames, report) = poll(&mut rx);
    assert!(frames.is_empty());
    assert_eq!(report.drops.get(DropReason::BadDescriptor), 3);
    assert_eq!(driver.used().len(), 3);
}

#[test]
fn out_of_bounds_and_wrap_around_addresses_are_refused() {
    let end = GUEST_BASE + MEMORY_BYTES;
    let ranges = [
        (0, 100),
        (GUEST_BASE - 1, 100),
        (end - 99, 100),
        (end, 1),
        (u64::MAX, 100),
        (u64::MAX - 50, 100),
        (DATA, u32::MAX),
        (u64::MAX - u64::from(u32::MAX), u32::MAX),
    ];
    for (addr, len) in ranges {
        for scattered in [false, true] {
            let driver = Driver::new(8, MODERN);
            if scattered {
                driver.desc(0, (DATA, 12), NEXT, 1);
                driver.desc(1, (addr, len), 0, 0);
            } else {
                driver.desc(0, (addr, len), 0, 0);
            }
            is_bad(driver);
        }
        let mut driver = Driver::new(8, MODERN);
        let (_slot, tx) = driver.tx();
        driver.desc(0, (addr, len.max(2048)), WRITE, 0);
        driver.offer(0);
        let report = send(&tx, &[(pattern(60, 1), Offload::NONE)]);
        assert_eq!(report.drops.get(DropReason::BadDescriptor), 1, "{addr:#x}+{len:#x}");
    }
}

/// Two regions that are neighbours for the guest lie anywhere in this process: a buffer across them is two pieces.
#[test]
fn non_contiguous_translation_writes_only_inside_the_regions() {
    let split = DATA - GUEST_BASE + 30;
    let mut driver = Driver::with_regions(8, MODERN, &[split, 0x10_0000]);
    let (_slot, tx) = driver.tx();
    driver.desc(0, (DATA, 2048), WRITE, 0);
    driver.offer(0);
    let frame = pattern(1500, 9);
    assert_eq!(send(&tx, &[(frame.clone(), Offload::NONE)]).frames, 1);
    assert_eq!(driver.used(), [(0, 1512)]);
    assert_eq!(driver.read(DATA + 12, 1500), frame);
}

#[test]
fn buffer_that_leaves_the_last_region_is_refused() {
    let driver = Driver::with_regions(8, MODERN, &[DATA - GUEST_BASE + 30, 100]);
    driver.desc(0, (DATA, 131), 0, 0);
    is_bad_without_a_good_frame(driver);
}

fn is_bad_without_a_good_frame(mut driver: Driver) {
    let (_slot, mut rx) = driver.rx();
    driver.offer(HEAD);
    assert_eq!(poll(&mut rx).1.drops.get(DropReason::BadDescriptor), 1);
}

#[test]
fn writable_descriptor_in_a_transmit_queue_is_refused() {
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (DATA, 100), WRITE, 0);
    is_bad(driver);
}

#[test]
fn chain_that_holds_no_frame_is_refused() {
    for len in [0, 1, 11, 12] {
        let driver = Driver::new(8, MODERN);
        driver.desc(0, (DATA, len), 0, 0);
        is_bad(driver);
    }
}

#[test]
fn frame_longer_than_any_frame_is_refused() {
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (DATA, 0x2_0000), 0, 0);
    is_bad(driver);
    let driver = Driver::new(8, MODERN);
    driver.desc(0, (DATA, 0x2_0000), NEXT, 1);
    driver.desc(1, (DATA, 0x2_0000), 0, 0);
    is_bad(driver);
}

#[test]
fn checksum_offsets_that_lie_are_dropped() {
    for scattered in [false, true] {
        let driver = Driver::new(8, MODERN);
        let mut header = [0; 12];
        header[0] = 1;
        header[6..10].copy_from_slice(&[50, 0, 16, 0]);
        driver.write(DATA, &header);
        if scattered {
            driver.desc(0, (DATA, 12), NEXT, 1);
            driver.desc(1, (DATA + 12, 60), 0, 0);
        } else {
            driver.desc(0, (DATA, 72), 0, 0);
        }
        let mut driver = driver;
        let (_slot, mut rx) = driver.rx();
        driver.offer(HEAD);
        assert_eq!(poll(&mut rx).1.drops.get(DropReason::BadOffload), 1);
        assert_eq!(driver.used(), [(0, 0)]);
    }
}

#[test]
fn available_index_more_than_a_ring_ahead_breaks_the_ring() {
    for (receive, ahead) in [(true, 9), (true, 0xffff), (false, 9), (false, 0x8000)] {
        let driver = Driver::new(8, MODERN);
        driver.set_avail_index(ahead);
        let fault = RingError::AvailIndex { avail: ahead, position: 0, size: 8 };
        let slot = if receive {
            let (slot, mut rx) = driver.rx();
            assert_eq!(poll(&mut rx).1, crate::PollReport::default());
            assert!(!rx.arm(), "a worker may sleep beside a broken ring");
            slot
        } else {
            let (slot, tx) = driver.tx();
            assert_eq!(send(&tx, &[(pattern(60, 1), Offload::NONE)]).drops.get(DropReason::PortDown), 1);
            slot
        };
        assert_eq!(slot.state(), SlotState::Broken(fault.clone()));
        assert!(!slot.is_running());
        assert_eq!(slot.remove().unwrap().fault, Some(fault));
    }
}

#[test]
fn available_index_that_goes_back_breaks_the_ring() {
    let mut driver = Driver::new(8, MODERN);
    let (slot, mut rx) = driver.rx();
    for _ in 0..4 {
        driver.desc(0, (DATA, 72), 0, 0);
        driver.offer(0);
    }
    assert_eq!(poll(&mut rx).1.frames, 4);
    driver.set_avail_index(2);
    poll(&mut rx);
    assert!(matches!(slot.state(), SlotState::Broken(RingError::AvailIndex { avail: 2, position: 4, .. })));
}

#[test]
fn used_index_that_the_guest_overwrites_is_not_read_back() {
    let mut driver = Driver::new(8, MODERN);
    let (slot, mut rx) = driver.rx();
    driver.desc(0, (DATA, 72), 0, 0);
    driver.offer(0);
    poll(&mut rx);
    let used_index = driver.addresses().used - super::driver::USER_BASE + GUEST_BASE + 2;
    driver.write(used_index, &0x1234u16.to_le_bytes());
    driver.offer(0);
    assert_eq!(poll(&mut rx).1.frames, 1);
    assert_eq!(driver.used_index(), 2);
    assert_eq!(slot.state(), SlotState::Running);
}

#[test]
fn used_index_that_makes_no_sense_at_the_start_breaks_the_ring() {
    let mut driver = Driver::new(8, MODERN);
    driver.set_used_index(1000);
    driver.set_avail_index(3);
    let (slot, mut rx) = driver.rx();
    poll(&mut rx);
    assert!(matches!(slot.state(), SlotState::Broken(RingError::AvailIndex { position: 1000, .. })));
}

/// TOCTOU: a thread rewrites descriptors, headers and payload between good and bad all the while. Whatever is lent was
/// checked: lengths are one of those offered, checksum fields are inside the frame, the head does not change.
#[test]
fn what_was_checked_is_what_is_used_while_the_guest_rewrites_it() {
    let mut driver = Driver::new(64, MODERN);
    let (slot, mut rx) = driver.rx();
    for index in 0..64 {
        driver.desc(index, (DATA, 112), 0, 0);
        driver.offer(index);
    }
    let stop = Stop::default();
    let lens = [100, 500];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let descriptors = [(DATA, 112, 0), (u64::MAX - 5, 112, 0), (DATA, 512, 0), (DATA, u32::MAX, 0)];
            for round in 0.. {
                if stop.is_set() {
                    break;
                }
                let (addr, len, flags) = descriptors[round % descriptors.len()];
                for index in 0..64 {
                    driver.desc(index, (addr, len), flags, 0);
                }
                let start = if round % 2 == 0 { 34u16 } else { 0xfff0 };
                driver.write(DATA, &[(round % 2) as u8, 0]);
                driver.write(DATA + 6, &start.to_le_bytes());
                driver.write(DATA + 12, &pattern(64, round as u8));
            }
        });
        let _stop = stop.on_drop();
        let mut burst = Burst::new();
        let mut polled = 0u64;
        for _ in 0..20_000 {
            driver.set_avail_index(driver.used_index().wrapping_add(32));
            let report = rx.poll(&mut burst, &mut |burst| {
                for index in 0..burst.len() {
                    let len = burst.frame_len(index);
                    assert!(lens.contains(&len), "{len}");
                    if let Checksum::Partial { start, offset } = burst.offload(index).checksum {
                        assert!(usize::from(start) + usize::from(offset) + 2 <= len);
                    }
                    let head = burst.head(index).to_vec();
                    std::hint::spin_loop();
                    assert_eq!(burst.head(index), head, "the head is private");
                    assert_eq!(burst.gather(index).to_vec().len(), len);
                }
            });
            polled += report.frames + report.drops.total();
        }
        assert_eq!(polled, 20_000 * 32);
    });
    assert_eq!(slot.state(), SlotState::Running);
}

/// A file that is truncated under us would be SIGBUS for the whole process.
#[test]
fn memory_file_that_is_truncated_breaks_its_own_ring_only() {
    let mut victim = Driver::new(8, MODERN);
    let (victim_slot, mut victim_rx) = victim.rx();
    let (_, victim_tx) = victim.tx();
    let mut other = Driver::new(8, MODERN);
    let (other_slot, mut other_rx) = other.rx();
    for driver in [&mut victim, &mut other] {
        driver.desc(0, (DATA, 1512), 0, 0);
        driver.offer(0);
    }
    let (slot, rx) = (victim_slot, &mut victim_rx);
    assert_eq!(poll(rx).1.frames, 1);
    victim.file.set_len(0).unwrap();
    poll(rx);
    assert_eq!(slot.state(), SlotState::Broken(RingError::MemoryLost));
    assert!(victim.memory.is_lost());
    send(&victim_tx, &[(pattern(60, 1), Offload::NONE)]);
    assert_eq!(poll(&mut other_rx).1.frames, 1);
    assert_eq!(other_slot.state(), SlotState::Running);
    assert!(!other.memory.is_lost());
}

/// The body of a frame may vanish between its check and its copy.
#[test]
fn memory_file_that_is_truncated_in_mid_burst_costs_payload_only() {
    let mut from = Driver::new(8, MODERN);
    let mut to = Driver::new(8, MODERN);
    let (_from_slot, mut rx) = from.rx();
    let (_to_slot, tx) = to.tx();
    from.write(DATA + 12, &[7; 2988]);
    from.desc(0, (DATA, 3000), 0, 0);
    from.offer(0);
    to.desc(0, (DATA, 4096), WRITE, 0);
    to.offer(0);
    let report = rx.poll(&mut Burst::new(), &mut |burst| {
        from.file.set_len(0).unwrap();
        assert_eq!(crate::TxQueue::send(&tx, burst, &[0]).frames, 1);
    });
    assert_eq!(report.frames, 1);
    assert_eq!(to.used(), [(0, 3000)]);
    assert_eq!(to.read(DATA + 12 + 128, 2860), [0; 2860], "zero pages, and nobody else's bytes");
}

proptest! {
    #[test]
    fn random_descriptor_tables_are_survived(
        table in proptest::collection::vec((0u64..0x3000, 0u32..3000, 0u16..8, 0u16..20), 16),
    ) {
        let mut driver = Driver::new(16, MODERN);
        for (index, (addr, len, flags, next)) in table.into_iter().enumerate() {
            // Some addresses hit the descriptor table itself, which is a fine indirect table.
            let addr = if addr < 0x100 { GUEST_BASE + addr } else { DATA + addr };
            driver.desc(index as u16, (addr, len), flags, next);
            driver.offer(index as u16);
        }
        let (_slot, mut rx) = driver.rx();
        let (_, report) = poll(&mut rx);
        prop_assert_eq!(report.frames + report.drops.total(), 16);
        prop_assert_eq!(driver.used().len(), 16);
    }
}
