//! The same descriptors read by this ring and by rust-vmm's `virtio-queue`: the same chains, in the same order, of the
//! same buffers.

use proptest::prelude::*;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::driver::{
    DATA, Driver, GUEST_BASE, INDIRECT, MEMORY_BYTES, MODERN, NEXT, USER_BASE, WRITE, descriptor,
};
use crate::virtio::chain::Access;
use crate::virtio::ring::Ring;

const SIZE: u16 = 16;
const TABLE: u64 = DATA + 0x10_0000;
const TABLE_ENTRIES: usize = 8;

/// A descriptor that is more often sound than not: flags, length, next.
fn descriptors(count: usize) -> impl Strategy<Value = Vec<(u16, u32, u16)>> {
    let flags = prop_oneof![6 => Just(NEXT), 6 => Just(0), 1 => Just(NEXT | WRITE), 1 => Just(WRITE)];
    let next = 0..count as u16 + 1;
    proptest::collection::vec((flags, 1u32..2000, next), count)
}

/// One chain: its head and its buffers, if it is whole and all of it is for the device to read.
type Chain = (u16, Option<Vec<(u64, u32)>>);

/// The chains as `virtio-queue` reads them.
fn theirs(driver: &Driver) -> Vec<Chain> {
    let file = FileOffset::new(driver.file.try_clone().unwrap(), 0);
    let ranges = [(GuestAddress(GUEST_BASE), MEMORY_BYTES as usize, Some(file))];
    let memory = GuestMemoryMmap::<()>::from_ranges_with_files(ranges).unwrap();
    let addresses = driver.addresses();
    let guest = |user: u64| GuestAddress(user - USER_BASE + GUEST_BASE);
    let mut queue = Queue::new(SIZE).unwrap();
    queue.try_set_desc_table_address(guest(addresses.desc)).unwrap();
    queue.try_set_avail_ring_address(guest(addresses.avail)).unwrap();
    queue.try_set_used_ring_address(guest(addresses.used)).unwrap();
    queue.set_ready(true);
    let chains = queue.iter(&memory).unwrap();
    chains
        .map(|chain| {
            let head = chain.head_index();
            let buffers: Vec<_> = chain.collect();
            // The crate ends a malformed chain as if it were whole; only a last descriptor without NEXT is an end.
            let whole = buffers.last().is_some_and(|last| !last.has_next())
                && buffers.iter().all(|buffer| !buffer.is_write_only());
            let list = buffers.iter().map(|buffer| (buffer.addr().0, buffer.len())).collect();
            (head, whole.then_some(list))
        })
        .collect()
}

/// The chains as this ring reads them.
fn ours(driver: &Driver) -> Vec<Chain> {
    let mut ring = Ring::new(driver.setup()).unwrap();
    let ready = ring.ready(ring.position(), SIZE).unwrap();
    (0..ready)
        .map(|at| {
            let head = ring.head(at);
            let mut runs = Vec::new();
            let walked = ring.walk(&head, Access::Read, usize::MAX, &mut runs);
            let list = runs.iter().map(|run| (run.guest, run.len as u32)).collect();
            (head.used_id(), walked.is_ok().then_some(list))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn random_chains_are_read_as_rust_vmm_reads_them(
        direct in descriptors(usize::from(SIZE)),
        indirect in descriptors(TABLE_ENTRIES),
        tables in proptest::collection::vec(any::<bool>(), usize::from(SIZE)),
        heads in proptest::collection::vec(0..SIZE, 1..=usize::from(SIZE)),
    ) {
        let mut driver = Driver::new(SIZE, MODERN);
        for (index, (flags, len, next)) in direct.into_iter().enumerate() {
            let addr = DATA + index as u64 * 0x1000;
            // A descriptor that names a table has no NEXT: on that the two differ, on purpose (§2.7.5.3.1).
            if tables[index] && flags & NEXT == 0 {
                let table_len = 16 * (len % TABLE_ENTRIES as u32 + 1);
                driver.desc(index as u16, (TABLE, table_len), INDIRECT, 0);
            } else {
                driver.desc(index as u16, (addr, len), flags, next);
            }
        }
        for (index, (flags, len, next)) in indirect.into_iter().enumerate() {
            let bytes = descriptor(DATA + 0x8_0000 + index as u64 * 0x1000, len, flags, next);
            driver.write(TABLE + index as u64 * 16, &bytes);
        }
        for head in heads {
            driver.offer(head);
        }
        prop_assert_eq!(ours(&driver), theirs(&driver));
    }
}
