//! The kernel's TUN interface (Documentation/networking/tuntap.rst) as functions that can only be called rightly.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libc::{c_int, c_short, c_uint};
use wire::MacAddr;

use crate::ifreq::{self, Name};
use crate::offload::Capabilities;
use crate::virtio::header::HEADER_BYTES;

/// What every queue of every TAP port is attached with.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;

/// `ioctl(fd, code, value)` of the TUN ioctls that take their number as the argument itself.
///
/// # Safety
/// `code` must take a number, not a pointer.
unsafe fn ioctl_number(fd: &OwnedFd, code: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the caller vouches for `code`, so that the kernel does not read through `value`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code, value) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `ioctl(fd, code, &value)`.
///
/// # Safety
/// `code` must take a pointer to an `int` that it only reads.
unsafe fn ioctl_int(fd: &OwnedFd, code: libc::Ioctl, value: c_int) -> io::Result<()> {
    // SAFETY: the caller vouches for `code`; the pointer is to a live `int`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_ref(&value)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How a queue is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attach {
    /// To a device that must not exist yet.
    Create,
    /// To the device of this name, which is created if it does not exist.
    Join,
}

/// Attaches `tun` as a queue of the device `name` in the namespace that `tun` was opened in (TUNSETIFF).
///
/// # Errors
/// EBUSY: the device exists and `attach` is [`Attach::Create`]. EINVAL: the name is taken by another kind.
pub(super) fn attach(tun: &OwnedFd, name: &Name, attach: Attach) -> io::Result<()> {
    let exclusive = if attach == Attach::Create { libc::IFF_TUN_EXCL } else { 0 };
    let mut request = name.request();
    request.ifr_ifru.ifru_flags = (FLAGS | exclusive) as c_short;
    // SAFETY: TUNSETIFF takes an `ifreq`.
    unsafe { ifreq::ioctl(tun.as_fd(), libc::TUNSETIFF, &mut request) }
}

/// Sets the layout of the header before each frame: 12 bytes, little endian.
pub(super) fn set_header(tun: &OwnedFd) -> io::Result<()> {
    // SAFETY: both take a pointer to an `int` that they read.
    unsafe {
        ioctl_int(tun, libc::TUNSETVNETHDRSZ, HEADER_BYTES as c_int)?;
        ioctl_int(tun, libc::TUNSETVNETLE, 1)
    }
}

/// Tells the kernel what it may leave to us: the largest part of `wanted` that it knows, which is returned.
pub(super) fn set_offload(tun: &OwnedFd, wanted: Capabilities) -> io::Result<Capabilities> {
    let without_uso = Capabilities { uso: false, ..wanted };
    let without_udp = Capabilities { ufo: false, ..without_uso };
    let checksum = Capabilities { checksum: wanted.checksum, ..Capabilities::NONE };
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for step in [wanted, without_uso, without_udp, checksum, Capabilities::NONE] {
        // SAFETY: TUNSETOFFLOAD takes its flags as the argument.
        match unsafe { ioctl_number(tun, libc::TUNSETOFFLOAD, offload_flags(&step).into()) } {
            Ok(()) => return Ok(step),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn offload_flags(capabilities: &Capabilities) -> c_uint {
    if !capabilities.checksum {
        // All others need it: the kernel has no large frame with a finished checksum.
        return 0;
    }
    let flag = |on: bool, flag: c_uint| if on { flag } else { 0 };
    libc::TUN_F_CSUM
        | flag(capabilities.tso4, libc::TUN_F_TSO4)
        | flag(capabilities.tso6, libc::TUN_F_TSO6)
        | flag(capabilities.ecn && (capabilities.tso4 || capabilities.tso6), libc::TUN_F_TSO_ECN)
        | flag(capabilities.ufo, libc::TUN_F_UFO)
        | flag(capabilities.uso, libc::TUN_F_USO4 | libc::TUN_F_USO6)
}

/// Whether the device outlives its last descriptor.
pub(super) fn set_persistent(tun: &OwnedFd, persistent: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its value as the argument.
    unsafe { ioctl_number(tun, libc::TUNSETPERSIST, persistent.into()) }
}

/// Sets the device's MAC address.
pub(super) fn set_mac(tun: &OwnedFd, name: &Name, mac: MacAddr) -> io::Result<()> {
    let mut request = name.request();
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(mac.0) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    // SAFETY: SIOCSIFHWADDR takes an `ifreq`, on a TUN descriptor too.
    unsafe { ifreq::ioctl(tun.as_fd(), libc::SIOCSIFHWADDR, &mut request) }
}

/// Sets the MTU of the netdev `name` in the namespace of the socket `control`.
pub(super) fn set_mtu(control: &OwnedFd, name: &Name, mtu_bytes: u32) -> io::Result<()> {
    let mut request = name.request();
    request.ifr_ifru.ifru_mtu = c_int::try_from(mtu_bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: SIOCSIFMTU takes an `ifreq`.
    unsafe { ifreq::ioctl(control.as_fd(), libc::SIOCSIFMTU, &mut request) }
}

/// The name of the device that `tun` is attached to, as it is now.
pub(super) fn name_of(tun: &OwnedFd) -> io::Result<Name> {
    // SAFETY: `ifreq` is plain old data; all zeroes is one of its values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF takes an `ifreq` and writes name and flags.
    unsafe { ifreq::ioctl(tun.as_fd(), libc::TUNGETIFF, &mut request)? };
    Name::read(&request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_offloaded_without_the_checksum() {
        let lame = Capabilities { checksum: false, ..Capabilities::ALL };
        assert_eq!(offload_flags(&lame), 0);
        assert_eq!(offload_flags(&Capabilities::ALL), 0x7f);
    }
}
