//! What is a descriptor, and which memory does a chain of them name? (virtio 1.2 §2.7.5)

use frame::DropReason;

/// The buffer goes on in the descriptor `next`.
const F_NEXT: u16 = 1;
/// The device writes this buffer.
const F_WRITE: u16 = 2;
/// The buffer holds a table of descriptors.
const F_INDIRECT: u16 = 4;

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_BYTES: usize = 16;

/// One descriptor, as it was when it was read. Kept as the two words that it was read as: a burst's descriptors are
/// stored and loaded again at once, which is only cheap in the same pieces.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Descriptor {
    addr: u64,
    /// Length, flags and next, from the low end.
    rest: u64,
}

impl Descriptor {
    /// Reads the descriptor at `at`, each byte once.
    ///
    /// # Safety
    /// `at` is valid for 16 bytes of reads and a multiple of 8.
    #[inline]
    pub(crate) unsafe fn read_aligned(at: *const u8) -> Self {
        let at = at.cast::<u64>();
        // SAFETY: the caller's contract, for each half.
        let (addr, rest) = unsafe { (at.read_volatile(), at.add(1).read_volatile()) };
        Self { addr: u64::from_le(addr), rest: u64::from_le(rest) }
    }

    /// As [`Descriptor::read_aligned`], at any address: indirect tables have no alignment (§2.7.5.3).
    ///
    /// # Safety
    /// `at` is valid for 16 bytes of reads.
    unsafe fn read(at: *const u8) -> Self {
        if at.addr().is_multiple_of(align_of::<u64>()) {
            // SAFETY: the caller's contract, and the alignment was just checked.
            return unsafe { Self::read_aligned(at) };
        }
        let word = |start: usize| {
            let mut bytes = [0; 8];
            for (offset, byte) in bytes.iter_mut().enumerate() {
                // SAFETY: `start + offset` < 16.
                *byte = unsafe { at.add(start + offset).read_volatile() };
            }
            u64::from_le_bytes(bytes)
        };
        Self { addr: word(0), rest: word(8) }
    }

    /// The buffer's guest address.
    #[inline]
    pub(crate) fn addr(&self) -> u64 {
        self.addr
    }

    /// The buffer's bytes.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.rest as u32
    }

    fn flags(&self) -> u16 {
        (self.rest >> 32) as u16
    }

    fn next(&self) -> u16 {
        (self.rest >> 48) as u16
    }

    /// True if this descriptor alone is a chain that the device reads.
    #[inline]
    pub(crate) fn is_single_readable(&self) -> bool {
        self.flags() & (F_NEXT | F_WRITE | F_INDIRECT) == 0
    }

    /// True if this descriptor alone is a chain that the device writes.
    #[inline]
    pub(crate) fn is_single_writable(&self) -> bool {
        self.flags() & (F_NEXT | F_WRITE | F_INDIRECT) == F_WRITE
    }

    fn has_next(&self) -> bool {
        self.flags() & F_NEXT != 0
    }

    fn is_indirect(&self) -> bool {
        self.flags() & F_INDIRECT != 0
    }

    fn access(&self) -> Access {
        if self.flags() & F_WRITE != 0 { Access::Write } else { Access::Read }
    }
}

/// What the device does with all buffers of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The guest's transmit queue.
    Read,
    /// The guest's receive queue.
    Write,
}

/// Why a chain is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainError {
    /// It loops, leaves its table or the guest's memory, goes the wrong way, or nests tables.
    Malformed,
    /// It is scattered over more runs than a frame may have.
    TooLong,
}

impl ChainError {
    /// How a frame of such a chain ends.
    pub(crate) fn reason(self) -> DropReason {
        match self {
            Self::Malformed => DropReason::BadDescriptor,
            Self::TooLong => DropReason::TooManySegments,
        }
    }
}

/// A contiguous piece of a chain's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) host: *mut u8,
    pub(crate) len: usize,
    pub(crate) guest: u64,
}

/// A table of descriptors that is mapped contiguously.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    base: *const u8,
    entries: u32,
}

impl Table {
    /// A table of `entries` descriptors at `base`.
    ///
    /// # Safety
    /// `base` stays valid for `entries * 16` bytes of reads for the table's life.
    pub(crate) unsafe fn new(base: *const u8, entries: u32) -> Self {
        Self { base, entries }
    }

    fn get(&self, index: u16) -> Option<Descriptor> {
        if u32::from(index) >= self.entries {
            return None;
        }
        // SAFETY: `index < entries`, and `new` was given that many readable descriptors.
        Some(unsafe { Descriptor::read(self.base.add(usize::from(index) * DESCRIPTOR_BYTES)) })
    }
}

/// How a walk reaches guest memory.
pub(crate) trait Translate {
    /// The host address of `len` bytes at `addr`, if one region holds them all.
    fn contiguous(&mut self, addr: u64, len: u64) -> Option<*mut u8>;

    /// The host address of `addr`, and how many of `len` bytes follow contiguously (at least one).
    fn piece(&mut self, addr: u64, len: u64) -> Option<(*mut u8, u64)>;
}

/// What a walk allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The way of every buffer.
    pub(crate) access: Access,
    /// Whether the driver may use indirect tables.
    pub(crate) indirect: bool,
    /// Runs that `runs` may hold.
    pub(crate) runs: usize,
}

/// Appends the memory of the chain that starts with `first` to `runs` and returns its bytes. Visits no table entry twice
/// without noticing: a chain longer than its table loops.
pub(crate) fn walk(
    first: Descriptor,
    mut table: Table,
    memory: &mut impl Translate,
    limits: Limits,
    runs: &mut Vec<Run>,
) -> Result<usize, ChainError> {
    let mut descriptor = first;
    let mut total = 0;
    let mut in_indirect = false;
    let mut left = table.entries;
    loop {
        if descriptor.is_indirect() {
            // §2.7.5.3: a table is named by a chain's last descriptor, does not nest, and its own way is ignored.
            if in_indirect || !limits.indirect || descriptor.has_next() {
                return Err(ChainError::Malformed);
            }
            table = indirect_table(descriptor, memory)?;
            in_indirect = true;
            left = table.entries;
            descriptor = table.get(0).ok_or(ChainError::Malformed)?;
            continue;
        }
        if descriptor.access() != limits.access {
            return Err(ChainError::Malformed);
        }
        push_runs(descriptor, memory, limits.runs, runs)?;
        total += descriptor.len() as usize;
        if !descriptor.has_next() {
            return Ok(total);
        }
        left -= 1;
        if left == 0 {
            return Err(ChainError::Malformed);
        }
        descriptor = table.get(descriptor.next()).ok_or(ChainError::Malformed)?;
    }
}

fn indirect_table(descriptor: Descriptor, memory: &mut impl Translate) -> Result<Table, ChainError> {
    let entries = descriptor.len() / DESCRIPTOR_BYTES as u32;
    // A `next` of 16 bits cannot reach further.
    let sane = descriptor.len().is_multiple_of(DESCRIPTOR_BYTES as u32) && (1..=1 << 16).contains(&entries);
    if !sane {
        return Err(ChainError::Malformed);
    }
    let base = memory.contiguous(descriptor.addr, descriptor.len().into()).ok_or(ChainError::Malformed)?;
    // SAFETY: `contiguous` gave `len` mapped bytes, which stay mapped while the ring is locked for this burst.
    Ok(unsafe { Table::new(base, entries) })
}

fn push_runs(
    descriptor: Descriptor,
    memory: &mut impl Translate,
    limit: usize,
    runs: &mut Vec<Run>,
) -> Result<(), ChainError> {
    let (mut addr, mut left) = (descriptor.addr, u64::from(descriptor.len()));
    addr.checked_add(left).ok_or(ChainError::Malformed)?;
    while left > 0 {
        if runs.len() == limit {
            return Err(ChainError::TooLong);
        }
        let (host, len) = memory.piece(addr, left).ok_or(ChainError::Malformed)?;
        runs.push(Run { host, len: len as usize, guest: addr });
        addr += len;
        left -= len;
    }
    Ok(())
}
