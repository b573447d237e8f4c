//! How is a peer told of something by its eventfd, when nobody here may wait for that peer?
//!
//! A write to an eventfd waits while its counter is full, unless the open file says O_NONBLOCK; and the peer has the same
//! open file, and may say otherwise at any instant. What adds to an eventfd and never waits is the kernel itself, when it
//! tells of the completion of asynchronous I/O (`io_submit(2)`, IOCB_FLAG_RESFD; `eventfd_signal` stops counting at the
//! limit). So each ring of the bell is an operation that does nothing, an empty write to /dev/null, whose completion the
//! peer's eventfd is told of. It costs about 0.2 microseconds more than a write (`docs/adr/0007-bell.md`).
//!
//! Where the kernel has no asynchronous I/O, or a sandbox forbids it, a write that usually does not wait takes its place.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

/// IOCB_CMD_PWRITE.
const PWRITE: u16 = 1;
/// IOCB_FLAG_RESFD: the completion is told to `told`.
const TELL: u32 = 1;
/// AIO_RING_MAGIC: the completions lie in memory as [`Completions`] says.
const COMPLETIONS_MAGIC: u32 = 0xa10a_10a1;

/// One operation (`struct iocb`, linux/aio_abi.h).
#[repr(C)]
#[derive(Default)]
struct Operation {
    data: u64,
    key_and_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    told: u32,
}

const _: () = assert!(size_of::<Operation>() == 64);

/// The head of the completions that the kernel maps into the process (`struct aio_ring`, fs/aio.c; libaio goes by it too).
#[repr(C)]
struct Completions {
    id: u32,
    capacity: u32,
    head: AtomicU32,
    tail: AtomicU32,
    magic: u32,
}

/// Rings for one thread.
struct Bell {
    /// `aio_context_t`: the address of its [`Completions`].
    context: usize,
    null: OwnedFd,
}

impl Bell {
    fn new() -> io::Result<Bell> {
        let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut context = 0usize;
        // SAFETY: the kernel writes one word to `context`.
        if unsafe { libc::syscall(libc::SYS_io_setup, 1usize, &raw mut context) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let bell = Bell { context, null };
        if bell.completions().magic == COMPLETIONS_MAGIC {
            Ok(bell)
        } else {
            Err(io::Error::from(io::ErrorKind::Unsupported))
        }
    }

    fn completions(&self) -> &Completions {
        // SAFETY: io_setup mapped at least a page there, readable and writable, until io_destroy; the kernel changes
        // nothing in it but the two atomics once it has answered.
        unsafe { &*std::ptr::with_exposed_provenance(self.context) }
    }

    fn ring(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // Nobody waits for a completion: all of them are taken, so that there is room for the next.
        let completions = self.completions();
        completions.head.store(completions.tail.load(Ordering::Acquire), Ordering::Release);
        let operation = Operation {
            opcode: PWRITE,
            fd: self.null.as_raw_fd() as u32,
            flags: TELL,
            told: fd.as_raw_fd() as u32,
            ..Operation::default()
        };
        let operations = [&raw const operation];
        // SAFETY: one operation, which the kernel reads before it returns and which moves no bytes.
        let done = unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1usize, operations.as_ptr()) };
        if done == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: the context is this bell's, and nothing refers to its completions any more.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

thread_local! {
    /// A thread's own, so that workers share nothing when they ring.
    static BELL: io::Result<Bell> = Bell::new();
}

/// Adds one to an eventfd, without waiting for whoever else has it. A full counter or a dead peer loses nothing: it is
/// readable already, or nobody reads.
///
/// # Errors
/// The descriptor is no eventfd.
pub(crate) fn ring(fd: &OwnedFd) -> io::Result<()> {
    BELL.with(|bell| match bell {
        Ok(bell) => bell.ring(fd.as_fd()).or_else(|_| write(fd)),
        Err(_) => write(fd),
    })
}

/// The same by a write: it waits if the counter is full and the peer has made the file blocking.
fn write(fd: &OwnedFd) -> io::Result<()> {
    match rustix::io::write(fd, &1u64.to_ne_bytes()) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn read(fd: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(fd, &mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    #[test]
    fn each_ring_adds_one_more_often_than_there_is_room_for_completions() {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let rings = 10 * Bell::new().unwrap().completions().capacity as usize;
        for _ in 0..rings {
            ring(&fd).unwrap();
        }
        assert_eq!(read(&fd), rings as u64);
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let (_reader, writer) = io::pipe().unwrap();
        assert_eq!(Bell::new().unwrap().ring(writer.as_fd()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_thread_takes_its_bell_along_when_it_ends() {
        let contexts = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("/[aio]").count();
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ring(&fd).unwrap();
                assert!(contexts() > 0);
            });
        });
        // Other tests' threads have bells as well; thousands of this one's would not go unseen.
        let before = contexts();
        for _ in 0..200 {
            std::thread::scope(|scope| scope.spawn(|| ring(&fd)).join().unwrap().unwrap());
        }
        assert!(contexts() < before + 100);
    }
}
