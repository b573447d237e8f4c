//! The kernel's bpf(2), as far as an XDP program with a map of sockets needs it.
//!
//! The crates that load programs start from an ELF file that clang made, with maps and relocations; here are one program of
//! some hundred instructions, one map and one link.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::asm::{self, Insn};

/// `enum bpf_cmd`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
enum Command {
    MapCreate = 0,
    MapUpdate = 2,
    ProgramLoad = 5,
    LinkCreate = 28,
}

const MAP_TYPE_XSKMAP: u32 = 17;
const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// What the program is under; no function that it calls asks for another.
const LICENSE: &std::ffi::CStr = c"Apache-2.0";
/// As `bpftool prog` shows it: at most 15 bytes.
const NAME: [u8; 16] = *b"millrace\0\0\0\0\0\0\0\0";

/// How a program is attached to an interface (`XDP_FLAGS_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Attach {
    /// The kernel runs it, on packets that it has made already.
    Generic = 1 << 1,
    /// The driver runs it, on frames.
    Native = 1 << 2,
}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach: u32,
    flags: u32,
}

/// `bpf(command, &attributes)`.
///
/// # Safety
/// `T` is what `command` takes, the first part of its member of `union bpf_attr`; addresses in it are of live memory as long as
/// it says.
unsafe fn bpf<T>(command: Command, attributes: &T) -> io::Result<i32> {
    // SAFETY: pointer and length are those of one live value; the kernel takes what is behind it for zero. The caller
    // vouches for what it means.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as u32, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Takes over a descriptor that bpf(2) returned.
///
/// # Safety
/// It is new, and nobody else's.
unsafe fn owned(fd: i32) -> OwnedFd {
    // SAFETY: as the caller vouches.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A map of sockets (AF_XDP) by queue.
#[derive(Debug)]
pub(super) struct SocketMap(OwnedFd);

impl SocketMap {
    /// An empty map for `queues` queues.
    pub(super) fn new(queues: u32) -> io::Result<Self> {
        let attributes = MapCreate {
            kind: MAP_TYPE_XSKMAP,
            key_bytes: 4,
            value_bytes: 4,
            entries: queues,
            flags: 0,
            inner_map: 0,
            numa_node: 0,
            name: NAME,
        };
        // SAFETY: the attributes of BPF_MAP_CREATE, which have no addresses; it returns a new descriptor.
        Ok(Self(unsafe { owned(bpf(Command::MapCreate, &attributes)?) }))
    }

    /// From now on, frames of `queue` that the program takes go to `socket`.
    pub(super) fn set(&self, queue: u32, socket: &OwnedFd) -> io::Result<()> {
        let value = socket.as_raw_fd() as u32;
        let attributes = MapUpdate {
            map: self.0.as_raw_fd() as u32,
            _pad: 0,
            key: std::ptr::from_ref(&queue) as u64,
            value: std::ptr::from_ref(&value) as u64,
            flags: 0,
        };
        // SAFETY: the attributes of BPF_MAP_UPDATE_ELEM; key and value live, and are as long as the map was made for.
        unsafe { bpf(Command::MapUpdate, &attributes) }.map(drop)
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Has the kernel check `program` and take it.
pub(super) fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    let insns = asm::bytes(program);
    let attributes = ProgramLoad {
        kind: PROGRAM_TYPE_XDP,
        count: program.len() as u32,
        insns: insns.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: NAME,
        interface: 0,
        expected_attach: ATTACH_XDP,
    };
    // SAFETY: the attributes of BPF_PROG_LOAD; the program and the license, which ends with a zero, outlive the call. It
    // returns a new descriptor.
    Ok(unsafe { owned(bpf(Command::ProgramLoad, &attributes)?) })
}

/// Attaches `program` to the interface for as long as the descriptor that is returned is open, in any process.
///
/// # Errors
/// EBUSY or EEXIST: another program is attached. EOPNOTSUPP: the driver runs no programs.
pub(super) fn attach(program: &OwnedFd, interface: u32, attach: Attach) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: program.as_raw_fd() as u32,
        interface,
        attach: ATTACH_XDP,
        flags: attach as u32,
    };
    // SAFETY: the attributes of BPF_LINK_CREATE, which have no addresses; it returns a new descriptor.
    Ok(unsafe { owned(bpf(Command::LinkCreate, &attributes)?) })
}
