//! A virtqueue whose every byte is hostile: nothing panics or hangs, and what it costs is bounded by its size.
//!
//! The guest has two regions that are adjacent in its address space, so that buffers may cross from one to the other. The
//! input is the start of its memory: descriptor table, available ring, used ring, then whatever descriptors point at.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use frame::{Burst, Checksum, Gso, GsoKind, Offload};
use ports::virtio::{
    AddressSpace, Features, GuestMemory, QueueSetup, QueueSlot, Region, RegionSpec, RingAddresses, RingError,
    VirtioRx, VirtioTx,
};
use ports::{RxQueue, TxQueue};
use rustix::fs::{MemfdFlags, memfd_create};
use wire::build::{self, Path};
use wire::{MacAddr, tcp};

use crate::input::Input;

/// Each of the two regions.
const REGION_BYTES: u64 = 0x8000;
/// Bursts that are polled or sent; each may find the memory as the one before left it.
const ROUNDS: usize = 3;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.u8();
    let size = 1 << (choice & 0x0f);
    let features = features(input.u8());
    let Ok(memory) = guest_memory(input.rest()) else { return };
    let (setup, size) = (setup(size, features, memory), u64::from(size));
    if choice & 0x10 == 0 { receive(setup, size) } else { transmit(setup) }
}

fn features(choice: u8) -> Features {
    let optional = [
        Features::VERSION_1,
        Features::MRG_RXBUF,
        Features::INDIRECT_DESC,
        Features::EVENT_IDX,
        Features::IN_ORDER,
        Features::GUEST_CSUM,
        Features::GUEST_TSO4,
    ];
    optional
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| choice >> bit & 1 == 1)
        .fold(Features(0), |all, (_, feature)| all.with(feature))
}

fn guest_memory(image: &[u8]) -> std::io::Result<Arc<GuestMemory>> {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
    file.set_len(2 * REGION_BYTES)?;
    let image = &image[..image.len().min(2 * REGION_BYTES as usize)];
    file.write_all_at(image, 0)?;
    let region = |start| {
        let spec =
            RegionSpec { guest_addr: start, size_bytes: REGION_BYTES, user_addr: start, file_offset: start };
        Region::map(spec, file.as_fd()).map_err(std::io::Error::other)
    };
    let regions = vec![region(0)?, region(REGION_BYTES)?];
    GuestMemory::new(regions).map(Arc::new).map_err(std::io::Error::other)
}

/// The ring's parts one behind the other, as close as their alignment lets them.
fn setup(size: u16, features: Features, memory: Arc<GuestMemory>) -> QueueSetup {
    let avail = u64::from(size) * 16;
    let used = (avail + 6 + u64::from(size) * 2).next_multiple_of(4);
    let addresses = RingAddresses { space: AddressSpace::Guest, desc: 0, avail, used };
    QueueSetup { size, addresses, features, memory, log: None }
}

fn receive(setup: QueueSetup, size: u64) {
    let Ok(slot) = QueueSlot::for_receive() else { return };
    if let Err(error) = slot.install(setup) {
        assert!(matches!(error, RingError::Unmapped { .. }), "{error}");
        return;
    }
    slot.set_enabled(true);
    let (mut queue, mut burst) = (VirtioRx::new(Arc::clone(&slot)), Burst::new());
    for _ in 0..ROUNDS {
        let mut seen = 0;
        let report = queue.poll(&mut burst, &mut |burst| {
            for index in 0..burst.len() {
                assert_eq!(burst.gather(index).to_vec().len(), burst.frame_len(index));
            }
            seen = burst.len() as u64;
        });
        assert_eq!(report.frames, seen);
        assert!(report.frames + report.drops.total() <= size, "more frames than the ring holds");
        assert!(burst.is_empty());
        queue.arm();
        queue.disarm();
    }
    slot.remove();
}

fn transmit(setup: QueueSetup) {
    let slot = QueueSlot::for_transmit();
    if slot.install(setup).is_err() {
        return;
    }
    slot.set_enabled(true);
    let queue = VirtioTx::new(Arc::clone(&slot));
    let burst = outgoing();
    let frames: Vec<u8> = (0..burst.len() as u8).collect();
    for _ in 0..ROUNDS {
        let report = queue.send(&burst, &frames);
        assert_eq!(report.frames + report.drops.total(), frames.len() as u64, "frames without a fate");
    }
    slot.remove();
}

/// A small frame, one with a body, and a large one that most drivers get in pieces.
fn outgoing() -> Burst {
    let path = Path {
        source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
    };
    let header = tcp::Repr {
        source_port: 1,
        destination_port: 2,
        sequence: 0,
        acknowledgement: 0,
        flags: tcp::Flags::ACK,
        window: 1,
        urgent: 0,
        options: &[],
    };
    let large = Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso { kind: GsoKind::TcpV4, size: 1448, ecn: false, headers_bytes: 54 }),
        ..Offload::NONE
    };
    let mut burst = Burst::new();
    let frames = [
        (build::udp(path, (1, 2), &[1; 18]), Offload::NONE),
        (build::udp(path, (1, 2), &[2; 1400]), Offload::NONE),
        (build::tcp(path, &header, &[3; 9000]), large),
    ];
    for (bytes, offload) in frames {
        let pushed = burst.push_owned(bytes, offload);
        assert_eq!(pushed, Ok(()));
    }
    burst
}
