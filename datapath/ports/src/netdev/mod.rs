//! A port on an interface that the node has already: its uplink, a representor, one end of a veth.
//!
//! The interface stays the kernel's, with its driver, its name and its addresses. The port takes from it what is asked for:
//! everything, or only some UDP ports and VLANs; whatever it does not take goes on to the host as before. What the port
//! sets up goes with it: it is tied to descriptors, which the kernel closes however the switch ends. (But for one thing: a card
//! that took VLAN tags off leaves that to the kernel from then on, if XDP had to see them.)
//!
//! Two ways lead there. *XDP* ([`Mode::Xdp`]) takes frames from the driver before the kernel makes packets of them, and
//! keeps them from the host. *Packet* ([`Mode::Packet`]) is given a copy of each packet by the kernel, large ones whole
//! and with unfinished checksums, as a TAP has them; the host gets the packets too, and has to make nothing of them:
//! UDP ports are held by sockets that nobody reads (`hold`), VLANs must not be set up in the host, and an interface that
//! is taken whole must have no IP address and be in no bridge.
//!
//! Limits: interfaces of Ethernet; UDP behind one VLAN tag at most, not fragmented, over IPv6 without extension headers.
mod ethtool;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod hold;
mod intake;
mod interface;
mod packet;
mod take;
mod xdp;

use std::io;
use std::sync::Arc;

use crate::Device;
use interface::Interface;
use xdp::Sockets;

pub use take::{MAX_UDP_PORTS, MAX_VLANS, Take};

/// How frames come from the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// XDP if the driver leaves frames in our memory (zero copy), else packet.
    #[default]
    Auto,
    /// By XDP, with whatever support the driver has.
    Xdp,
    /// By a packet socket.
    Packet,
}

/// How a port on an interface is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetdevSpec {
    /// The interface's name, in the network namespace that the caller is in.
    pub netdev: String,
    /// What is taken from it.
    pub take: Take,
    /// How.
    pub mode: Mode,
}

/// Why a port on an interface was not opened. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum NetdevError {
    /// The name is none that an interface can have.
    #[error(
        "{0:?} cannot be an interface's name: 1 to 15 bytes without '/', ':', '%' or white space are allowed"
    )]
    Name(String),
    /// There is none of that name.
    #[error("there is no interface {0:?} in the switch's network namespace: `ip link` lists what there is")]
    Missing(String),
    /// Its frames are not Ethernet's, or it is the loopback.
    #[error("interface {0:?} is not an Ethernet interface: choose the one below it")]
    NotEthernet(String),
    /// The port would never see a frame.
    #[error("nothing is to be taken from the interface: name UDP ports or VLANs, or take all")]
    NothingTaken,
    /// More than a filter holds.
    #[error("{asked} {what} are more than the {limit} that a port can take one by one: take all")]
    TooMany {
        /// UDP ports or VLANs.
        what: &'static str,
        /// How many were asked for.
        asked: usize,
        /// How many there can be.
        limit: usize,
    },
    /// No frame can be to that UDP port.
    #[error("0 is no UDP port")]
    UdpPort,
    /// No frame can be in that VLAN.
    #[error("a VLAN has a number from 1 to 4094, not {0}")]
    Vlan(u16),
    /// The interface's frames are longer than XDP hands out in one piece.
    #[error(
        "interface {netdev:?} has an MTU of {mtu_bytes} bytes, and by XDP comes at most {limit}: use mode packet, or lower it"
    )]
    Mtu {
        /// The interface's name.
        netdev: String,
        /// Its MTU.
        mtu_bytes: u32,
        /// The largest that there can be.
        limit: u32,
    },
    /// An XDP program is there already.
    #[error(
        "interface {0:?} has an XDP program of somebody else (`ip link` shows it): take that away, or use mode packet"
    )]
    XdpTaken(String),
    /// A queue has an AF_XDP socket already.
    #[error(
        "queue {queue} of interface {netdev:?} has an AF_XDP socket of somebody else: end that, or use mode packet"
    )]
    QueueTaken {
        /// The interface's name.
        netdev: String,
        /// The queue's number.
        queue: u32,
    },
    /// The kernel does not lock so much memory for us.
    #[error(
        "interface {0:?}: no memory for frames may be locked: raise RLIMIT_MEMLOCK, or give the switch CAP_IPC_LOCK"
    )]
    Locked(String),
    /// Somebody else receives datagrams at that port.
    #[error(
        "UDP port {0} is in use on this node (`ss -lunp` says by whom): another tunnel has it, choose another port"
    )]
    UdpPortTaken(u16),
    /// The switch has too few capabilities.
    #[error(
        "interface {netdev:?}: not permitted to {step}: the switch needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF (root)"
    )]
    Permission {
        /// The interface's name.
        netdev: String,
        /// What was tried.
        step: &'static str,
    },
    /// The kernel refused a step.
    #[error("interface {netdev:?}: cannot {step}: {source}")]
    Kernel {
        /// The interface's name.
        netdev: String,
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl NetdevError {
    /// What the kernel's answer to `step` means.
    fn at<E: Into<io::Error>>(netdev: &str, step: &'static str) -> impl Fn(E) -> Self {
        move |error| match error.into() {
            source if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::Permission { netdev: netdev.to_owned(), step }
            }
            source => Self::Kernel { netdev: netdev.to_owned(), step, source },
        }
    }
}

/// Opens the port that `spec` describes. The interface is neither set up nor given addresses.
///
/// # Errors
/// See [`NetdevError`].
pub fn open(spec: &NetdevSpec) -> Result<Device, NetdevError> {
    spec.take.check()?;
    let interface = Arc::new(Interface::find(&spec.netdev)?);
    match spec.mode {
        Mode::Packet => packet::open(spec, interface),
        Mode::Xdp => xdp::open(spec, &interface, Sockets::open(&interface)?),
        // The kernel copies either way unless the driver does not: then a packet socket is the better one, for large
        // segments and unfinished checksums cross it (ADR 0016).
        Mode::Auto => match Sockets::open(&interface) {
            Ok(sockets) if sockets.are_zero_copy() => xdp::open(spec, &interface, sockets),
            _ => packet::open(spec, interface),
        },
    }
}
