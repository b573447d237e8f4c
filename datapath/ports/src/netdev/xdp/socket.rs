//! How does one queue of an interface become a socket with rings (Linux Documentation/networking/af_xdp.rst)?

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::ring::{Consumer, Producer};
use super::umem::{ChunkBytes, RECEIVE_CHUNKS, TRANSMIT_CHUNKS, Umem};
use crate::netdev::{Interface, NetdevError};

/// How often, and how far apart, a queue is asked for that is in use: half a second in all.
const BIND_TRIES: u32 = 50;
const BIND_PAUSE: Duration = Duration::from_millis(10);

/// A frame in the memory of a socket (`struct xdp_desc`).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    /// More parts to come, metadata: neither was asked for.
    pub(super) options: u32,
}

/// A socket on one queue.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) umem: Umem,
    /// The driver leaves frames in our memory; else the kernel copies them there.
    pub(super) is_zero_copy: bool,
}

/// A socket and its rings, none of which moves a frame before the program hands it some.
pub(super) struct Opened {
    pub(super) socket: Socket,
    pub(super) rx: Consumer<Descriptor>,
    pub(super) fill: Producer<u64>,
    pub(super) tx: Producer<Descriptor>,
    pub(super) completion: Consumer<u64>,
}

impl Socket {
    /// Opens a socket on queue `queue`, with all receive chunks given to the kernel.
    pub(super) fn open(interface: &Interface, queue: u32, chunk: ChunkBytes) -> Result<Opened, NetdevError> {
        let failed = |step| NetdevError::at::<Errno>(&interface.netdev, step);
        let fd = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(failed("open an AF_XDP socket"))?;
        let umem = Umem::new(chunk).map_err(failed("get memory for frames"))?;
        register(&fd, &umem).map_err(|errno| match errno {
            Errno::NOBUFS => NetdevError::Locked(interface.netdev.clone()),
            errno => failed("register memory for frames")(errno),
        })?;
        let mut opened = with_rings(fd, umem).map_err(failed("set up its rings"))?;
        for chunk in opened.socket.umem.receive_chunks() {
            opened.fill.push(chunk);
        }
        opened.fill.publish();
        let address = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP, interface.index, queue);
        bind_patiently(&opened.socket.fd, &address).map_err(|errno| match errno {
            Errno::BUSY => NetdevError::QueueTaken { netdev: interface.netdev.clone(), queue },
            errno => failed("bind an AF_XDP socket to it")(errno),
        })?;
        let options = sockopt::xdp_options(&opened.socket.fd).map_err(failed("ask for its options"))?;
        opened.socket.is_zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(opened)
    }

    /// Wakes the kernel's side of the ring of frames that leave; without the driver's help, that is what sends them.
    pub(super) fn wake_transmit(&self) -> Result<(), Errno> {
        rustix::net::send(&self.fd, &[], SendFlags::DONTWAIT).map(drop)
    }

    /// Wakes the driver, which found no chunk to receive into.
    pub(super) fn wake_receive(&self) {
        // A driver that cannot be woken now says again that it wants to be.
        let _ = rustix::net::recv(&self.fd, &mut [0_u8; 0], RecvFlags::DONTWAIT);
    }

    /// Frames that were for the port and found no room, or were too long.
    pub(super) fn lost(&self) -> u64 {
        sockopt::xdp_statistics(&self.fd)
            .map_or(0, |counts| counts.rx_dropped + counts.rx_ring_full.unwrap_or(0))
    }
}

/// Binds. The kernel lets go of a queue some time after its last socket was closed, so that a port that is opened again is
/// kept waiting by itself.
fn bind_patiently(fd: &OwnedFd, address: &SocketAddrXdp) -> Result<(), Errno> {
    for _ in 1..BIND_TRIES {
        match bind(fd, address) {
            Err(Errno::BUSY) => std::thread::sleep(BIND_PAUSE),
            answer => return answer,
        }
    }
    bind(fd, address)
}

fn register(fd: &OwnedFd, umem: &Umem) -> Result<(), Errno> {
    let (first, len) = umem.whole();
    let memory = XdpUmemReg {
        addr: first as u64,
        len: len as u64,
        chunk_size: umem.chunk().get(),
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(fd, memory)
}

fn with_rings(fd: OwnedFd, umem: Umem) -> Result<Opened, Errno> {
    sockopt::set_xdp_umem_fill_ring_size(&fd, RECEIVE_CHUNKS)?;
    sockopt::set_xdp_umem_completion_ring_size(&fd, TRANSMIT_CHUNKS)?;
    sockopt::set_xdp_rx_ring_size(&fd, RECEIVE_CHUNKS)?;
    sockopt::set_xdp_tx_ring_size(&fd, TRANSMIT_CHUNKS)?;
    let offsets = sockopt::xdp_mmap_offsets(&fd)?;
    let at = fd.as_fd();
    let (rx_at, tx_at) = (libc::XDP_PGOFF_RX_RING as u64, libc::XDP_PGOFF_TX_RING as u64);
    let rx = Consumer::map(at, rx_at, &offsets.rx, RECEIVE_CHUNKS)?;
    let tx = Producer::map(at, tx_at, &offsets.tx, TRANSMIT_CHUNKS)?;
    let fill = Producer::map(at, libc::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, RECEIVE_CHUNKS)?;
    let completion = Consumer::map(at, libc::XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, TRANSMIT_CHUNKS)?;
    Ok(Opened { socket: Socket { fd, umem, is_zero_copy: false }, rx, fill, tx, completion })
}
