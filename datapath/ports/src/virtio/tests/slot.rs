//! Slots: notifications come when they are wanted, and a change leaves nothing of the old behind.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll as poll_fds};

use super::driver::{DATA, Driver, GUEST_BASE, MEMORY_BYTES, MODERN, Stop, WRITE, region};
use super::rx::poll;
use super::tx::send;
use crate::RxQueue;
use crate::virtio::{Features, GuestMemory, QueueSetup, QueueSlot, RingError, RingPosition, SlotState};
use frame::{Burst, DropReason, Offload};

fn event() -> (OwnedFd, OwnedFd) {
    let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    (fd.try_clone().unwrap(), fd)
}

fn is_readable(fd: i32) -> bool {
    // SAFETY: the callers' slots and eventfds outlive this call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll_fds(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

fn signals(fd: &OwnedFd) -> u64 {
    use std::os::fd::AsRawFd;
    if !is_readable(fd.as_raw_fd()) {
        return 0;
    }
    let mut count = [0; 8];
    rustix::io::read(fd, &mut count).unwrap();
    u64::from_ne_bytes(count)
}

fn kick(fd: &OwnedFd) {
    rustix::io::write(fd, &1u64.to_ne_bytes()).unwrap();
}

fn offer_frame(driver: &mut Driver) {
    driver.desc(0, (DATA, 72), 0, 0);
    driver.offer(0);
}

#[test]
fn a_driver_is_notified_once_per_burst_and_only_if_it_wants() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    let (call, ours) = event();
    slot.set_call(Some(call)).unwrap();
    signals(&ours);
    (0..3).for_each(|_| offer_frame(&mut driver));
    poll(&mut rx);
    assert_eq!(signals(&ours), 1);
    driver.set_avail_flags(1);
    offer_frame(&mut driver);
    poll(&mut rx);
    assert_eq!(signals(&ours), 0, "VIRTQ_AVAIL_F_NO_INTERRUPT");
}

#[test]
fn a_teller_is_told_when_it_is_set_and_once_per_burst_and_is_let_go_with_the_ring() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    slot.set_teller(Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    (0..3).for_each(|_| offer_frame(&mut driver));
    poll(&mut rx);
    assert_eq!((told.load(Ordering::Relaxed), slot.position()), (2, Some(3)));
    slot.reset();
    assert_eq!((Arc::strong_count(&told), slot.position()), (1, None));
}

#[test]
fn with_event_idx_a_driver_is_notified_when_its_index_is_crossed() {
    let mut driver = Driver::new(16, MODERN.with(Features::EVENT_IDX));
    let (slot, mut rx) = driver.rx();
    let (call, ours) = event();
    slot.set_call(Some(call)).unwrap();
    signals(&ours);
    driver.set_used_event(3);
    let mut told = Vec::new();
    for _ in 0..6 {
        offer_frame(&mut driver);
        poll(&mut rx);
        told.push(signals(&ours));
    }
    // The first publication has no earlier one to compare with, so it always tells.
    assert_eq!(told, [1, 0, 0, 1, 0, 0]);
}

#[test]
fn an_armed_queue_wants_kicks_and_a_disarmed_one_does_not() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    let (theirs, kick_fd) = event();
    slot.set_kick(Some(theirs)).unwrap();
    assert_eq!(driver.used_flags(), 1, "no kicks while polled");
    assert!(!rx.arm());
    assert_eq!(driver.used_flags(), 0);
    let fd = rx.fd().unwrap();
    assert!(!is_readable(fd));
    offer_frame(&mut driver);
    kick(&kick_fd);
    assert!(is_readable(fd));
    rx.disarm();
    assert_eq!(driver.used_flags(), 1);
    assert!(!is_readable(fd), "the kick was taken");
    poll(&mut rx);
    assert!(!rx.arm());
    kick(&kick_fd);
    assert!(is_readable(fd), "a second kick rings although the first was never read");
    rx.disarm();
    offer_frame(&mut driver);
    assert!(rx.arm(), "frames are there already");
}

#[test]
fn with_event_idx_an_armed_queue_asks_for_the_next_chain() {
    let mut driver = Driver::new(16, MODERN.with(Features::EVENT_IDX));
    let (slot, mut rx) = driver.rx();
    slot.set_kick(Some(event().0)).unwrap();
    for _ in 0..5 {
        offer_frame(&mut driver);
    }
    poll(&mut rx);
    assert!(!rx.arm());
    assert_eq!(driver.avail_event(), 5);
    rx.disarm();
    assert_eq!(driver.used_flags(), 0, "flags stay 0 with EVENT_IDX");
}

#[test]
fn a_driver_without_a_kick_is_polled() {
    let driver = Driver::new(16, MODERN);
    let (_slot, mut rx) = driver.rx();
    assert!(rx.arm());
}

#[test]
fn a_sleeping_worker_is_woken_by_a_ring_that_is_installed() {
    let mut driver = Driver::new(16, MODERN);
    let slot = QueueSlot::for_receive().unwrap();
    let mut rx = crate::virtio::VirtioRx::new(Arc::clone(&slot));
    let fd = rx.fd().unwrap();
    assert!(!rx.arm());
    assert!(!is_readable(fd));
    offer_frame(&mut driver);
    slot.set_enabled(true);
    slot.set_kick(Some(event().0)).unwrap();
    slot.install(driver.setup()).unwrap();
    assert!(is_readable(fd));
    assert_eq!(driver.used_flags(), 0, "the armed worker's wish holds for the new ring");
    rx.disarm();
    assert_eq!(poll(&mut rx).1.frames, 1);
}

#[test]
fn a_kick_that_was_replaced_rings_no_more() {
    let driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    let (first, first_ours) = event();
    slot.set_kick(Some(first)).unwrap();
    slot.set_kick(Some(event().0)).unwrap();
    rx.arm();
    kick(&first_ours);
    assert!(!is_readable(rx.fd().unwrap()));
    slot.reset();
    rx.disarm();
    rx.arm();
    kick(&first_ours);
    assert!(!is_readable(rx.fd().unwrap()));
}

#[test]
fn a_removed_ring_tells_where_it_stood_and_resumes_there() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    for _ in 0..3 {
        offer_frame(&mut driver);
    }
    poll(&mut rx);
    offer_frame(&mut driver);
    assert_eq!(slot.remove(), Some(RingPosition { next_avail: 3, fault: None }));
    assert_eq!(slot.state(), SlotState::Empty);
    assert_eq!(slot.remove(), None);
    assert_eq!(poll(&mut rx).1.frames, 0);
    slot.install(driver.setup()).unwrap();
    assert_eq!(poll(&mut rx).1.frames, 1, "the frame that was waiting");
    assert_eq!(driver.used().len(), 4);
}

#[test]
fn a_disabled_queue_takes_and_discards_what_the_guest_sends() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    slot.set_enabled(false);
    assert_eq!(slot.state(), SlotState::Disabled);
    offer_frame(&mut driver);
    let (frames, report) = poll(&mut rx);
    assert!(frames.is_empty());
    assert_eq!(report.drops.get(DropReason::PortDown), 1);
    assert_eq!(driver.used(), [(0, 0)]);
}

#[test]
fn a_ring_that_cannot_be_is_refused_by_name() {
    let driver = Driver::new(16, MODERN);
    let slot = QueueSlot::for_transmit();
    let good = driver.setup();
    let with = |change: &dyn Fn(&mut QueueSetup)| {
        let mut setup = good.clone();
        change(&mut setup);
        slot.install(setup)
    };
    for size in [0, 3, 48, 65535] {
        assert_eq!(with(&|setup| setup.size = size), Err(RingError::Size(size)));
    }
    for part in ["descriptor table", "available ring", "used ring"] {
        let move_to = |setup: &mut QueueSetup, to: &dyn Fn(u64) -> u64| {
            let addresses = &mut setup.addresses;
            let at = match part {
                "descriptor table" => &mut addresses.desc,
                "available ring" => &mut addresses.avail,
                _ => &mut addresses.used,
            };
            *at = to(*at);
        };
        let unmapped = with(&|setup| move_to(setup, &|_| 0x10));
        assert!(matches!(unmapped, Err(RingError::Unmapped { part: named, .. }) if named == part));
        let wraps = with(&|setup| move_to(setup, &|_| u64::MAX - 1));
        assert!(matches!(wraps, Err(RingError::Unmapped { .. })));
        let ends_outside = with(&|setup| move_to(setup, &|_| super::driver::USER_BASE + MEMORY_BYTES - 16));
        assert!(matches!(ends_outside, Err(RingError::Unmapped { .. })));
        let odd = with(&|setup| move_to(setup, &|at| at + 1));
        assert!(matches!(odd, Err(RingError::Unaligned { part: named, .. }) if named == part));
    }
    assert_eq!(slot.state(), SlotState::Empty);
}

#[test]
fn memory_that_no_longer_holds_the_ring_breaks_it_and_keeps_its_position() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    offer_frame(&mut driver);
    poll(&mut rx);
    let fault = slot.replace_memory(&Arc::new(GuestMemory::default())).unwrap_err();
    assert_eq!(slot.state(), SlotState::Broken(fault.clone()));
    assert_eq!(slot.remove(), Some(RingPosition { next_avail: 1, fault: Some(fault) }));
}

#[test]
fn old_memory_is_let_go_of_when_a_change_returns() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    offer_frame(&mut driver);
    poll(&mut rx);
    let again = Arc::new(GuestMemory::new(driver.memory.regions().to_vec()).unwrap());
    slot.replace_memory(&again).unwrap();
    assert_eq!(Arc::strong_count(&driver.memory), 1, "only the test holds the old table");
    offer_frame(&mut driver);
    assert_eq!(poll(&mut rx).1.frames, 1);
    slot.reset();
    assert_eq!(Arc::strong_count(&again), 1);
}

/// Region removal under load: one thread polls and sends, another takes the memory away, gives it back, and removes and
/// installs the rings. Old tables must be free of users the moment a change returns.
#[test]
fn regions_that_are_removed_under_load_are_never_touched_again() {
    let from = Driver::new(256, MODERN);
    let to = Driver::new(256, MODERN);
    for index in 0..256 {
        from.desc(index, (DATA, 1512), 0, 0);
        to.desc(index, (DATA, 2048), WRITE, 0);
    }
    let (rx_slot, mut rx) = from.rx();
    let (tx_slot, tx) = to.tx();
    let stop = Stop::default();
    let (from_setup, to_setup) = (from.setup(), to.setup());
    let file = from.file.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut burst = Burst::new();
            while !stop.is_set() {
                from.set_avail_index(from.used_index().wrapping_add(200));
                to.set_avail_index(to.used_index().wrapping_add(200));
                rx.poll(&mut burst, &mut |burst| {
                    let indices: Vec<u8> = (0..burst.len() as u8).collect();
                    crate::TxQueue::send(&tx, burst, &indices);
                });
            }
        });
        let _stop = stop.on_drop();
        for round in 0..300 {
            // Only the ring's own page stays: the buffers are gone.
            let table = GuestMemory::new(vec![region(&file, GUEST_BASE, 0x2_0000, 0)]).unwrap();
            let table = Arc::new(table);
            rx_slot.replace_memory(&table).unwrap();
            assert_eq!(Arc::strong_count(&table), 3, "the test, the ring's setup and its translator");
            rx_slot.replace_memory(&from_setup.memory).unwrap();
            assert_eq!(Arc::strong_count(&table), 1, "round {round}");
            tx_slot.remove();
            tx_slot.install(to_setup.clone()).unwrap();
        }
    });
    to.set_avail_index(to.used_index().wrapping_add(1));
    assert_eq!(send_one(&tx_slot), 1, "still alive");
}

fn send_one(slot: &Arc<QueueSlot>) -> u64 {
    send(&crate::virtio::VirtioTx::new(Arc::clone(slot)), &[(vec![1; 60], Offload::NONE)]).frames
}

#[test]
fn a_peer_that_never_empties_its_call_does_not_block_the_worker() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    let (call, ours) = event();
    rustix::io::write(&ours, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    slot.set_call(Some(call)).unwrap();
    offer_frame(&mut driver);
    assert_eq!(poll(&mut rx).1.frames, 1);
}

#[test]
fn a_peer_that_makes_its_full_call_blocking_does_not_block_the_worker() {
    let mut driver = Driver::new(16, MODERN);
    let (slot, mut rx) = driver.rx();
    let (call, ours) = event();
    slot.set_call(Some(call)).unwrap();
    // The same open file: its flags are the worker's too.
    rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::empty()).unwrap();
    rustix::io::write(&ours, &(u64::MAX - 2).to_ne_bytes()).unwrap();
    offer_frame(&mut driver);
    // On a thread of its own, so that the test ends even if the worker does not.
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(poll(&mut rx).1.frames));
    let frames = ended.recv_timeout(std::time::Duration::from_secs(10));
    assert_eq!(frames, Ok(1), "the worker waits for the peer");
}

#[test]
fn a_descriptor_that_is_no_eventfd_is_refused_and_closed() {
    let driver = Driver::new(16, MODERN);
    let (slot, _rx) = driver.rx();
    let (reader, writer) = std::io::pipe().unwrap();
    let theirs = OwnedFd::from(writer);
    assert!(slot.set_kick(Some(theirs.try_clone().unwrap())).is_err());
    assert!(slot.set_call(Some(theirs.try_clone().unwrap())).is_err());
    assert!(slot.set_err(Some(theirs.try_clone().unwrap())).is_err());
    drop(theirs);
    let mut fds = [PollFd::new(&reader, PollFlags::empty())];
    poll_fds(&mut fds, Some(&Timespec::default())).unwrap();
    assert!(fds[0].revents().contains(PollFlags::HUP), "the pipe's last writer is gone");
}

/// This process's descriptors of the eventfd behind `fd`: the kernel numbers eventfds in fdinfo.
fn descriptors_of(fd: &OwnedFd) -> usize {
    use std::os::fd::AsRawFd;
    let id = |path: std::path::PathBuf| {
        let info = std::fs::read_to_string(path).unwrap_or_default();
        info.lines().find(|line| line.starts_with("eventfd-id:")).map(str::to_owned)
    };
    let ours = id(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()).into());
    assert!(ours.is_some(), "the kernel numbers eventfds");
    let all = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    all.filter(|entry| entry.as_ref().is_ok_and(|entry| id(entry.path()) == ours)).count()
}

#[test]
fn a_peers_descriptors_are_closed_when_its_slot_forgets_it() {
    let driver = Driver::new(16, MODERN);
    let (theirs, ours) = event();
    for _ in 0..50 {
        let (slot, rx) = driver.rx();
        for _ in 0..2 {
            slot.set_kick(Some(theirs.try_clone().unwrap())).unwrap();
            slot.set_call(Some(theirs.try_clone().unwrap())).unwrap();
            slot.set_err(Some(theirs.try_clone().unwrap())).unwrap();
        }
        assert_eq!(descriptors_of(&ours), 5, "the test's two, and one of each kind");
        slot.reset();
        assert_eq!(descriptors_of(&ours), 2);
        drop(rx);
    }
}
