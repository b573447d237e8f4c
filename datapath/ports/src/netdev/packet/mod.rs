//! The interface by a packet socket (packet(7)).
//!
//! The kernel hands each packet to the socket before its own stack, behind a virtio-net header (PACKET_VNET_HDR), so that
//! large segments and unfinished checksums cross whole, as with a TAP. A VLAN tag has been taken off by then and comes
//! beside the packet; it is put back. A filter of classic BPF in the kernel keeps what is not taken away from the socket,
//! and what the host itself sends by the interface never comes in.
//!
//! Receive is one `recvmmsg(2)` for a burst, transmit one `sendmmsg(2)`, into the interface's queueing discipline: it is the
//! kernel that cuts what its driver does not take. The kernel does not know of the tunnel that a large segment is in: its
//! pieces are made here, and go as one large packet of UDP (USO, Linux 6.2), which whoever receives it parts (`offload::Tunnel`).
//!
//! Limits: one receive queue.
mod batch;
mod filter;
mod rx;
mod sys;
mod tx;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

use super::hold::{Held, hold};
use super::interface::Interface;
use super::{NetdevError, NetdevSpec, Take};
use crate::offload::Capabilities;
use crate::{Device, DeviceHandle, Link, RxQueue, TxQueue};
use rx::PacketRx;
use sys::Header;
use tx::PacketTx;

pub(super) use sys::set_option;
#[cfg(feature = "fuzzing")]
pub(super) use sys::{CONTROL_BYTES, Control, tag};

/// Transmit queues: they share the socket, and spare workers the wait for one another's batches.
const TX_QUEUES: usize = 8;

/// What the two sides share.
struct Packet {
    fd: OwnedFd,
    header: Header,
    interface: Arc<Interface>,
    /// The interface was deleted under us.
    gone: AtomicBool,
    /// The kernel takes the pieces of a frame in a tunnel as one.
    trains: AtomicBool,
    /// The last errno of a refused frame, for people; 0: none.
    refusal: AtomicI32,
}

impl Packet {
    /// Whether the interface is gone for good, as an error on the socket may mean; notes it if so.
    fn is_gone(&self) -> bool {
        if !self.interface.exists() {
            self.gone.store(true, Relaxed);
        }
        self.gone.load(Relaxed)
    }
}

/// A socket that receives nothing, but has the interface let frames to any station through for as long as it is open.
pub(super) fn promiscuous(index: u32) -> io::Result<OwnedFd> {
    let fd = sys::socket()?;
    sys::be_promiscuous(&fd, index)?;
    Ok(fd)
}

/// Opens the interface by a packet socket.
pub(super) fn open(spec: &NetdevSpec, interface: Arc<Interface>) -> Result<Device, NetdevError> {
    let held = hold(&interface, spec.take.udp_ports())?;
    let fd = sys::socket().map_err(NetdevError::at(&spec.netdev, "open a packet socket"))?;
    let header = sys::set_up(&fd).map_err(NetdevError::at(&spec.netdev, "set up a packet socket"))?;
    if let Some(program) = filter::program(&spec.take) {
        sys::attach_filter(&fd, &program).map_err(NetdevError::at(&spec.netdev, "attach a filter"))?;
    }
    if spec.take.is_promiscuous() {
        sys::be_promiscuous(&fd, interface.index)
            .map_err(NetdevError::at(&spec.netdev, "make it promiscuous"))?;
    }
    sys::bind(&fd, interface.index).map_err(NetdevError::at(&spec.netdev, "bind a packet socket to it"))?;
    let packet = Packet {
        fd,
        header,
        interface,
        gone: AtomicBool::new(false),
        trains: AtomicBool::new(header.knows_uso()),
        refusal: AtomicI32::new(0),
    };
    Ok(device(Arc::new(packet), spec.take.clone(), held))
}

fn device(packet: Arc<Packet>, take: Take, held: Held) -> Device {
    // The kernel cuts and sums whatever its driver does not; but a driver that is given a tunnel without being told, as by
    // every packet socket, may take the outer headers for those that the checksum is of.
    let uso = packet.header.knows_uso();
    let capabilities = Capabilities { uso, tunnel_checksum: false, ..Capabilities::ALL };
    let sender = |_| Arc::new(PacketTx::new(packet.clone(), capabilities)) as Arc<dyn TxQueue>;
    Device {
        rx: vec![Box::new(PacketRx::new(packet.clone(), &take)) as Box<dyn RxQueue>],
        tx: (0..TX_QUEUES).map(sender).collect(),
        handle: Box::new(Handle { packet, take, lost: AtomicU64::new(0), _held: held }),
    }
}

/// What keeps the port open.
struct Handle {
    packet: Arc<Packet>,
    take: Take,
    /// Packets that the kernel dropped because the socket was full.
    lost: AtomicU64,
    _held: Held,
}

impl Handle {
    fn describe(&self) -> String {
        let mut words = format!("packet, {}", self.take);
        let new = sys::lost(&self.packet.fd);
        let lost = self.lost.fetch_add(new, Relaxed) + new;
        if lost > 0 {
            words += &format!(", {lost} lost before they were read");
        }
        if !self.packet.trains.load(Relaxed) {
            words += ", no USO: packets of tunnels leave one by one";
        }
        let errno = self.packet.refusal.load(Relaxed);
        if errno != 0 {
            words += &format!(", last refusal: {}", io::Error::from_raw_os_error(errno));
        }
        words
    }
}

impl DeviceHandle for Handle {
    fn link(&self) -> Link {
        self.packet.interface.link(|| self.describe())
    }

    /// Nothing of the port survives its descriptors.
    fn retire(&self) {}
}
