//! How does the guest send? Frames are copied into buffers of the guest's memory and made available as one chain each.

use std::collections::VecDeque;

use crate::memory::{Arena, Block};
use crate::ring::{DESCRIPTOR_BYTES, Descriptor, Ring};

/// How a sent frame lies in its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TxLayout {
    /// Header and frame in one descriptor, further ones only when a buffer is full.
    #[default]
    Together,
    /// The header in a descriptor of its own.
    HeaderApart,
    /// Pieces of at most this many bytes (at least 1), header included.
    Scattered(usize),
}

/// Descriptors that one indirect table can hold.
const TABLE_ENTRIES: usize = 128;

/// Why a frame was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No room now.
    Full,
    /// No room ever.
    TooLong,
    /// The device broke the ring; in words.
    Broken(String),
}

/// What a frame in flight holds.
#[derive(Debug, Default)]
struct InFlight {
    descriptors: Vec<u16>,
    buffers: Vec<u16>,
}

/// A transmit queue of the guest.
#[derive(Debug)]
pub(crate) struct Tx {
    pub(crate) ring: Ring,
    pub(crate) buffers: Block,
    pub(crate) buffer_bytes: usize,
    tables: Option<Block>,
    layout: TxLayout,
    /// Descriptors and buffers that are free, in the order in which they became so: a device that works in order gets
    /// descriptors in ring order, as VIRTIO_F_IN_ORDER demands.
    free_descriptors: VecDeque<u16>,
    free_buffers: VecDeque<u16>,
    in_flight: Vec<InFlight>,
}

impl Tx {
    /// Bytes that a queue takes from an arena.
    pub(crate) fn bytes(size: u16, buffer_bytes: usize) -> usize {
        let tables = DESCRIPTOR_BYTES * TABLE_ENTRIES;
        Ring::bytes(size) + size as usize * (buffer_bytes + tables) + 2 * 64
    }

    /// A queue over `ring`; with `indirect`, frames of several descriptors stand in tables.
    pub(crate) fn new(
        arena: &mut Arena,
        ring: Ring,
        buffer_bytes: usize,
        layout: TxLayout,
        indirect: bool,
    ) -> Self {
        let size = ring.size();
        let count = size as usize;
        Self {
            buffers: arena.take(count * buffer_bytes, 64),
            tables: indirect.then(|| arena.take(count * TABLE_ENTRIES * DESCRIPTOR_BYTES, 64)),
            ring,
            buffer_bytes,
            layout,
            free_descriptors: (0..size).collect(),
            free_buffers: (0..size).collect(),
            in_flight: (0..size).map(|_| InFlight::default()).collect(),
        }
    }

    /// Where the first buffer of each frame in flight lies in the block of buffers, by the frame's head; 0 for a head that
    /// is free.
    pub(crate) fn buffers_by_head(&self) -> impl Iterator<Item = usize> + '_ {
        let first = |frame: &InFlight| frame.buffers.first().map_or(0, |buffer| *buffer as usize);
        self.in_flight.iter().map(move |frame| first(frame) * self.buffer_bytes)
    }

    /// Takes back what the device has sent.
    pub(crate) fn reclaim(&mut self) -> Result<(), String> {
        for _ in 0..self.ring.ready()? {
            let head = self.ring.take_used().head;
            let Some(frame) = self.in_flight.get_mut(head as usize) else {
                return Err(format!("used head {head} is beyond the ring"));
            };
            if frame.descriptors.is_empty() {
                return Err(format!("used head {head} was not available"));
            }
            self.free_descriptors.extend(frame.descriptors.drain(..));
            self.free_buffers.extend(frame.buffers.drain(..));
        }
        Ok(())
    }

    /// Copies a frame into the ring and offers it; the caller publishes.
    pub(crate) fn push(&mut self, header: &[u8], frame: &[u8]) -> Result<(), Refusal> {
        self.reclaim().map_err(Refusal::Broken)?;
        let pieces = self.pieces(header.len(), frame.len());
        let in_table = self.tables.is_some() && pieces.len() > 1 && pieces.len() <= TABLE_ENTRIES;
        let descriptors = if in_table { 1 } else { pieces.len() };
        if pieces.len() > self.ring.size() as usize {
            return Err(Refusal::TooLong);
        }
        if pieces.len() > self.free_buffers.len() || descriptors > self.free_descriptors.len() {
            return Err(Refusal::Full);
        }
        let buffers: Vec<u16> = self.free_buffers.drain(..pieces.len()).collect();
        let held: Vec<u16> = self.free_descriptors.drain(..descriptors).collect();
        self.fill(&buffers, &pieces, header, frame);
        let parts = buffers.iter().zip(&pieces).map(|(buffer, len)| self.descriptor(*buffer, *len)).collect();
        let head = held[0];
        if in_table {
            self.write_table(head, parts);
        } else {
            self.write_chain(&held, parts);
        }
        self.ring.offer(head);
        self.in_flight[head as usize] = InFlight { descriptors: held, buffers };
        Ok(())
    }

    /// The length of each descriptor of a frame.
    fn pieces(&self, header: usize, frame: usize) -> Vec<usize> {
        let (apart, most) = match self.layout {
            TxLayout::Together => (0, self.buffer_bytes),
            TxLayout::HeaderApart => (header, self.buffer_bytes),
            TxLayout::Scattered(most) => (0, most.clamp(1, self.buffer_bytes)),
        };
        let mut pieces = Vec::new();
        if apart > 0 {
            pieces.push(apart);
        }
        let mut left = header + frame - apart;
        while left > 0 {
            let piece = left.min(most);
            pieces.push(piece);
            left -= piece;
        }
        pieces
    }

    fn fill(&self, buffers: &[u16], pieces: &[usize], header: &[u8], frame: &[u8]) {
        let mut sources = [header, frame];
        for (buffer, piece) in buffers.iter().zip(pieces) {
            let mut at = *buffer as usize * self.buffer_bytes;
            let mut left = *piece;
            for source in &mut sources {
                let (now, later) = source.split_at(left.min(source.len()));
                self.buffers.write(at, now);
                at += now.len();
                left -= now.len();
                *source = later;
            }
        }
    }

    fn descriptor(&self, buffer: u16, len: usize) -> Descriptor {
        let address = self.buffers.guest(buffer as usize * self.buffer_bytes);
        Descriptor { address, len: len as u32, flags: 0, next: 0 }
    }

    fn write_chain(&mut self, held: &[u16], parts: Vec<Descriptor>) {
        for (position, mut part) in parts.into_iter().enumerate() {
            if let Some(next) = held.get(position + 1) {
                part.flags = Descriptor::NEXT;
                part.next = *next;
            }
            self.ring.write_descriptor(held[position], part);
        }
    }

    fn write_table(&mut self, head: u16, parts: Vec<Descriptor>) {
        let Some(tables) = &self.tables else { return };
        let table = head as usize * TABLE_ENTRIES * DESCRIPTOR_BYTES;
        let count = parts.len();
        for (position, mut part) in parts.into_iter().enumerate() {
            if position + 1 < count {
                part.flags = Descriptor::NEXT;
                part.next = position as u16 + 1;
            }
            let at = tables.at::<Descriptor>(table + position * DESCRIPTOR_BYTES);
            // SAFETY: `at` checked the bounds and tables are aligned; the device does not read it before `publish`.
            unsafe { at.write_volatile(part) };
        }
        let address = tables.guest(table);
        let len = (count * DESCRIPTOR_BYTES) as u32;
        self.ring.write_descriptor(head, Descriptor { address, len, flags: Descriptor::INDIRECT, next: 0 });
    }
}
