//! The kernel's packet sockets (packet(7)) as functions that can only be called rightly.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_int, sock_filter};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::virtio::header::{HEADER_BYTES, LEGACY_HEADER_BYTES};

/// Of `linux/if_packet.h`; libc has not all of them.
const PACKET_ADD_MEMBERSHIP: c_int = 1;
const PACKET_STATISTICS: c_int = 6;
const PACKET_AUXDATA: c_int = 8;
const PACKET_VNET_HDR: c_int = 15;
const PACKET_IGNORE_OUTGOING: c_int = 23;
const PACKET_VNET_HDR_SZ: c_int = 24;
const PACKET_MR_PROMISC: u16 = 1;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// What may wait in the socket, for one burst of large frames to be no loss while a worker is elsewhere.
const RECEIVE_BYTES: usize = 8 << 20;
/// What may be on its way to the wire.
const SEND_BYTES: usize = 4 << 20;

/// The layout of the virtio-net header before each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// With `num_buffers`: Linux 6.6 and later.
    Full,
    Legacy,
}

impl Header {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Full => HEADER_BYTES,
            Self::Legacy => LEGACY_HEADER_BYTES,
        }
    }

    /// A kernel that knows the one has known UDP segmentation since 6.2. Nothing else tells.
    pub(super) fn knows_uso(self) -> bool {
        self == Self::Full
    }
}

/// A packet socket that receives nothing yet.
pub(super) fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
}

/// Sets what every port wants.
pub(super) fn set_up(fd: &OwnedFd) -> io::Result<Header> {
    let header = match set(fd, PACKET_VNET_HDR_SZ, HEADER_BYTES as c_int) {
        Ok(()) => Header::Full,
        Err(_) => set(fd, PACKET_VNET_HDR, 1).map(|()| Header::Legacy)?,
    };
    set(fd, PACKET_AUXDATA, 1)?;
    set(fd, PACKET_IGNORE_OUTGOING, 1)?;
    // More than the system's limit, where the capability for that is there.
    sockopt::set_socket_recv_buffer_size_force(fd, RECEIVE_BYTES)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BYTES))?;
    sockopt::set_socket_send_buffer_size_force(fd, SEND_BYTES)
        .or_else(|_| sockopt::set_socket_send_buffer_size(fd, SEND_BYTES))?;
    Ok(header)
}

fn set(fd: &OwnedFd, option: c_int, value: c_int) -> io::Result<()> {
    set_option(fd, libc::SOL_PACKET, option, &value)
}

/// `setsockopt(2)` with a value of plain data.
pub(in crate::netdev) fn set_option<T: Copy>(
    fd: &OwnedFd,
    level: c_int,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length are those of one live value, which the kernel only reads.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel hand the socket only what `program` accepts.
pub(super) fn attach_filter(fd: &OwnedFd, program: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // The kernel checks and copies the program, which outlives the call.
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// `struct packet_mreq`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Membership {
    index: c_int,
    kind: u16,
    address_len: u16,
    address: [u8; 8],
}

/// Has the interface let frames to any station through, for as long as the socket is open.
pub(super) fn be_promiscuous(fd: &OwnedFd, index: u32) -> io::Result<()> {
    let membership =
        Membership { index: index as c_int, kind: PACKET_MR_PROMISC, address_len: 0, address: [0; 8] };
    set_option(fd, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership)
}

/// Binds the socket to the interface: from now on frames of all protocols come in.
pub(super) fn bind(fd: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: plain old data; all zeroes is one of its values.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as c_int;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: pointer and length are those of one live `sockaddr_ll`, which the kernel only reads.
    let result = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Packets that found the socket full since this was asked last.
pub(super) fn lost(fd: &OwnedFd) -> u64 {
    // `struct tpacket_stats`: packets, drops.
    let mut counts = [0_u32; 2];
    let mut len = size_of_val(&counts) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to one live array, and how many to `len`.
    let result = unsafe {
        let (level, option) = (libc::SOL_PACKET, PACKET_STATISTICS);
        libc::getsockopt(fd.as_raw_fd(), level, option, counts.as_mut_ptr().cast(), &mut len)
    };
    if result < 0 { 0 } else { counts[1].into() }
}

/// Room for the ancillary data of one packet: `cmsghdr`, `tpacket_auxdata`, and the padding to the next.
pub(in crate::netdev) const CONTROL_BYTES: usize = 48;

/// Ancillary data, aligned as `cmsghdr` is.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(in crate::netdev) struct Control(pub(in crate::netdev) [u8; CONTROL_BYTES]);

/// The VLAN tag that the kernel took off a packet, from the first `len` bytes of its ancillary data.
pub(in crate::netdev) fn tag(control: &Control, len: usize) -> Option<[u8; 4]> {
    let bytes = control.0.get(..len)?;
    let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    // `cmsghdr`: len (8 bytes), level, type.
    if (word(8)?, word(12)?) != (libc::SOL_PACKET as u32, PACKET_AUXDATA as u32) {
        return None;
    }
    // `tpacket_auxdata`: status, len, snaplen, mac (2 bytes), net (2), tci (2), tpid (2).
    let (status, tci, tpid) = (word(16)?, half(32)?, half(34)?);
    if status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if status & TP_STATUS_VLAN_TPID_VALID != 0 { tpid } else { wire::EtherType::VLAN.0 };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    Some([a, b, c, d])
}

/// A `mmsghdr` without an address.
pub(super) fn message(
    pieces: *mut libc::iovec,
    count: usize,
    control: Option<&mut Control>,
) -> libc::mmsghdr {
    // SAFETY: plain old data; all zeroes is one of its values.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = pieces;
    message.msg_hdr.msg_iovlen = count as _;
    if let Some(control) = control {
        message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = CONTROL_BYTES as _;
    }
    message
}

/// `recvmmsg(2)` without waiting: how many of `messages` were filled.
///
/// # Safety
/// Each message must point to memory that is writable for the lengths that it says.
pub(super) unsafe fn receive(fd: &OwnedFd, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno> {
    let (first, count) = (messages.as_mut_ptr(), messages.len() as libc::c_uint);
    // SAFETY: `count` live messages, whose memory the caller vouches for.
    let result = unsafe {
        libc::recvmmsg(fd.as_raw_fd(), first, count, libc::MSG_DONTWAIT as _, std::ptr::null_mut())
    };
    answer(result)
}

/// `sendmmsg(2)` without waiting: how many of `messages` were sent.
///
/// # Safety
/// Each message must point to memory that is readable for the lengths that it says.
pub(super) unsafe fn send(fd: &OwnedFd, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno> {
    let (first, count) = (messages.as_mut_ptr(), messages.len() as libc::c_uint);
    // SAFETY: `count` live messages, whose memory the caller vouches for; the kernel writes only their `msg_len`.
    answer(unsafe { libc::sendmmsg(fd.as_raw_fd(), first, count, libc::MSG_DONTWAIT as _) })
}

fn answer(result: c_int) -> Result<usize, Errno> {
    usize::try_from(result)
        .map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(level: u32, kind: u32, status: u32, tci: u16, tpid: u16) -> Control {
        let mut bytes = [0; CONTROL_BYTES];
        bytes[..8].copy_from_slice(&36_u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&level.to_ne_bytes());
        bytes[12..16].copy_from_slice(&kind.to_ne_bytes());
        bytes[16..20].copy_from_slice(&status.to_ne_bytes());
        bytes[32..34].copy_from_slice(&tci.to_ne_bytes());
        bytes[34..36].copy_from_slice(&tpid.to_ne_bytes());
        Control(bytes)
    }

    #[test]
    fn a_tag_is_read_only_where_there_is_one() {
        let there = control(263, 8, TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID, 0x2007, 0x88a8);
        assert_eq!(tag(&there, CONTROL_BYTES), Some([0x88, 0xa8, 0x20, 0x07]));
        assert_eq!(
            tag(&control(263, 8, TP_STATUS_VLAN_VALID, 7, 0), 40),
            Some([0x81, 0x00, 0, 7]),
            "kernels before 3.14 knew one kind of tag"
        );
        for (level, kind, status) in [(263, 8, 1), (1, 8, 0x50), (263, 9, 0x50)] {
            assert_eq!(tag(&control(level, kind, status, 7, 0x8100), 40), None);
        }
        for len in [0, 20, 35, 49, usize::MAX] {
            assert_eq!(tag(&there, len), None, "{len}");
        }
    }
}
