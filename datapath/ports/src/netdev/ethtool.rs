//! What do we ask an interface's driver (`linux/ethtool.h`)?

use std::io;
use std::os::fd::AsFd;

use super::Interface;
use crate::ifreq;

const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const GET_CHANNELS: u32 = 0x3c;
/// The card takes VLAN tags off frames that come in.
const FLAG_RXVLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[derive(Default)]
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels`: what there can be, then what there is.
#[derive(Default)]
#[repr(C)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `ioctl(SIOCETHTOOL)`.
///
/// # Safety
/// `T` is what the command that it begins with reads and writes.
unsafe fn ask<T>(interface: &Interface, question: &mut T) -> io::Result<()> {
    let name = interface.name().ok_or(io::ErrorKind::NotFound)?;
    let mut request = name.request();
    request.ifr_ifru.ifru_data = std::ptr::from_mut(question).cast();
    // SAFETY: SIOCETHTOOL takes an `ifreq` with the address of a command, which lives and is exclusive; the caller vouches
    // for its type.
    unsafe { ifreq::ioctl(interface.control.as_fd(), libc::SIOCETHTOOL, &mut request) }
}

/// Receive queues that are in use; one for a driver that does not say.
pub(super) fn rx_queues(interface: &Interface) -> u32 {
    let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
    // SAFETY: ETHTOOL_GCHANNELS writes an `ethtool_channels`.
    match unsafe { ask(interface, &mut channels) } {
        Ok(()) => channels.rx.saturating_add(channels.combined).max(1),
        Err(_) => 1,
    }
}

/// Has tags left in frames, where the program sees them. False if the driver cannot.
pub(super) fn leave_tags(interface: &Interface) -> bool {
    let mut flags = Value { command: GET_FLAGS, data: 0 };
    // SAFETY: ETHTOOL_GFLAGS writes an `ethtool_value`.
    if unsafe { ask(interface, &mut flags) }.is_err() || flags.data & FLAG_RXVLAN == 0 {
        return true;
    }
    let mut flags = Value { command: SET_FLAGS, data: flags.data & !FLAG_RXVLAN };
    // SAFETY: ETHTOOL_SFLAGS reads an `ethtool_value`.
    unsafe { ask(interface, &mut flags) }.is_ok()
}
