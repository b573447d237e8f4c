//! Where do a socket's frames lie? In chunks of memory of ours, each of which is either the kernel's to write, or ours.
//!
//! The first [`RECEIVE_CHUNKS`] are for frames that come in, the others for frames that leave, so that neither can starve the
//! other. Addresses are offsets from the first byte.

use frame::Gather;

use super::region::Region;

/// Chunks for frames that come in, at most as many as the rings of such frames have entries.
pub(super) const RECEIVE_CHUNKS: u32 = 1024;
/// Chunks for frames that leave, as above.
pub(super) const TRANSMIT_CHUNKS: u32 = 512;
/// What the kernel keeps free in front of each frame (`XDP_PACKET_HEADROOM`).
const HEADROOM_BYTES: u32 = 256;

/// How long a chunk is: a power of two, as the kernel wants it, that a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkBytes(u32);

impl ChunkBytes {
    /// The smallest for frames of `frame_bytes`; `None` if there is none.
    pub(super) fn holding(frame_bytes: u32) -> Option<Self> {
        [2048, 4096].into_iter().find(|bytes| frame_bytes <= bytes - HEADROOM_BYTES).map(Self)
    }

    /// The longest frame that any chunk holds.
    pub(super) const LONGEST_FRAME: u32 = 4096 - HEADROOM_BYTES;

    pub(super) fn get(self) -> u32 {
        self.0
    }
}

/// The memory of one socket.
#[derive(Debug)]
pub(super) struct Umem {
    region: Region,
    chunk: ChunkBytes,
}

impl Umem {
    pub(super) fn new(chunk: ChunkBytes) -> rustix::io::Result<Self> {
        let bytes = (RECEIVE_CHUNKS + TRANSMIT_CHUNKS) as usize * chunk.0 as usize;
        Ok(Self { region: Region::anonymous(bytes)?, chunk })
    }

    pub(super) fn chunk(&self) -> ChunkBytes {
        self.chunk
    }

    /// Its first byte, and how many it has.
    pub(super) fn whole(&self) -> (*mut u8, usize) {
        let len = self.region.len();
        (self.region.at(0, len).expect("all of it is inside"), len)
    }

    /// The addresses of the chunks for frames that come in.
    pub(super) fn receive_chunks(&self) -> impl Iterator<Item = u64> + use<> {
        let bytes = u64::from(self.chunk.0);
        (0..u64::from(RECEIVE_CHUNKS)).map(move |number| number * bytes)
    }

    /// The addresses of the chunks for frames that leave.
    pub(super) fn transmit_chunks(&self) -> impl Iterator<Item = u64> + use<> {
        let bytes = u64::from(self.chunk.0);
        (u64::from(RECEIVE_CHUNKS)..u64::from(RECEIVE_CHUNKS + TRANSMIT_CHUNKS))
            .map(move |number| number * bytes)
    }

    /// Where a frame that came in lies, and the chunk that it is in; `None` unless all of it is in one chunk of those.
    pub(super) fn received(&self, address: u64, len: u32) -> Option<(*const u8, u64)> {
        let bytes = u64::from(self.chunk.0);
        let chunk = address - address % bytes;
        let fits = address % bytes + u64::from(len) <= bytes && chunk / bytes < RECEIVE_CHUNKS.into();
        let first = fits.then(|| self.region.at::<u8>(address, len as usize)).flatten()?;
        Some((first.cast_const(), chunk))
    }

    /// The number of a chunk for frames that leave, from 0 on; `None` if `address` is none.
    pub(super) fn transmit_number(&self, address: u64) -> Option<usize> {
        let bytes = u64::from(self.chunk.0);
        let number = (address / bytes).checked_sub(RECEIVE_CHUNKS.into())?;
        (address.is_multiple_of(bytes) && number < TRANSMIT_CHUNKS.into()).then_some(number as usize)
    }

    /// Copies a frame into the chunk at `chunk`; false if it is too long for it.
    ///
    /// # Safety
    /// The chunk is one for frames that leave, and the caller's: neither the kernel nor anybody else reads or writes it.
    pub(super) unsafe fn write(&self, chunk: u64, frame: &Gather<'_>) -> bool {
        if frame.len() > self.chunk.0 as usize {
            return false;
        }
        let Some(to) = self.region.at(chunk, frame.len()) else { return false };
        // SAFETY: `to` is writable for the frame's length, and the caller's alone.
        unsafe { frame.copy_to(to) };
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: u32 = 1522;
    const CHUNK: u64 = 2048;
    const RECEIVE_BYTES: u64 = RECEIVE_CHUNKS as u64 * CHUNK;
    const BYTES: u64 = RECEIVE_BYTES + TRANSMIT_CHUNKS as u64 * CHUNK;

    fn umem() -> Umem {
        Umem::new(ChunkBytes::holding(FRAME).unwrap()).unwrap()
    }

    #[test]
    fn descriptors_beyond_their_chunk_or_the_memory_are_refused() {
        let umem = umem();
        let (base, _) = umem.whole();
        assert_eq!(umem.received(CHUNK + 256, 1522), Some((base.wrapping_add(2304).cast_const(), CHUNK)));
        assert!(umem.received(RECEIVE_BYTES - 1, 1).is_some());
        for (address, len) in [
            (0, 2049),
            (256, 1793),
            (CHUNK - 1, 2),
            (0, u32::MAX),
            (RECEIVE_BYTES, 1),
            (BYTES - 1, 1),
            (BYTES, 0),
            (u64::MAX, 0),
            (u64::MAX - 1, u32::MAX),
        ] {
            assert_eq!(umem.received(address, len), None, "{address} {len}");
        }
        assert_eq!(umem.transmit_number(RECEIVE_BYTES + 3 * CHUNK), Some(3));
        for address in [0, RECEIVE_BYTES - CHUNK, RECEIVE_BYTES + 1, BYTES, u64::MAX, u64::MAX - CHUNK + 1] {
            assert_eq!(umem.transmit_number(address), None, "{address}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_found_lies_in_its_chunk(address in 0..2 * BYTES, len: u32) {
            let umem = umem();
            let (base, _) = umem.whole();
            if let Some((first, chunk)) = umem.received(address, len % 4096) {
                let at = first as u64 - base as u64;
                prop_assert!(chunk <= at && at + u64::from(len % 4096) <= chunk + CHUNK && chunk + CHUNK <= RECEIVE_BYTES);
            }
        }
    }

    #[test]
    fn chunks_hold_frames_and_the_kernels_headroom() {
        assert_eq!(ChunkBytes::holding(1792).unwrap().get(), 2048);
        assert_eq!(ChunkBytes::holding(1793).unwrap().get(), 4096);
        assert_eq!(ChunkBytes::holding(ChunkBytes::LONGEST_FRAME + 1), None);
    }

    #[test]
    fn every_chunk_is_on_one_side() {
        let umem = umem();
        assert!(umem.receive_chunks().all(|chunk| umem.received(chunk, 1).is_some()));
        let numbers: Vec<_> =
            umem.transmit_chunks().map(|chunk| umem.transmit_number(chunk).unwrap()).collect();
        assert_eq!(numbers, (0..TRANSMIT_CHUNKS as usize).collect::<Vec<_>>());
    }
}
