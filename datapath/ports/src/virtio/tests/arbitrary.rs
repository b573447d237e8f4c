//! A ring of arbitrary bytes: whatever a guest writes, polling and sending end in frames or named drops. The
//! coverage-guided form of this, with its corpus, is in testing/fuzz.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use frame::{Burst, Checksum, Offload};
use proptest::prelude::*;

use super::driver::memfd;
use crate::virtio::{
    AddressSpace, Features, GuestMemory, QueueSetup, QueueSlot, Region, RegionSpec, RingAddresses, VirtioRx,
    VirtioTx,
};
use crate::{RxQueue, TxQueue};

/// Two regions that the guest sees as neighbours, with a third far away.
const REGION_BYTES: u64 = 0x1000;
const FAR_REGION: u64 = 0x10_0000;
/// Where the parts of the ring are, behind the descriptors at 0.
const AVAIL: u64 = 0x600;
const USED: u64 = 0x800;

proptest! {
    /// The bytes fill the guest's memory, over and over: many zeros, so that some addresses are the guest's. Only the two
    /// indices are such that the ring starts.
    #[test]
    fn random_rings_are_survived(
        bytes in proptest::collection::vec(prop_oneof![3 => Just(0), 2 => any::<u8>()], 1..600),
        features: u64,
        size_log in 0u32..7,
    ) {
        let setup = QueueSetup {
            size: 1 << size_log,
            addresses: RingAddresses { space: AddressSpace::Guest, desc: 0, avail: AVAIL, used: USED },
            features: Features(features),
            memory: Arc::new(memory_of(&bytes, 1 << size_log)),
            log: None,
        };
        receive(&setup);
        transmit(&setup);
    }
}

fn memory_of(bytes: &[u8], avail_index: u16) -> GuestMemory {
    let file = memfd(3 * REGION_BYTES);
    let fill: Vec<u8> = bytes.iter().copied().cycle().take(3 * REGION_BYTES as usize).collect();
    file.write_all_at(&fill, 0).expect("room for the file");
    file.write_all_at(&avail_index.to_le_bytes(), AVAIL + 2).unwrap();
    file.write_all_at(&[0; 2], USED + 2).unwrap();
    let regions = [(0, 0), (REGION_BYTES, 2 * REGION_BYTES), (FAR_REGION, REGION_BYTES)];
    let map = |(guest_addr, file_offset)| {
        let spec = RegionSpec { guest_addr, size_bytes: REGION_BYTES, user_addr: guest_addr, file_offset };
        Region::map(spec, file.as_fd()).expect("memory that exists")
    };
    GuestMemory::new(regions.map(map).to_vec()).expect("regions that do not overlap")
}

fn receive(setup: &QueueSetup) {
    let slot = QueueSlot::for_receive().expect("descriptors for a doorbell");
    if slot.install(setup.clone()).is_err() {
        return;
    }
    slot.set_enabled(true);
    let mut rx = VirtioRx::new(slot);
    let mut burst = Burst::new();
    for _ in 0..4 {
        let mut lent = 0;
        let report = rx.poll(&mut burst, &mut |burst| {
            for index in 0..burst.len() {
                let len = burst.gather(index).to_vec().len();
                if let Checksum::Partial { start, offset } = burst.offload(index).checksum {
                    assert!(
                        usize::from(start) + usize::from(offset) + 2 <= len,
                        "checksum outside the frame"
                    );
                }
            }
            lent = burst.len() as u64;
        });
        assert_eq!(report.frames, lent, "frames lent");
        rx.arm();
        rx.disarm();
    }
}

fn transmit(setup: &QueueSetup) {
    let slot = QueueSlot::for_transmit();
    if slot.install(setup.clone()).is_err() {
        return;
    }
    slot.set_enabled(true);
    let tx = VirtioTx::new(slot);
    let mut burst = Burst::new();
    for len in [60, 300, 1514, 9000] {
        burst.push_owned(vec![len as u8; len], Offload::NONE).expect("room in the burst");
    }
    for _ in 0..2 {
        let report = tx.send(&burst, &[0, 1, 2, 3]);
        assert_eq!(report.frames + report.drops.total(), 4, "frames sent");
    }
}
