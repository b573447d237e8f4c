//! What holds the frames of one receive? A few arrays, reused for ever: no packet has a buffer or a metadata object of
//! its own.

use crate::gather::{Gather, Segment, copy_short};
use crate::offload::{Checksum, Offload};

/// Frames in a burst. Measured: 8, 16 and 32 cost the same per frame, 64 is no better, 1 is seven times worse.
pub const BURST_FRAMES: usize = 32;
/// Bytes kept free in front of a head: a VLAN tag, or Ethernet + IPv6 + UDP + Geneve with options.
pub const HEADROOM_BYTES: usize = 128;
/// The first bytes of a frame that are copied into its head. Enough for Ethernet, two tags, and either IPv4 or IPv6 with
/// the longest TCP header.
pub const HEAD_BYTES: usize = 128;
/// What [`Burst::peek`] shows: Ethernet, a tag, an IPv6 header and a TCP header.
pub const PEEK_BYTES: usize = 80;
/// The longest frame: a 64 KB IP packet behind Ethernet and two tags.
pub const MAX_FRAME_BYTES: usize = 65_535 + 14 + 8;
/// The longest frame that [`Burst::replace`] makes: the packet that every IPv6 link takes (RFC 8200 §5), behind Ethernet.
pub const MAX_REPLACED_BYTES: usize = 1280 + 14;
/// Segments one frame may be scattered over. Linux sends at most 47 (MAX_SKB_FRAGS 45 + 2).
pub const MAX_SEGMENTS: usize = 256;

const ROOM: usize = HEADROOM_BYTES + HEAD_BYTES;
/// What of a replaced frame is behind its head.
const TAIL_BYTES: usize = MAX_REPLACED_BYTES - HEAD_BYTES;

#[repr(C, align(64))]
struct Head([u8; ROOM]);

#[derive(Clone, Copy)]
struct Meta {
    /// Where the head starts in its room.
    head_start: u16,
    head_len: u16,
    body_len: u32,
    offload: Offload,
    body: Body,
}

impl Meta {
    const EMPTY: Meta = Meta {
        head_start: 0,
        head_len: 0,
        body_len: 0,
        offload: Offload::NONE,
        body: Body::Run(Segment::EMPTY),
    };
}

/// Where the bytes behind a head are.
#[derive(Clone, Copy)]
enum Body {
    /// All in one place, as nearly always. Empty if the frame ends with its head.
    Run(Segment),
    /// In `count` of the burst's segments, from `first` on.
    Scattered { first: u32, count: u32 },
}

/// Why a frame was not taken into a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// The burst holds [`BURST_FRAMES`] frames.
    Full,
    /// The frame is longer than [`MAX_FRAME_BYTES`] or has no bytes.
    Length,
    /// The frame has more than [`MAX_SEGMENTS`] segments.
    Segments,
}

/// The frames of one receive, from one port. Filled by the port, lent to the switch, cleared by the port.
pub struct Burst {
    heads: Box<[Head; BURST_FRAMES]>,
    meta: [Meta; BURST_FRAMES],
    /// Those of all scattered bodies.
    segments: Vec<Segment>,
    /// What [`Burst::push_owned`] took; segments point into it.
    owned: Vec<Vec<u8>>,
    /// The bodies of replaced frames: [`TAIL_BYTES`] for each frame. Never grows: segments point into it.
    tails: Vec<u8>,
    len: usize,
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Burst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Burst").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Burst {
    /// An empty burst. The only allocation that a burst's owner makes; the segment list grows to what its traffic needs.
    pub fn new() -> Self {
        let heads: Vec<Head> = (0..BURST_FRAMES).map(|_| Head([0; ROOM])).collect();
        let Ok(heads) = heads.into_boxed_slice().try_into() else {
            unreachable!("BURST_FRAMES heads were made")
        };
        Self {
            heads,
            meta: [Meta::EMPTY; BURST_FRAMES],
            segments: Vec::with_capacity(4 * BURST_FRAMES),
            owned: Vec::new(),
            // Zeroed by the kernel: pages that no answer needs are never there.
            tails: vec![0; BURST_FRAMES * TAIL_BYTES],
            len: 0,
        }
    }

    /// Frames held.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no frame is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if no further frame fits.
    pub fn is_full(&self) -> bool {
        self.len == BURST_FRAMES
    }

    /// Forgets all frames; the bodies they borrowed are their port's again.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
        self.segments.clear();
        self.owned.clear();
    }

    /// Takes a frame whose bytes the burst keeps itself until [`Burst::clear`]: for frames that are made in software
    /// (tests, simulation), at the price of an allocation each.
    ///
    /// # Errors
    /// As [`Burst::push`].
    pub fn push_owned(&mut self, bytes: Vec<u8>, offload: Offload) -> Result<(), PushError> {
        // SAFETY: the bytes' heap memory is kept in `owned`, unmoved and unchanged, until `clear`.
        unsafe { self.push(bytes.as_ptr(), bytes.len(), offload)? };
        self.owned.push(bytes);
        Ok(())
    }

    /// Takes a frame of `len` contiguous bytes at `base`. The first bytes are copied into the head, the rest is borrowed.
    ///
    /// # Errors
    /// [`PushError::Full`] or [`PushError::Length`]; the burst is unchanged then.
    ///
    /// # Safety
    /// The bytes must stay readable until [`Burst::clear`]. They may change meanwhile.
    #[inline]
    pub unsafe fn push(&mut self, base: *const u8, len: usize, offload: Offload) -> Result<(), PushError> {
        if self.is_full() {
            return Err(PushError::Full);
        }
        if len == 0 || len > MAX_FRAME_BYTES {
            return Err(PushError::Length);
        }
        let head_len = len.min(HEAD_BYTES);
        let room = &mut self.heads[self.len].0;
        // SAFETY: `head_len` <= HEAD_BYTES fits behind the headroom; the caller gives `len` readable bytes.
        unsafe { copy_short(base, room.as_mut_ptr().add(HEADROOM_BYTES), head_len) };
        let body_len = len - head_len;
        // SAFETY: `head_len <= len`, inside the caller's bytes, which outlive the burst's use of them.
        let body = Body::Run(unsafe { Segment::new(base.add(head_len), body_len) });
        self.meta[self.len] = Meta {
            head_start: HEADROOM_BYTES as u16,
            head_len: head_len as u16,
            body_len: body_len as u32,
            offload,
            body,
        };
        self.len += 1;
        Ok(())
    }

    /// Takes a frame that is scattered over `parts`, in order.
    ///
    /// # Errors
    /// As [`Burst::push`], and [`PushError::Segments`]; the burst is unchanged then.
    ///
    /// # Safety
    /// As [`Burst::push`], for every part.
    pub unsafe fn push_parts(&mut self, parts: &[Segment], offload: Offload) -> Result<(), PushError> {
        if self.is_full() {
            return Err(PushError::Full);
        }
        if parts.len() > MAX_SEGMENTS {
            return Err(PushError::Segments);
        }
        let len: usize = parts.iter().map(|part| part.len.min(MAX_FRAME_BYTES + 1)).sum();
        if len == 0 || len > MAX_FRAME_BYTES {
            return Err(PushError::Length);
        }
        let first = self.segments.len();
        let room = &mut self.heads[self.len].0;
        let mut head_len = 0;
        for part in parts {
            let take = part.len.min(HEAD_BYTES - head_len);
            // SAFETY: `head_len + take <= HEAD_BYTES`; the part has `take` readable bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    part.base,
                    room.as_mut_ptr().add(HEADROOM_BYTES + head_len),
                    take,
                );
            }
            head_len += take;
            if take < part.len {
                // SAFETY: the rest of the part, as readable as the whole.
                self.segments.push(unsafe { Segment::new(part.base.add(take), part.len - take) });
            }
        }
        self.meta[self.len] = Meta {
            head_start: HEADROOM_BYTES as u16,
            head_len: head_len as u16,
            body_len: (len - head_len) as u32,
            offload,
            body: Body::Scattered { first: first as u32, count: (self.segments.len() - first) as u32 },
        };
        self.len += 1;
        Ok(())
    }

    /// All bytes of frame `index`, head and body.
    #[inline]
    pub fn frame_len(&self, index: usize) -> usize {
        let meta = &self.meta[index];
        meta.head_len as usize + meta.body_len as usize
    }

    /// The private first bytes of frame `index`.
    #[inline]
    pub fn head(&self, index: usize) -> &[u8] {
        let meta = &self.meta[index];
        &self.heads[index].0[meta.head_start as usize..(meta.head_start + meta.head_len) as usize]
    }

    /// The first bytes of frame `index` as an array of a fixed size, which is compared faster than a slice. Those behind
    /// the frame's end are what some earlier frame left there. `None` if the head begins too late for that.
    #[inline(always)]
    pub fn peek(&self, index: usize) -> Option<&[u8; PEEK_BYTES]> {
        self.heads[index].0.get(self.meta[index].head_start as usize..)?.first_chunk()
    }

    /// The private first bytes of frame `index`, to edit.
    #[inline]
    pub fn head_mut(&mut self, index: usize) -> &mut [u8] {
        let meta = &self.meta[index];
        &mut self.heads[index].0[meta.head_start as usize..(meta.head_start + meta.head_len) as usize]
    }

    /// What frame `index` leaves to the next hop.
    #[inline]
    pub fn offload(&self, index: usize) -> Offload {
        self.meta[index].offload
    }

    /// Replaces what frame `index` leaves to the next hop.
    pub fn set_offload(&mut self, index: usize, offload: Offload) {
        self.meta[index].offload = offload;
    }

    /// Grows the head of frame `index` by `bytes` at its front and returns the whole head. A partial checksum's start
    /// moves along. `None` if the headroom does not hold them; the frame is unchanged then.
    pub fn grow_front(&mut self, index: usize, bytes: usize) -> Option<&mut [u8]> {
        let meta = &mut self.meta[index];
        let start = (meta.head_start as usize).checked_sub(bytes)?;
        meta.head_start = start as u16;
        meta.head_len += bytes as u16;
        if let Checksum::Partial { start, .. } = &mut meta.offload.checksum {
            *start = start.saturating_add(bytes as u16);
        }
        if let Some(gso) = &mut meta.offload.gso {
            gso.headers_bytes = gso.headers_bytes.saturating_add(bytes as u16);
        }
        if meta.offload.outer_bytes > 0 {
            meta.offload.outer_bytes = meta.offload.outer_bytes.saturating_add(bytes as u16);
        }
        Some(self.head_mut(index))
    }

    /// Cuts `bytes` off the front of frame `index`'s head and returns the whole head; the reverse of
    /// [`Burst::grow_front`]. `None` if the head is not longer than that; the frame is unchanged then.
    pub fn shrink_front(&mut self, index: usize, bytes: usize) -> Option<&mut [u8]> {
        let meta = &mut self.meta[index];
        if meta.head_len as usize <= bytes {
            return None;
        }
        meta.head_start += bytes as u16;
        meta.head_len -= bytes as u16;
        if let Checksum::Partial { start, .. } = &mut meta.offload.checksum {
            *start = start.saturating_sub(bytes as u16);
        }
        if let Some(gso) = &mut meta.offload.gso {
            gso.headers_bytes = gso.headers_bytes.saturating_sub(bytes as u16);
        }
        meta.offload.outer_bytes = meta.offload.outer_bytes.saturating_sub(bytes as u16);
        Some(self.head_mut(index))
    }

    /// Puts frame `index` behind the headers `outer` of a tunnel. False, and the frame unchanged, if the headroom does not
    /// hold them, or the frame is in a tunnel.
    pub fn encapsulate(&mut self, index: usize, outer: &[u8]) -> bool {
        if self.meta[index].offload.outer_bytes > 0 {
            return false;
        }
        let Some(head) = self.grow_front(index, outer.len()) else { return false };
        head[..outer.len()].copy_from_slice(outer);
        self.meta[index].offload.outer_bytes = outer.len() as u16;
        true
    }

    /// Fills the head of frame `index` up from its body: what is behind the headers of a tunnel is to be classified by as
    /// many bytes as other frames. The head has its whole headroom again.
    pub fn refill(&mut self, index: usize) {
        let meta = &mut self.meta[index];
        let room = &mut self.heads[index].0;
        let (start, len) = (meta.head_start as usize, meta.head_len as usize);
        if len >= HEAD_BYTES {
            return;
        }
        room.copy_within(start..start + len, HEADROOM_BYTES);
        meta.head_start = HEADROOM_BYTES as u16;
        let mut missing = (HEAD_BYTES - len).min(meta.body_len as usize);
        let runs = match &mut meta.body {
            Body::Run(run) => std::slice::from_mut(run),
            Body::Scattered { first, count } => {
                &mut self.segments[*first as usize..(*first + *count) as usize]
            }
        };
        for run in runs {
            let take = missing.min(run.len);
            let end = HEADROOM_BYTES + meta.head_len as usize;
            // SAFETY: `end + take <= HEADROOM_BYTES + HEAD_BYTES`, and the run has `take` readable bytes (`Segment::new`).
            unsafe {
                std::ptr::copy_nonoverlapping(run.base, room.as_mut_ptr().add(end), take);
                *run = Segment::new(run.base.add(take), run.len - take);
            }
            meta.head_len += take as u16;
            meta.body_len -= take as u32;
            missing -= take;
        }
    }

    /// Makes frame `index` consist of `bytes` alone, with nothing left to the next hop: an answer in the place of a question.
    /// False if they are none, or more than [`MAX_REPLACED_BYTES`]; the frame is unchanged then.
    pub fn replace(&mut self, index: usize, bytes: &[u8]) -> bool {
        if bytes.is_empty() || bytes.len() > MAX_REPLACED_BYTES || index >= self.len {
            return false;
        }
        let (head, tail) = bytes.split_at(bytes.len().min(HEAD_BYTES));
        self.heads[index].0[HEADROOM_BYTES..HEADROOM_BYTES + head.len()].copy_from_slice(head);
        // SAFETY: `index < len <= BURST_FRAMES`, so the frame's own TAIL_BYTES lie inside of `tails`, and `tail` is no longer
        // than those. No slice of `tails` is ever made, which would end the use of pointers that other frames' segments
        // hold; nor is this frame's old segment read again, for it is replaced below. The bytes stay readable as long as
        // the burst: `tails` is neither grown nor given away.
        let body = unsafe {
            let room = self.tails.as_mut_ptr().add(index * TAIL_BYTES);
            std::ptr::copy_nonoverlapping(tail.as_ptr(), room, tail.len());
            Segment::new(room, tail.len())
        };
        self.meta[index] = Meta {
            head_len: head.len() as u16,
            head_start: HEADROOM_BYTES as u16,
            body_len: tail.len() as u32,
            body: Body::Run(body),
            ..Meta::EMPTY
        };
        true
    }

    /// The bytes of frame `index` in sending order.
    #[inline]
    pub fn gather(&self, index: usize) -> Gather<'_> {
        let meta = &self.meta[index];
        let segments = match &meta.body {
            Body::Run(run) => std::slice::from_ref(run),
            Body::Scattered { first, count } => &self.segments[*first as usize..(first + count) as usize],
        };
        Gather::new(self.head(index), segments, meta.body_len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gso, GsoKind};
    use proptest::prelude::*;

    fn push_bytes(burst: &mut Burst, bytes: &[u8]) -> Result<(), PushError> {
        // SAFETY: every caller in these tests keeps `bytes` until the burst is dropped.
        unsafe { burst.push(bytes.as_ptr(), bytes.len(), Offload::NONE) }
    }

    fn push_cut(burst: &mut Burst, bytes: &[u8], cuts: &[usize]) -> Result<(), PushError> {
        let mut parts = Vec::new();
        let mut rest = bytes;
        for cut in cuts {
            let (part, tail) = rest.split_at((*cut).min(rest.len()));
            // SAFETY: as above.
            parts.push(unsafe { Segment::new(part.as_ptr(), part.len()) });
            rest = tail;
        }
        // SAFETY: as above.
        unsafe {
            parts.push(Segment::new(rest.as_ptr(), rest.len()));
            burst.push_parts(&parts, Offload::NONE)
        }
    }

    proptest! {
        #[test]
        fn a_gather_gives_the_bytes_that_were_pushed(
            bytes in prop::collection::vec(any::<u8>(), 1..3000), cuts in prop::collection::vec(0usize..400, 0..12)
        ) {
            let mut burst = Burst::new();
            push_bytes(&mut burst, &bytes).unwrap();
            push_cut(&mut burst, &bytes, &cuts).unwrap();
            prop_assert_eq!(burst.gather(0).to_vec(), bytes.clone());
            prop_assert_eq!(burst.gather(1).to_vec(), bytes.clone());
            prop_assert_eq!(burst.head(0), burst.head(1));
            prop_assert_eq!(burst.frame_len(1), bytes.len());
        }

        #[test]
        fn a_split_gives_the_range(
            bytes in prop::collection::vec(any::<u8>(), 1..3000), cuts in prop::collection::vec(0usize..400, 0..12),
            at in 0usize..3000, len in 0usize..3000
        ) {
            let mut burst = Burst::new();
            push_cut(&mut burst, &bytes, &cuts).unwrap();
            let at = at.min(bytes.len());
            let len = len.min(bytes.len() - at);
            let half = burst.gather(0).split(at, len);
            prop_assert_eq!(half.to_vec(), &bytes[at..at + len]);
            let twice = half.split(len / 3, len - len / 3);
            prop_assert_eq!(twice.to_vec(), &bytes[at + len / 3..at + len]);
        }
    }

    proptest! {
        #[test]
        fn a_frame_out_of_a_tunnel_has_a_full_head_and_the_same_bytes(
            bytes in prop::collection::vec(any::<u8>(), 71..1000), cuts in prop::collection::vec(0usize..400, 0..12),
            outer in 1usize..70
        ) {
            let mut burst = Burst::new();
            push_cut(&mut burst, &bytes, &cuts).unwrap();
            burst.shrink_front(0, outer);
            burst.refill(0);
            prop_assert_eq!(burst.gather(0).to_vec(), &bytes[outer..]);
            prop_assert_eq!(burst.head(0).len(), HEAD_BYTES.min(bytes.len() - outer));
            prop_assert_eq!(burst.frame_len(0), bytes.len() - outer);
        }
    }

    #[test]
    fn a_tunnel_around_a_frame_comes_off_again() {
        let mut burst = Burst::new();
        let gso = Gso { kind: GsoKind::TcpV4, size: 1000, ecn: false, headers_bytes: 54 };
        let offload = Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            gso: Some(gso),
            ..Offload::NONE
        };
        burst.push_owned(vec![7; 3000], offload).unwrap();
        assert!(burst.encapsulate(0, &[9; 50]));
        assert!(!burst.encapsulate(0, &[9; 50]), "one tunnel at a time");
        let inside = burst.offload(0);
        assert_eq!((inside.outer_bytes, burst.frame_len(0)), (50, 3050));
        assert_eq!(inside.checksum, Checksum::Partial { start: 84, offset: 16 });
        assert_eq!(burst.head(0)[..51], *[&[9; 50][..], &[7]].concat());
        burst.shrink_front(0, 50);
        assert_eq!((burst.offload(0), burst.gather(0).to_vec()), (offload, vec![7; 3000]));
        assert!(!burst.encapsulate(0, &[9; HEADROOM_BYTES + 1]), "more than there is room for");
    }

    #[test]
    fn a_full_burst_refuses_and_stays_whole() {
        let mut burst = Burst::new();
        let bytes = [7u8; 200];
        for _ in 0..BURST_FRAMES {
            push_bytes(&mut burst, &bytes).unwrap();
        }
        assert_eq!(push_bytes(&mut burst, &bytes), Err(PushError::Full));
        assert_eq!(burst.len(), BURST_FRAMES);
        burst.clear();
        assert!(burst.is_empty());
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused() {
        let mut burst = Burst::new();
        let bytes = vec![0u8; MAX_FRAME_BYTES + 1];
        assert_eq!(push_bytes(&mut burst, &bytes), Err(PushError::Length));
        assert_eq!(push_bytes(&mut burst, &[]), Err(PushError::Length));
        assert_eq!(push_cut(&mut burst, &bytes, &[30_000, 30_000]), Err(PushError::Length));
        assert_eq!(push_cut(&mut burst, &bytes[..600], &[1; MAX_SEGMENTS]), Err(PushError::Segments));
        assert!(burst.is_empty());
    }

    #[test]
    fn a_replaced_frame_has_only_its_new_bytes() {
        let mut burst = Burst::new();
        let bytes = [1u8; 1500];
        push_bytes(&mut burst, &bytes).unwrap();
        burst.set_offload(
            0,
            Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, ..Offload::NONE },
        );
        burst.grow_front(0, 4).unwrap();
        assert!(burst.replace(0, &[7; HEAD_BYTES]));
        assert_eq!((burst.gather(0).to_vec(), burst.offload(0)), (vec![7; HEAD_BYTES], Offload::NONE));
        for wrong in [&[][..], &[7; MAX_REPLACED_BYTES + 1]] {
            assert!(!burst.replace(0, wrong));
        }
        assert!(burst.replace(0, &[9]) && burst.gather(0).to_vec() == [9]);
        assert!(!burst.replace(1, &[9]), "there is no such frame");
    }

    #[test]
    fn every_frame_of_a_burst_can_be_replaced_by_a_long_one_and_replaced_again() {
        let mut burst = Burst::new();
        for _ in 0..2 {
            for _ in 0..BURST_FRAMES {
                burst.push_owned(vec![1; 300], Offload::NONE).unwrap();
            }
            for round in 0..2u8 {
                for index in 0..BURST_FRAMES {
                    let answer = vec![index as u8 + round; MAX_REPLACED_BYTES - index];
                    assert!(burst.replace(index, &answer));
                }
                for index in 0..BURST_FRAMES {
                    let answer = vec![index as u8 + round; MAX_REPLACED_BYTES - index];
                    assert_eq!(
                        (burst.gather(index).to_vec(), burst.frame_len(index)),
                        (answer.clone(), answer.len())
                    );
                }
            }
            let again = burst.gather(3).to_vec();
            assert!(burst.replace(3, &again));
            assert!(burst.encapsulate(3, &[9; 50]), "it leaves as any other frame");
            assert_eq!(burst.gather(3).to_vec(), [vec![9; 50], again].concat());
            let mut moved = burst;
            moved.clear();
            burst = moved;
        }
    }

    #[test]
    fn growing_and_shrinking_the_front_moves_the_partial_checksum() {
        let mut burst = Burst::new();
        let bytes = [1u8; 60];
        push_bytes(&mut burst, &bytes).unwrap();
        let partial = |start| Checksum::Partial { start, offset: 16 };
        burst.set_offload(0, Offload { checksum: partial(34), ..Offload::NONE });
        assert_eq!(burst.grow_front(0, 4).unwrap().len(), 64);
        assert_eq!(burst.offload(0).checksum, partial(38));
        assert_eq!(burst.shrink_front(0, 4).unwrap(), bytes);
        assert_eq!(burst.offload(0).checksum, partial(34));
        assert!(burst.grow_front(0, HEADROOM_BYTES + 1).is_none());
        assert!(burst.shrink_front(0, 60).is_none());
    }
}
