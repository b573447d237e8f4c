//! A port that is a netdev of the kernel: what a pod without DPDK has.
//!
//! The netdev is a TAP device that is *born inside the pod's network namespace*, under its final name: [`open`] enters
//! the namespace on a short-lived thread, creates the device there and comes back with its descriptors, one per queue.
//! It is *persistent*: when the switch ends, however it ends, the pod keeps the interface with its addresses and routes,
//! and the next [`open`] takes the same device up again. Only [`DeviceHandle::retire`] lets it go.
//!
//! Each packet carries a virtio-net header (`IFF_VNET_HDR`), so that large segments and unfinished checksums cross the
//! switch whole. Receive reads into an arena that is used from its start for every burst; transmit is one `writev(2)`
//! of header, head and borrowed body, so that nothing is copied in user space.
//!
//! Limits: 256 queues (`MAX_TAP_QUEUES`); an MTU of at most 65 521. An open device keeps its network namespace alive
//! until the port is removed.
mod open;
mod rx;
mod sys;
mod tx;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use wire::MacAddr;

use crate::offload::Capabilities;
use crate::{DeviceHandle, Link, ifreq};

pub use open::open;

/// The largest MTU that the kernel gives a TAP device: 65 535 less the Ethernet header.
pub const MAX_MTU_BYTES: u32 = 65_521;
/// The most queues that a TAP device has (`MAX_TAP_QUEUES`).
pub const MAX_QUEUES: u16 = 256;

/// How a TAP port is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapSpec {
    /// The network namespace that the netdev is in, as a path; `None`: the one that the caller is in.
    pub netns: Option<PathBuf>,
    /// The netdev's name there.
    pub netdev: String,
    /// Queues: 1 to [`MAX_QUEUES`].
    pub queues: u16,
    /// Its address when it is created; `None`: the kernel draws one. A device that exists keeps its own.
    pub mac: Option<MacAddr>,
    /// Its MTU when it is created, at most [`MAX_MTU_BYTES`]. A device that exists keeps its own.
    pub mtu_bytes: u32,
    /// The work on frames that the kernel may leave to the switch and the switch to the kernel; what the kernel does
    /// not know is left out by itself. [`Capabilities::ALL`] except in tests.
    pub capabilities: Capabilities,
}

impl TapSpec {
    /// A netdev of one queue in the caller's namespace with the usual MTU.
    pub fn named(netdev: impl Into<String>) -> Self {
        Self {
            netns: None,
            netdev: netdev.into(),
            queues: 1,
            mac: None,
            mtu_bytes: 1500,
            capabilities: Capabilities::ALL,
        }
    }
}

/// Why a TAP port was not opened. Nothing is left behind: a device that was created is gone again.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name is none that a netdev can have.
    #[error(
        "{0:?} cannot be a netdev's name: 1 to 15 bytes without '/', ':', '%' or white space are allowed"
    )]
    Name(String),
    /// The spec asks for more or fewer queues than a device has.
    #[error("a TAP device has 1 to {MAX_QUEUES} queues, not {0}")]
    Queues(u16),
    /// The spec asks for an MTU that a device cannot have.
    #[error("a TAP device has an MTU of 68 to {MAX_MTU_BYTES} bytes, not {0}")]
    Mtu(u32),
    /// The path is no network namespace, or may not be entered. Not worth a retry with the same path.
    #[error("network namespace {} cannot be entered: {source}", path.display())]
    Netns {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// This kernel or container has no TUN driver.
    #[error("/dev/net/tun cannot be opened: {0}; load the module `tun`, and give the container that device")]
    NoTun(io::Error),
    /// The name belongs to a netdev of another kind, or to a TAP device made otherwise (single queue).
    #[error("netdev {0:?} exists already and is no multi-queue TAP device: choose another name or delete it")]
    NameTaken(String),
    /// Creating netdevs in the namespace needs CAP_NET_ADMIN there.
    #[error("netdev {0:?} cannot be created: CAP_NET_ADMIN is needed in its network namespace")]
    Permission(String),
    /// The kernel refused a step.
    #[error("netdev {netdev:?}: cannot {step}: {source}")]
    Kernel {
        /// The netdev's name.
        netdev: String,
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// One queue's descriptor and what its two sides share.
struct Queue {
    fd: OwnedFd,
    /// The netdev was deleted under us: by the pod, or with its namespace.
    gone: AtomicBool,
    /// The last errno of a refused frame, for people; 0: none.
    refusal: AtomicI32,
}

impl Queue {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, gone: AtomicBool::new(false), refusal: AtomicI32::new(0) }
    }
}

/// What keeps the device open.
struct Handle {
    queues: Vec<Arc<Queue>>,
    /// A socket of the device's namespace, to ask for its flags.
    control: OwnedFd,
    capabilities: Capabilities,
}

impl DeviceHandle for Handle {
    fn link(&self) -> Link {
        let down = |detail: String| Link { up: false, detail };
        let Some(first) = self.queues.first() else { return Link::default() };
        // The pod may have renamed its device: its descriptor knows.
        let Ok(name) = sys::name_of(&first.fd) else {
            return down("the netdev was deleted from outside of the switch".to_owned());
        };
        let shown = name.to_string_lossy().into_owned();
        match ifreq::flags_of(&self.control, &name) {
            Ok(flags) if flags & libc::IFF_UP == 0 => down(format!("{shown}: taken down in its namespace")),
            Ok(flags) if flags & libc::IFF_RUNNING == 0 => down(format!("{shown}: no carrier")),
            Ok(_) => Link { up: true, detail: format!("{shown}: {}", self.describe()) },
            Err(error) => down(format!("{shown}: {error}")),
        }
    }

    fn retire(&self) {
        if let Some(first) = self.queues.first() {
            // Fails only for a netdev that is deleted already, which is what is wanted.
            let _ = sys::set_persistent(&first.fd, false);
        }
    }
}

impl Handle {
    fn describe(&self) -> String {
        let has = &self.capabilities;
        let offloads = [
            (has.checksum, "checksum"),
            (has.tso4, "TSO4"),
            (has.tso6, "TSO6"),
            (has.ufo, "UFO"),
            (has.uso, "USO"),
        ];
        let mut words =
            vec![format!("{} queue{}", self.queues.len(), if self.queues.len() == 1 { "" } else { "s" })];
        words.extend(offloads.into_iter().filter(|(on, _)| *on).map(|(_, word)| word.to_owned()));
        let refusal = self.queues.iter().map(|queue| queue.refusal.load(Relaxed)).find(|errno| *errno != 0);
        if let Some(errno) = refusal {
            words.push(format!("last refusal: {}", io::Error::from_raw_os_error(errno)));
        }
        words.join(", ")
    }
}
