//! Guest memory: tables that make no sense are refused, addresses are found exactly.

use std::os::fd::AsFd;
use std::sync::Arc;

use proptest::prelude::*;

use super::driver::{GUEST_BASE, USER_BASE, memfd, region};
use crate::virtio::log::DirtyLog;
use crate::virtio::memory::{MAX_MEMORY_BYTES, Region};
use crate::virtio::{GuestMemory, MAX_MEMORY_SLOTS, MemoryError, RegionSpec};

fn spec(guest_addr: u64, size_bytes: u64) -> RegionSpec {
    RegionSpec { guest_addr, size_bytes, user_addr: USER_BASE.wrapping_add(guest_addr), file_offset: 0 }
}

#[test]
fn regions_that_make_no_sense_are_refused() {
    let file = memfd(0x2000);
    let map = |spec: RegionSpec| Region::map(spec, file.as_fd()).map(|_| ());
    assert_eq!(map(spec(0x1000, 0)), Err(MemoryError::Empty(0x1000)));
    let wraps = RegionSpec { guest_addr: u64::MAX - 0xfff, ..spec(0, 0x2000) };
    assert_eq!(map(wraps), Err(MemoryError::Overflow), "guest address wraps");
    let wraps = RegionSpec { user_addr: u64::MAX - 1, ..spec(0, 0x2000) };
    assert_eq!(map(wraps), Err(MemoryError::Overflow), "user address wraps");
    let wraps = RegionSpec { file_offset: u64::MAX - 1, ..spec(0, 0x2000) };
    assert_eq!(map(wraps), Err(MemoryError::Overflow), "file offset wraps");
    assert_eq!(map(spec(0, MAX_MEMORY_BYTES + 1)), Err(MemoryError::TooLarge));
    let short = MemoryError::Truncated { file_bytes: 0x2000, needed_bytes: 0x2001 };
    assert_eq!(map(spec(0, 0x2001)), Err(short), "longer than its file");
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(Region::map(spec(0, 0x1000), null.as_fd()).is_err(), "not a file with memory");
}

#[test]
fn a_file_that_can_make_its_user_wait_is_refused() {
    let disk = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(matches!(Region::map(spec(0, 0x1000), disk.as_fd()), Err(MemoryError::FileSystem(_))));
    let (pipe, _writer) = std::io::pipe().unwrap();
    assert!(matches!(Region::map(spec(0, 0x1000), pipe.as_fd()), Err(MemoryError::FileSystem(_))));
}

#[test]
fn behind_a_device_what_is_not_the_kernels_is_checked_like_all_memory() {
    // A name is all that a program can choose of its file.
    let named =
        rustix::fs::memfd_create("anon_inode:[vduse-domain]", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert!(!Region::is_device_memory(named.as_fd()));
    let short = MemoryError::Truncated { file_bytes: 0, needed_bytes: 0x1000 };
    assert_eq!(Region::map_device(spec(0, 0x1000), named.as_fd()).map(|_| ()), Err(short));
    let disk = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(matches!(Region::map_device(spec(0, 0x1000), disk.as_fd()), Err(MemoryError::FileSystem(_))));
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that cannot run here says so by name")]
fn huge_pages_are_mapped_and_unmapped_whole() {
    use rustix::fs::MemfdFlags;
    const HUGE: u64 = 2 << 20;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let Ok(fd) = rustix::fs::memfd_create("huge", flags) else {
        println!("SKIPPED huge_pages_are_mapped_and_unmapped_whole: the kernel has no 2 MiB pages");
        return;
    };
    let file = std::fs::File::from(fd);
    file.set_len(4 * HUGE).unwrap();
    // Neither the offset nor the length are multiples of the page; munmap(2) would refuse either.
    let odd = RegionSpec { file_offset: HUGE + 0x1000, ..spec(0, HUGE + 0x3000) };
    let region = Region::map(odd, file.as_fd()).unwrap();
    let start = GuestMemory::new(vec![region]).unwrap();
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:huge").count();
    assert_eq!(mapped(), 1);
    drop(start);
    assert_eq!(mapped(), 0);
}

#[test]
fn tables_with_overlaps_or_too_many_slots_are_refused() {
    let file = memfd(0x1_0000);
    let at = |guest: u64, size: u64| region(&file, GUEST_BASE + guest, size, 0);
    let overlap = GuestMemory::new(vec![at(0x3000, 0x1000), at(0, 0x3001)]).map(|_| ());
    assert_eq!(overlap, Err(MemoryError::Overlap(GUEST_BASE, GUEST_BASE + 0x3000)));
    let same_user = RegionSpec { guest_addr: 0x9000_0000, user_addr: USER_BASE + 0x800, ..spec(0, 0x1000) };
    let other = Region::map(same_user, file.as_fd()).unwrap();
    assert!(matches!(GuestMemory::new(vec![at(0, 0x1000), other]), Err(MemoryError::Overlap(..))));
    let many = (0..=MAX_MEMORY_SLOTS as u64).map(|slot| at(slot * 0x1000, 0x1000)).collect();
    assert_eq!(GuestMemory::new(many).map(|_| ()), Err(MemoryError::TooManySlots));
}

#[test]
fn a_region_is_removed_by_its_description_only() {
    let file = memfd(0x4000);
    let memory = GuestMemory::new(vec![region(&file, GUEST_BASE, 0x1000, 0)]).unwrap();
    let memory = memory.with_region(region(&file, GUEST_BASE + 0x1000, 0x1000, 0x1000)).unwrap();
    assert_eq!(memory.size_bytes(), 0x2000);
    let second = *memory.regions()[1].spec();
    let wrong = RegionSpec { size_bytes: 0x800, ..second };
    assert!(matches!(memory.without_region(&wrong), Err(MemoryError::Unknown(_))));
    let memory = memory.without_region(&second).unwrap();
    assert!(memory.window(GUEST_BASE + 0x1000).is_none());
    assert!(memory.window(GUEST_BASE).is_some());
}

#[test]
fn a_region_is_mapped_at_its_offset_even_inside_a_page() {
    let file = memfd(0x3000);
    std::os::unix::fs::FileExt::write_at(&file, b"here", 0x1804).unwrap();
    let memory = GuestMemory::new(vec![region(&file, GUEST_BASE, 0x100, 0x1804)]).unwrap();
    let host = memory.window(GUEST_BASE).and_then(|window| window.translate(GUEST_BASE, 4)).unwrap();
    // SAFETY: four mapped bytes.
    assert_eq!(unsafe { host.cast::<[u8; 4]>().read_unaligned() }, *b"here");
}

proptest! {
    /// Out-of-bounds and wrap-around addresses.
    #[test]
    fn a_range_translates_only_if_one_region_holds_all_of_it(
        sizes in proptest::collection::vec((1u64..0x3000, 0u64..0x2000), 1..6),
        addr in prop_oneof![0u64..0x1_0000, (u64::MAX - 0x1000)..=u64::MAX],
        len in prop_oneof![0u64..0x3000, (u64::MAX - 0x1000)..=u64::MAX],
    ) {
        let file = memfd(0x3000);
        let mut at = GUEST_BASE;
        let mut specs = Vec::new();
        for (size, gap) in sizes {
            specs.push(RegionSpec { guest_addr: at, size_bytes: size, user_addr: at, file_offset: 0 });
            at += size + gap;
        }
        let regions = specs.iter().map(|spec| Region::map(*spec, file.as_fd()).unwrap()).collect();
        let memory = GuestMemory::new(regions).unwrap();
        let addr = addr.wrapping_add(GUEST_BASE);
        let inside = |spec: &RegionSpec| {
            let end = u128::from(addr) + u128::from(len.max(1));
            addr >= spec.guest_addr && end <= u128::from(spec.guest_addr + spec.size_bytes)
        };
        let found = memory.window(addr).and_then(|window| window.translate(addr, len));
        prop_assert_eq!(found.is_some(), specs.iter().any(inside));
    }
}

#[test]
fn a_dirty_log_marks_exactly_the_pages_that_were_written() {
    let file = memfd(0x1000);
    let log: Arc<DirtyLog> = DirtyLog::map(file.as_fd(), 8, 4).unwrap();
    log.mark(0x1000, 1);
    log.mark(0x4fff, 2);
    log.mark(0x8_0000, 0);
    log.mark(31 * 0x1000, 0x10_0000);
    log.mark(u64::MAX, u64::MAX);
    let mut bytes = [0; 16];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
    assert_eq!(bytes[8..12], [0b0011_0010, 0, 0, 0b1000_0000], "pages 1, 4, 5 and 31");
    assert!(bytes[..8].iter().chain(&bytes[12..]).all(|byte| *byte == 0), "nothing beside the log");
}

#[test]
fn a_dirty_log_longer_than_its_file_is_refused() {
    let file = memfd(0x1000);
    assert!(matches!(DirtyLog::map(file.as_fd(), 8, 0x1000), Err(MemoryError::Truncated { .. })));
    assert!(matches!(DirtyLog::map(file.as_fd(), 0, 0), Err(MemoryError::Empty(_))));
    assert!(matches!(DirtyLog::map(file.as_fd(), 0, u64::MAX), Err(MemoryError::TooLarge)));
}
