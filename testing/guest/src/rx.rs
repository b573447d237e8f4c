//! How does the guest receive? Buffers are always available to the device; a frame comes in one chain, or in several when
//! buffers are mergeable.

use std::time::{Duration, Instant};

use crate::NetHeader;
use crate::memory::{Arena, Block};
use crate::ring::{DESCRIPTOR_BYTES, Descriptor, Ring, Used};

/// The longest frame with its header: a 64 KB IP packet behind Ethernet, two tags and the header.
const LARGE_FRAME_BYTES: usize = 65_535 + 14 + 8 + NetHeader::MAX_BYTES;
/// How long the parts of one merged frame may follow each other. A switch publishes them together.
const PARTS_TIMEOUT: Duration = Duration::from_secs(1);

/// How the buffers of a receive queue are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RxShape {
    pub(crate) buffer_bytes: usize,
    pub(crate) header_bytes: usize,
    /// A frame may span several chains.
    pub(crate) mergeable: bool,
    /// Frames larger than a buffer come.
    pub(crate) large_frames: bool,
    pub(crate) indirect: bool,
}

impl RxShape {
    /// Buffers in one chain.
    fn chain(&self, size: u16) -> usize {
        if self.mergeable || !self.large_frames {
            return 1;
        }
        LARGE_FRAME_BYTES.div_ceil(self.buffer_bytes).min(size as usize)
    }
}

/// A receive queue of the guest.
#[derive(Debug)]
pub(crate) struct Rx {
    pub(crate) ring: Ring,
    pub(crate) buffers: Block,
    pub(crate) shape: RxShape,
    /// Buffers of a chain, which follow each other in memory.
    chain: usize,
    tables: Option<Block>,
}

impl Rx {
    /// Bytes that a queue takes from an arena.
    pub(crate) fn bytes(size: u16, buffer_bytes: usize) -> usize {
        Ring::bytes(size) + size as usize * (buffer_bytes + DESCRIPTOR_BYTES) + 2 * 64
    }

    /// A queue over `ring` with all buffers offered.
    pub(crate) fn new(arena: &mut Arena, ring: Ring, shape: RxShape) -> Self {
        let size = ring.size();
        let chain = shape.chain(size);
        let mut rx = Self {
            buffers: arena.take(size as usize * shape.buffer_bytes, 64),
            tables: (shape.indirect && chain > 1)
                .then(|| arena.take(size as usize * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)),
            ring,
            shape,
            chain,
        };
        for index in 0..rx.chains() {
            let head = rx.head(index);
            rx.write_chain(head);
            rx.ring.offer(head);
        }
        rx
    }

    /// Frames of `bytes`, header included, that fit into all buffers at once.
    pub(crate) fn frames_of(&self, bytes: usize) -> u64 {
        let room = self.chain * self.shape.buffer_bytes;
        let chains = if self.shape.mergeable { bytes.div_ceil(room) } else { 1 };
        u64::from(self.chains()) / chains as u64
    }

    fn chains(&self) -> u16 {
        self.ring.size() / self.chain as u16
    }

    /// The head of chain `index`; a chain in a table takes one descriptor of the ring.
    fn head(&self, index: u16) -> u16 {
        if self.tables.is_some() { index } else { index * self.chain as u16 }
    }

    fn index(&self, head: u16) -> Option<u16> {
        let step = if self.tables.is_some() { 1 } else { self.chain as u16 };
        (head.is_multiple_of(step) && head / step < self.chains()).then_some(head / step)
    }

    fn write_chain(&mut self, head: u16) {
        let Some(index) = self.index(head) else { return };
        for position in 0..self.chain {
            let buffer = index as usize * self.chain + position;
            let last = position + 1 == self.chain;
            let mut part = Descriptor {
                address: self.buffers.guest(buffer * self.shape.buffer_bytes),
                len: self.shape.buffer_bytes as u32,
                flags: Descriptor::WRITE | if last { 0 } else { Descriptor::NEXT },
                next: 0,
            };
            match &self.tables {
                None => {
                    part.next = if last { 0 } else { head + position as u16 + 1 };
                    self.ring.write_descriptor(head + position as u16, part);
                }
                Some(tables) => {
                    part.next = if last { 0 } else { position as u16 + 1 };
                    let at = tables.at::<Descriptor>(buffer * DESCRIPTOR_BYTES);
                    // SAFETY: `at` checked the bounds, tables are aligned, and the device has not got the chain yet.
                    unsafe { at.write_volatile(part) };
                }
            }
        }
        if let Some(tables) = &self.tables {
            let address = tables.guest(index as usize * self.chain * DESCRIPTOR_BYTES);
            let len = (self.chain * DESCRIPTOR_BYTES) as u32;
            self.ring
                .write_descriptor(head, Descriptor { address, len, flags: Descriptor::INDIRECT, next: 0 });
        }
    }

    /// The next frame, if one is there. Its buffers go back to the device at once.
    pub(crate) fn pop(&mut self) -> Result<Option<(Vec<u8>, NetHeader)>, String> {
        if self.ring.ready()? == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.take_part(&mut bytes)?;
        let header = bytes.get(..self.shape.header_bytes).and_then(NetHeader::decode);
        let header = header.ok_or_else(|| format!("a frame of {} bytes has no whole header", bytes.len()))?;
        if self.shape.mergeable {
            if header.num_buffers == 0 {
                return Err("num_buffers is zero".into());
            }
            for part in 1..header.num_buffers {
                self.await_part(part, header.num_buffers)?;
                self.take_part(&mut bytes)?;
            }
        }
        bytes.drain(..self.shape.header_bytes);
        self.ring.publish();
        Ok(Some((bytes, header)))
    }

    fn await_part(&self, part: u16, parts: u16) -> Result<(), String> {
        if self.ring.ready()? > 0 {
            return Ok(());
        }
        let deadline = Instant::now() + PARTS_TIMEOUT;
        while self.ring.ready()? == 0 {
            if Instant::now() > deadline {
                return Err(format!("part {part} of {parts} of a merged frame never came"));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    fn take_part(&mut self, to: &mut Vec<u8>) -> Result<(), String> {
        let Used { head, len } = self.ring.take_used();
        let Some(index) = self.index(head) else {
            return Err(format!("used head {head} was not available"));
        };
        let room = self.chain * self.shape.buffer_bytes;
        if len as usize > room {
            return Err(format!("{len} bytes were written to a chain of {room}"));
        }
        self.buffers.read(index as usize * room, len as usize, to);
        self.ring.offer(head);
        Ok(())
    }
}
