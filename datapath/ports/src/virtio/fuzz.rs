//! A ring of arbitrary bytes, for fuzzing: whatever a guest writes, polling and sending end in frames or named drops.

use std::os::fd::AsFd;
use std::sync::Arc;

use frame::{Burst, Checksum, Offload};

use super::{
    AddressSpace, Features, GuestMemory, QueueSetup, QueueSlot, Region, RegionSpec, RingAddresses, VirtioRx,
    VirtioTx,
};
use crate::{RxQueue, TxQueue};

/// Two regions that the guest sees as neighbours, with a third far away.
const REGION_BYTES: u64 = 0x1000;
const FAR_REGION: u64 = 0x10_0000;

/// Takes the features from the first eight bytes and the size of the ring from the ninth, fills the guest's memory with the
/// rest, over and over, and runs both directions on it. The ring starts at guest address 0: descriptors, available
/// ring, used ring at 0x800.
///
/// # Panics
/// If a frame is unaccounted for, or lent with a checksum outside of it: the bugs that a fuzzer looks for. Also if the
/// system has no memory or file descriptors left.
pub fn ring(bytes: &[u8]) {
    let mut fields = [0; 9];
    let taken = bytes.len().min(fields.len());
    fields[..taken].copy_from_slice(&bytes[..taken]);
    let mut features = [0; 8];
    features.copy_from_slice(&fields[..8]);
    let memory = Arc::new(memory_of(&bytes[taken..]));
    let setup = QueueSetup {
        size: 1 << (fields[8] % 7),
        addresses: RingAddresses { space: AddressSpace::Guest, desc: 0, avail: 0x600, used: 0x800 },
        features: Features(u64::from_le_bytes(features)),
        memory,
        log: None,
    };
    receive(&setup);
    transmit(&setup);
}

fn memory_of(bytes: &[u8]) -> GuestMemory {
    let fd = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let file = std::fs::File::from(fd);
    let fill: Vec<u8> = bytes.iter().copied().cycle().take(3 * REGION_BYTES as usize).collect();
    std::os::unix::fs::FileExt::write_all_at(&file, &fill, 0).expect("room for the file");
    file.set_len(3 * REGION_BYTES).expect("room for the file");
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
