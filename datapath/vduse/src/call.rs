//! How is an ioctl made, so that the kernel neither reads nor writes past what it is given?
//!
//! An ioctl's number is a value that knows the type behind the pointer ([`Reads`], [`Writes`], [`Updates`], [`Takes`]);
//! the functions here take the two together, so that a call with the wrong structure does not compile.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};

/// `VDUSE_BASE`: the letter of all these ioctls.
const BASE: u8 = 0x81;

/// What the kernel may read and write as bytes.
///
/// # Safety
/// Any bytes are a value of the type, and it has no padding that is not a field.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: bytes.
unsafe impl<const N: usize> Plain for [u8; N] {}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $make:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name<T>(Opcode, PhantomData<T>);

        impl<T> $name<T> {
            /// The ioctl with this number of VDUSE, and `T` behind its pointer.
            pub(crate) const fn new(number: u8) -> Self {
                Self(opcode::$make::<T>(BASE, number), PhantomData)
            }

            /// As the C macro gives it.
            #[allow(clippy::unnecessary_cast, reason = "the type of an ioctl's number is the libc's choice")]
            pub(crate) const fn code(self) -> u32
            where
                T: Copy,
            {
                self.0 as u32
            }
        }
    };
}
number!(
    /// `_IOR`: the kernel fills a `T`.
    Reads,
    read
);
number!(
    /// `_IOW`: the kernel reads a `T`.
    Writes,
    write
);
number!(
    /// `_IOWR`: the kernel reads a `T` and writes one in its place.
    Updates,
    read_write
);

/// `_IO`: nothing is passed.
#[derive(Clone, Copy)]
pub(crate) struct Takes(Opcode);

impl Takes {
    /// The ioctl with this number of VDUSE.
    pub(crate) const fn new(number: u8) -> Self {
        Self(opcode::none(BASE, number))
    }

    /// As the C macro gives it.
    #[allow(clippy::unnecessary_cast, reason = "the type of an ioctl's number is the libc's choice")]
    pub(crate) const fn code(self) -> u32 {
        self.0 as u32
    }
}

/// Has the kernel fill a `T`.
pub(crate) fn read<T: Plain + Default>(fd: BorrowedFd<'_>, number: Reads<T>) -> Result<T, Errno> {
    let mut value = T::default();
    // SAFETY: the kernel writes at most the `T` that the number says, into one that is ours alone; any bytes are a `T`.
    unsafe { rustix::ioctl::ioctl(fd, Call { opcode: number.0, arg: (&raw mut value).cast() }) }?;
    Ok(value)
}

/// Hands the kernel a `T`.
pub(crate) fn write<T: Plain>(fd: BorrowedFd<'_>, number: Writes<T>, value: &T) -> Result<(), Errno> {
    // SAFETY: the kernel only reads, at most the `T` that the number says, which lives until the call has ended.
    unsafe {
        rustix::ioctl::ioctl(fd, Call { opcode: number.0, arg: std::ptr::from_ref(value).cast_mut().cast() })
    }?;
    Ok(())
}

/// Hands the kernel a `T` and the bytes that follow it, whose number stands in the `T`.
///
/// # Safety
/// The field of `head` from which the kernel takes the length must say `tail.len()` or less.
pub(crate) unsafe fn write_with_tail<T: Plain>(
    fd: BorrowedFd<'_>,
    number: Writes<T>,
    head: &T,
    tail: &[u8],
) -> Result<(), Errno> {
    // SAFETY: a live `T` without padding, all of whose bytes are therefore initialised.
    let head = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(head).cast::<u8>(), size_of::<T>()) };
    let mut bytes = [head, tail].concat();
    // SAFETY: the kernel only reads, the `T` and then as many bytes as the `T` says, which the caller vouches are there.
    unsafe { rustix::ioctl::ioctl(fd, Call { opcode: number.0, arg: bytes.as_mut_ptr().cast() }) }?;
    Ok(())
}

/// Hands the kernel a `T`, which it changes.
pub(crate) fn update<T: Plain>(fd: BorrowedFd<'_>, number: Updates<T>, value: &mut T) -> Result<(), Errno> {
    // SAFETY: the kernel reads and writes at most the `T` that the number says, which is borrowed exclusively; any bytes
    // are a `T`.
    unsafe { rustix::ioctl::ioctl(fd, Call { opcode: number.0, arg: std::ptr::from_mut(value).cast() }) }?;
    Ok(())
}

/// Hands the kernel a `T`, which it changes, and takes the file descriptor that it answers with.
///
/// # Safety
/// A success of this ioctl must be a new file descriptor.
pub(crate) unsafe fn update_for_fd<T: Plain>(
    fd: BorrowedFd<'_>,
    number: Updates<T>,
    value: &mut T,
) -> Result<OwnedFd, Errno> {
    let call = Call { opcode: number.0, arg: std::ptr::from_mut(value).cast() };
    // SAFETY: as for `update`.
    let raw = unsafe { rustix::ioctl::ioctl(fd, call) }?;
    // SAFETY: the caller vouches that it is a descriptor which the kernel made just now: open, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Asks the kernel to do what the number says.
pub(crate) fn take(fd: BorrowedFd<'_>, number: Takes) -> Result<(), Errno> {
    // SAFETY: the kernel is given no pointer.
    unsafe { rustix::ioctl::ioctl(fd, Call { opcode: number.0, arg: std::ptr::null_mut() }) }?;
    Ok(())
}

/// One call, with its answer as it is.
struct Call {
    opcode: Opcode,
    arg: *mut c_void,
}

// SAFETY: passes on what it is given; whoever makes a `Call` vouches for number and pointer. It counts as mutating, so
// that the compiler assumes that memory changed.
unsafe impl Ioctl for Call {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.arg
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _arg: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}
