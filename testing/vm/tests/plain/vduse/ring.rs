//! How does a test's device take a packet from the driver, and give one to it?

use ::vduse::{Device, IovaRange, Mapping, Umem, VqInfo};

/// The virtio-net header of a device with `VIRTIO_F_VERSION_1` (virtio 1.3 §5.1.6).
pub(super) const HEADER_BYTES: usize = 12;
const DESC_BYTES: u64 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// The device's memory: each region is mapped when an address in it is first touched.
#[derive(Default)]
pub(super) struct Memory {
    mapped: Vec<Mapping>,
    /// What took the bounce buffer's place.
    pub(super) umem: Option<Umem>,
}

impl Memory {
    fn at(&mut self, device: &Device, addr: u64, len: usize) -> &Mapping {
        let holds = |mapping: &Mapping| mapping.ptr(addr, len).is_some();
        if !self.mapped.iter().any(holds) {
            let wanted = IovaRange::with_len(addr, len as u64).expect("an address range");
            let entry = device.iotlb_get_fd(wanted, 0).expect("a region");
            self.mapped.push(entry.map().expect("a mapping"));
        }
        self.mapped.iter().find(|mapping| holds(mapping)).expect("all bytes in one region")
    }

    pub(super) fn read(&mut self, device: &Device, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let in_umem = self.umem.as_ref().is_some_and(|umem| umem.read(addr as usize, &mut bytes));
        assert!(in_umem || self.at(device, addr, len).read(addr, &mut bytes), "{addr:#x} cannot be read");
        bytes
    }

    fn write(&mut self, device: &Device, addr: u64, bytes: &[u8]) {
        let in_umem = self.umem.as_ref().is_some_and(|umem| umem.write(addr as usize, bytes));
        assert!(
            in_umem || self.at(device, addr, bytes.len()).write(addr, bytes),
            "{addr:#x} cannot be written"
        );
    }

    fn load(&mut self, device: &Device, addr: u64) -> u16 {
        self.at(device, addr, 2).load_u16(addr).expect("a word")
    }
}

struct Desc {
    addr: u64,
    len: usize,
    flags: u16,
    next: u16,
}

/// A split virtqueue (virtio 1.3 §2.7), from where its used ring says that it is: as a device that takes it up again.
pub(super) struct Ring {
    info: VqInfo,
    done: u16,
}

impl Ring {
    pub(super) fn new(device: &Device, memory: &mut Memory, index: u32) -> Self {
        let info = device.vq_get_info(index).expect("a virtqueue");
        let done = memory.load(device, info.device_addr + 2);
        Self { info, done }
    }

    pub(super) fn done(&self) -> u16 {
        self.done
    }

    /// True if the driver has made a chain available.
    pub(super) fn has_more(&self, device: &Device, memory: &mut Memory) -> bool {
        memory.load(device, self.info.driver_addr + 2) != self.done
    }

    /// The chain that the driver made available next.
    fn next(&self, device: &Device, memory: &mut Memory) -> Option<(u16, Vec<Desc>)> {
        if !self.has_more(device, memory) {
            return None;
        }
        let slot = u64::from(self.done) % u64::from(self.info.size);
        let head = memory.load(device, self.info.driver_addr + 4 + slot * 2);
        let mut chain: Vec<Desc> = Vec::new();
        loop {
            let index = chain.last().map_or(head, |desc| desc.next);
            let raw =
                memory.read(device, self.info.desc_addr + u64::from(index) * DESC_BYTES, DESC_BYTES as usize);
            let raw = u128::from_le_bytes(raw.try_into().expect("16 bytes"));
            let desc = Desc {
                addr: raw as u64,
                len: (raw >> 64) as u32 as usize,
                flags: (raw >> 96) as u16,
                next: (raw >> 112) as u16,
            };
            let more = desc.flags & NEXT != 0;
            chain.push(desc);
            if !more {
                return Some((head, chain));
            }
            assert!(chain.len() < self.info.size as usize, "a chain without an end");
        }
    }

    /// The next packet to send, with its header.
    pub(super) fn take(&mut self, device: &Device, memory: &mut Memory) -> Option<Vec<u8>> {
        let (head, chain) = self.next(device, memory)?;
        let mut packet = Vec::new();
        for desc in chain {
            assert_eq!(desc.flags & WRITE, 0, "a buffer to write, in the transmit queue");
            packet.extend(memory.read(device, desc.addr, desc.len));
        }
        self.give_back(device, memory, head, 0);
        Some(packet)
    }

    /// Writes `packet`, with its header, into the next buffers.
    pub(super) fn put(&mut self, device: &Device, memory: &mut Memory, packet: &[u8]) {
        let (head, chain) = self.next(device, memory).expect("a buffer to receive into");
        let mut rest = packet;
        for desc in chain {
            assert_eq!(desc.flags & WRITE, WRITE, "a buffer to read, in the receive queue");
            let part;
            (part, rest) = rest.split_at(desc.len.min(rest.len()));
            memory.write(device, desc.addr, part);
        }
        assert!(rest.is_empty(), "a packet larger than the driver's buffers");
        self.give_back(device, memory, head, packet.len());
    }

    fn give_back(&mut self, device: &Device, memory: &mut Memory, head: u16, len: usize) {
        let slot = u64::from(self.done) % u64::from(self.info.size);
        let entry = [u32::from(head).to_le_bytes(), (len as u32).to_le_bytes()].concat();
        memory.write(device, self.info.device_addr + 4 + slot * 8, &entry);
        self.done = self.done.wrapping_add(1);
        let idx = self.info.device_addr + 2;
        memory.at(device, idx, 2).store_u16(idx, self.done).expect("a word");
    }
}
