//! What happens when a peer truncates the file behind memory that it shared? The kernel sends SIGBUS to the thread that
//! touches it, which would end the switch for everybody. A mapping under guard loses only itself: the handler puts zero
//! pages in its place and marks it lost.
//!
//! The handler runs on the thread that faulted, and that thread keeps the mapping alive, so the entry that it looks for
//! cannot change under it. Entries of other mappings may; a sequence number tells.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use rustix::mm::{MapFlags, ProtFlags};

const CHUNK_ENTRIES: usize = 64;

/// One mapping under guard, or a free entry. Never freed, because a handler may be looking at it.
#[derive(Debug)]
struct Entry {
    /// Odd while the range changes.
    sequence: AtomicUsize,
    start: AtomicUsize,
    /// 0 for a free entry.
    len: AtomicUsize,
    lost: AtomicBool,
}

impl Entry {
    const fn free() -> Self {
        Self {
            sequence: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }

    fn set(&self, start: usize, len: usize) {
        self.sequence.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.len.store(len, Ordering::SeqCst);
        self.lost.store(false, Ordering::SeqCst);
        self.sequence.fetch_add(1, Ordering::SeqCst);
    }

    /// The range, unless it is changing.
    fn range(&self) -> Option<(usize, usize)> {
        let before = self.sequence.load(Ordering::SeqCst);
        let range = (self.start.load(Ordering::SeqCst), self.len.load(Ordering::SeqCst));
        (before.is_multiple_of(2) && self.sequence.load(Ordering::SeqCst) == before).then_some(range)
    }
}

/// A list of entries that only grows: by chunks, and only as far as mappings live at once.
struct Chunk {
    entries: [Entry; CHUNK_ENTRIES],
    next: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn new() -> Self {
        Self { entries: [const { Entry::free() }; CHUNK_ENTRIES], next: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Chunk> {
        // SAFETY: null, or a chunk that `claim` leaked.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

static FIRST: Chunk = Chunk::new();
/// Held by those who claim and free entries; never by the handler.
static CLAIMS: Mutex<()> = Mutex::new(());
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

fn entries() -> impl Iterator<Item = &'static Entry> {
    std::iter::successors(Some(&FIRST), |chunk| chunk.next()).flat_map(|chunk| &chunk.entries)
}

/// Guards one mapping from its creation until just before it is unmapped.
#[derive(Debug)]
pub(super) struct Guard(&'static Entry);

impl Guard {
    /// Guards `len` bytes of a private or shared mapping at `start`, both multiples of its page size.
    pub(super) fn new(start: *mut u8, len: usize) -> Self {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(install);
        let _claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |entry: &&'static Entry| entry.len.load(Ordering::SeqCst) == 0;
        let entry = entries().find(free).unwrap_or_else(|| &grow().entries[0]);
        entry.set(start.addr(), len);
        Self(entry)
    }

    /// True once the file no longer held the mapping and zero pages took its place.
    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.set(0, 0);
    }
}

fn grow() -> &'static Chunk {
    let chunk: &'static mut Chunk = Box::leak(Box::new(Chunk::new()));
    let pointer: *mut Chunk = chunk;
    let mut last = &FIRST;
    while let Some(next) = last.next() {
        last = next;
    }
    last.next.store(pointer, Ordering::Release);
    // SAFETY: just leaked, and from here on only read through shared references.
    unsafe { &*pointer }
}

fn install() {
    // SAFETY: all-zero is a valid `sigaction`, for the kernel's struct is plain data.
    let (mut ours, mut previous) = unsafe { std::mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
    ours.sa_sigaction = handle as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both structs live, and `handle` calls nothing that a signal handler may not.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut previous) } == 0 {
        let _ = PREVIOUS.set(previous);
    }
}

extern "C" fn handle(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`.
    let address = unsafe { (*info).si_addr() }.addr();
    for entry in entries() {
        if let Some((start, len)) = entry.range()
            && address.wrapping_sub(start) < len
        {
            // A raw system call: it touches neither errno nor the allocator.
            // SAFETY: the range is one mapping of a peer's file, which its owner keeps while this thread uses it. Only
            // raw copies, volatile and atomic accesses reach it, and none of them minds which bytes it finds.
            let replaced = unsafe {
                let flags = MapFlags::PRIVATE | MapFlags::FIXED;
                rustix::mm::mmap_anonymous(
                    start as *mut c_void,
                    len,
                    ProtFlags::READ | ProtFlags::WRITE,
                    flags,
                )
            };
            entry.lost.store(true, Ordering::Relaxed);
            if replaced.is_ok() {
                return;
            }
        }
    }
    // Not ours: the fault happens again under whatever action there was.
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: an action that the kernel gave us.
        unsafe { libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut()) };
    }
}
