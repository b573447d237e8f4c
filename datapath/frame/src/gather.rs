//! Which bytes are sent, and in which order?

use std::marker::PhantomData;

/// One contiguous run of borrowed bytes. Laid out like `struct iovec`, so that a slice of them can be given to
/// `writev(2)` as it is.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Segment {
    pub(crate) base: *const u8,
    pub(crate) len: usize,
}

// SAFETY: a segment is a plain address and a length; whoever reads through it (`Gather`) carries the lifetime that
// makes the read valid, on whichever thread that is.
unsafe impl Send for Segment {}
// SAFETY: as for `Send`; there is no interior state.
unsafe impl Sync for Segment {}

impl Segment {
    /// Without bytes.
    pub(crate) const EMPTY: Segment = Segment { base: std::ptr::null(), len: 0 };

    /// A segment of `len` bytes at `base`.
    ///
    /// # Safety
    /// The bytes must stay readable until the burst that they are pushed into is cleared. They may change meanwhile
    /// (guest memory): readers only ever copy them.
    pub unsafe fn new(base: *const u8, len: usize) -> Self {
        Self { base, len }
    }

    /// Bytes in the segment.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a segment without bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first byte's address.
    pub fn base(&self) -> *const u8 {
        self.base
    }
}

/// The bytes of one frame in sending order: a head, then a range of the body's segments. A view; it copies when asked.
#[derive(Debug, Clone, Copy)]
pub struct Gather<'a> {
    head: &'a [u8],
    segments: &'a [Segment],
    /// Body bytes to pass over before the first one sent.
    skip: usize,
    /// Body bytes sent.
    body: usize,
    _borrow: PhantomData<&'a [u8]>,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(head: &'a [u8], segments: &'a [Segment], body: usize) -> Self {
        Self { head, segments, skip: 0, body, _borrow: PhantomData }
    }

    /// All bytes that are sent.
    pub fn len(&self) -> usize {
        self.head.len() + self.body
    }

    /// True if nothing is sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes sent first, private to the switch.
    pub fn head(&self) -> &'a [u8] {
        self.head
    }

    /// Body bytes sent after the head.
    pub fn body_len(&self) -> usize {
        self.body
    }

    /// The same body range behind another head (a segment's own headers).
    pub fn with_head<'b>(&self, head: &'b [u8]) -> Gather<'b>
    where
        'a: 'b,
    {
        Gather { head, ..*self }
    }

    /// `len` bytes of this gather from byte `at` on, behind no head. Bytes of the head are copied nowhere: the result
    /// is split into what lies in the head and what lies in the body.
    ///
    /// # Panics
    /// If the range is not inside the gather.
    pub fn split(&self, at: usize, len: usize) -> Gather<'a> {
        assert!(at <= self.len() && len <= self.len() - at, "range outside the gather");
        let head_start = at.min(self.head.len());
        let head_end = (at + len).min(self.head.len()).max(head_start);
        let head = &self.head[head_start..head_end];
        let body_start = at.saturating_sub(self.head.len());
        Gather { head, skip: self.skip + body_start, body: len - head.len(), ..*self }
    }

    /// The body's runs, as they are to be sent.
    pub fn body(&self) -> BodyRuns<'a> {
        BodyRuns { segments: self.segments, skip: self.skip, left: self.body, _borrow: PhantomData }
    }

    /// Copies everything to `to`.
    ///
    /// # Safety
    /// `to` must be valid for [`Gather::len`] bytes of writes and overlap none of the frame's own memory.
    #[inline]
    pub unsafe fn copy_to(&self, to: *mut u8) {
        // SAFETY: the caller gives `len()` bytes; the head is the first `head.len()` of them.
        unsafe { copy_short(self.head.as_ptr(), to, self.head.len()) };
        if self.body == 0 {
            return;
        }
        // SAFETY: as above, the head's bytes are within the destination.
        let mut at = unsafe { to.add(self.head.len()) };
        // Nearly always the body is one run, sent whole.
        if let [run] = self.segments
            && run.len == self.body
        {
            // SAFETY: as for the runs below.
            return unsafe { std::ptr::copy_nonoverlapping(run.base, at, run.len) };
        }
        for run in self.body() {
            // SAFETY: the run is readable for the burst's life (`Segment::new`), and the runs add up to `body`.
            unsafe {
                std::ptr::copy_nonoverlapping(run.base, at, run.len);
                at = at.add(run.len);
            }
        }
    }

    /// Copies everything into `to`, which must be exactly as long.
    ///
    /// # Panics
    /// If `to.len() != self.len()`.
    pub fn copy_to_slice(&self, to: &mut [u8]) {
        assert_eq!(to.len(), self.len(), "destination length");
        // SAFETY: `to` is exclusive and as long as the gather.
        unsafe { self.copy_to(to.as_mut_ptr()) }
    }

    /// A copy of everything, for traces and tests.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.copy_to_slice(&mut bytes);
        bytes
    }
}

/// Copies up to a head's worth of bytes with few, fixed-size moves: for more than 16 bytes, two that may overlap.
///
/// # Safety
/// `from` must be readable and `to` writable for `len` bytes, without overlap.
#[inline]
pub(crate) unsafe fn copy_short(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: in each arm both fixed-size moves stay inside `len` bytes, because `len` is at least the move's size.
    unsafe {
        match len {
            65..=128 => {
                copy_fixed::<64>(from, to);
                copy_fixed::<64>(from.add(len - 64), to.add(len - 64));
            }
            33..=64 => {
                copy_fixed::<32>(from, to);
                copy_fixed::<32>(from.add(len - 32), to.add(len - 32));
            }
            17..=32 => {
                copy_fixed::<16>(from, to);
                copy_fixed::<16>(from.add(len - 16), to.add(len - 16));
            }
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// # Safety
/// `from` must be readable and `to` writable for `N` bytes, without overlap.
#[inline(always)]
unsafe fn copy_fixed<const N: usize>(from: *const u8, to: *mut u8) {
    // SAFETY: the caller's contract; an array of bytes has no alignment.
    unsafe { to.cast::<[u8; N]>().write_unaligned(from.cast::<[u8; N]>().read_unaligned()) }
}

/// The runs of body bytes of a [`Gather`], clipped to its range.
#[derive(Debug, Clone)]
pub struct BodyRuns<'a> {
    segments: &'a [Segment],
    skip: usize,
    left: usize,
    _borrow: PhantomData<&'a [u8]>,
}

impl Iterator for BodyRuns<'_> {
    type Item = Segment;

    #[inline]
    fn next(&mut self) -> Option<Segment> {
        while self.left > 0 {
            let (first, rest) = self.segments.split_first()?;
            if self.skip >= first.len {
                self.skip -= first.len;
                self.segments = rest;
                continue;
            }
            let len = (first.len - self.skip).min(self.left);
            // SAFETY: `skip < first.len`, so the address stays inside the segment.
            let base = unsafe { first.base.add(self.skip) };
            self.left -= len;
            self.skip = 0;
            self.segments = rest;
            return Some(Segment { base, len });
        }
        None
    }
}
