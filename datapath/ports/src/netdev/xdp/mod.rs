//! The interface by XDP: frames before the kernel makes packets of them (Linux Documentation/networking/af_xdp.rst).
//!
//! A program that the driver runs for each frame (`program`) hands those that are taken to one socket per receive queue; a
//! socket's frames lie in memory of ours (`umem`) and come and go by four rings (`ring`). The program is attached by a BPF
//! link, which the kernel takes away with its last descriptor: a switch that dies, however, leaves the host its interface as
//! it was. Where the driver can, it leaves frames in our memory itself (zero copy); else the kernel copies them there. A
//! driver that runs no programs has the kernel run them (generic), later and for more.
//!
//! States of a chunk: with the kernel to receive into (fill ring) -> filled (rx ring) -> lent to a turn -> with the kernel
//! again; or free -> with the kernel to be sent (tx ring) -> sent (completion ring) -> free.
//!
//! Limits: frames that fit into a page less the kernel's headroom; no large segments, and checksums are finished in software,
//! because neither crosses these rings; the queues that the interface has when it is opened. Frames whose VLAN tag the card
//! takes off come without it: the port turns that off, and says so where the driver refuses.
mod asm;
mod bpf;
mod program;
mod region;
mod ring;
mod rx;
mod socket;
mod tx;
mod umem;
mod unfinished;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::hold::{Held, hold};
use super::interface::Interface;
use super::{NetdevError, NetdevSpec, Take, ethtool, intake};
use crate::{Device, DeviceHandle, Link, RxQueue, TxQueue};
use bpf::{Attach, SocketMap};
use rx::XdpRx;
use socket::{Opened, Socket};
use tx::XdpTx;
use umem::ChunkBytes;

#[cfg(feature = "fuzzing")]
pub(super) use unfinished::checksum as unfinished_checksum;

/// Behind an Ethernet header, two VLAN tags may come before the packet that the MTU is about.
const LINK_BYTES: u32 = 14 + 2 * 4;

/// A socket on each queue of an interface, to which no frame comes yet.
pub(super) struct Sockets(Vec<Opened>);

impl Sockets {
    /// Opens them for frames as long as the interface's are now.
    pub(super) fn open(interface: &Interface) -> Result<Self, NetdevError> {
        let netdev = &interface.netdev;
        let mtu_bytes = interface.mtu().map_err(NetdevError::at(netdev, "ask for its MTU"))?;
        let chunk = ChunkBytes::holding(mtu_bytes.saturating_add(LINK_BYTES)).ok_or_else(|| {
            let limit = ChunkBytes::LONGEST_FRAME - LINK_BYTES;
            NetdevError::Mtu { netdev: netdev.clone(), mtu_bytes, limit }
        })?;
        let queues = 0..ethtool::rx_queues(interface);
        Ok(Self(queues.map(|queue| Socket::open(interface, queue, chunk)).collect::<Result<_, _>>()?))
    }

    /// The driver leaves frames in our memory.
    pub(super) fn are_zero_copy(&self) -> bool {
        self.0.iter().all(|opened| opened.socket.is_zero_copy)
    }
}

/// Opens the port with `sockets`, to which the frames that it takes come from then on.
pub(super) fn open(
    spec: &NetdevSpec,
    interface: &Arc<Interface>,
    sockets: Sockets,
) -> Result<Device, NetdevError> {
    let held = hold(interface, spec.take.udp_ports())?;
    let promiscuous = match spec.take.is_promiscuous() {
        true => Some(
            super::packet::promiscuous(interface.index)
                .map_err(NetdevError::at(&spec.netdev, "make it promiscuous"))?,
        ),
        false => None,
    };
    let attached = Attached::new(spec, interface, &sockets)?;
    let handle = Handle {
        interface: Arc::clone(interface),
        attached,
        sockets: Vec::new(),
        take: spec.take.to_string(),
        sees_tags: !spec.take.is_promiscuous() || ethtool::leave_tags(interface),
        _held: held,
        _promiscuous: promiscuous,
    };
    Ok(device(sockets, handle, &spec.take))
}

/// The program at work, for as long as this lives.
struct Attached {
    _link: OwnedFd,
    /// The program has it too.
    _map: SocketMap,
    attach: Attach,
}

impl Attached {
    fn new(spec: &NetdevSpec, interface: &Interface, sockets: &Sockets) -> Result<Self, NetdevError> {
        let failed = |step| NetdevError::at::<io::Error>(&spec.netdev, step);
        let map = SocketMap::new(sockets.0.len() as u32).map_err(failed("make a map of sockets"))?;
        let program = program::program(&spec.take, map.as_raw_fd());
        let program = bpf::load(&program).map_err(failed("load an XDP program"))?;
        let taken = |error: io::Error| match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => NetdevError::XdpTaken(spec.netdev.clone()),
            _ => failed("attach an XDP program")(error),
        };
        let (link, attach) = match bpf::attach(&program, interface.index, Attach::Native) {
            Ok(link) => (link, Attach::Native),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST | libc::EPERM)) => {
                return Err(taken(error));
            }
            // The driver runs no programs, or not in the shape that it is in (queues, MTU, offloads).
            Err(_) => {
                (bpf::attach(&program, interface.index, Attach::Generic).map_err(taken)?, Attach::Generic)
            }
        };
        for (queue, opened) in sockets.0.iter().enumerate() {
            map.set(queue as u32, &opened.socket.fd).map_err(failed("put a socket into its map"))?;
        }
        Ok(Self { _link: link, _map: map, attach })
    }
}

fn device(sockets: Sockets, mut handle: Handle, take: &Take) -> Device {
    let mut rx: Vec<Box<dyn RxQueue>> = Vec::new();
    let mut tx: Vec<Arc<dyn TxQueue>> = Vec::new();
    for opened in sockets.0 {
        let socket = Arc::new(opened.socket);
        let sender = Arc::new(XdpTx::new(Arc::clone(&socket), opened.tx, opened.completion));
        rx.push(Box::new(XdpRx {
            socket: Arc::clone(&socket),
            interface: Arc::clone(&handle.interface),
            rx: opened.rx,
            fill: opened.fill,
            tx: Arc::clone(&sender),
            room: intake::room(take),
            is_gone: false,
        }));
        tx.push(sender);
        handle.sockets.push(socket);
    }
    Device { rx, tx, handle: Box::new(handle) }
}

/// What keeps the port open.
struct Handle {
    interface: Arc<Interface>,
    attached: Attached,
    sockets: Vec<Arc<Socket>>,
    take: String,
    sees_tags: bool,
    _held: Held,
    _promiscuous: Option<OwnedFd>,
}

impl Handle {
    fn describe(&self) -> String {
        let by = match self.attached.attach {
            Attach::Native => "native",
            Attach::Generic => "generic",
        };
        let is_zero_copy = self.sockets.iter().all(|socket| socket.is_zero_copy);
        let copy = if is_zero_copy { "zero copy" } else { "copy" };
        let queues = self.sockets.len();
        let plural = if queues == 1 { "" } else { "s" };
        let mut words = format!("XDP {by}, {copy}, {queues} queue{plural}, {}", self.take);
        if !self.sees_tags {
            words += ", its driver takes VLAN tags off";
        }
        let lost: u64 = self.sockets.iter().map(|socket| socket.lost()).sum();
        if lost > 0 {
            words += &format!(", {lost} lost before they were read");
        }
        words
    }
}

impl DeviceHandle for Handle {
    fn link(&self) -> Link {
        self.interface.link(|| self.describe())
    }

    /// Nothing of the port survives its descriptors.
    fn retire(&self) {}
}
