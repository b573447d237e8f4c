//! What does control ask of the kernel of the node? The rim that crate `linux` implements and tests fake.
//!
//! Every operation is idempotent: asked again, it finds its work done. Deleting what is not there succeeds.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use model::{MacAddr, PciAddress, Protocol};

use crate::cards::Cards;

/// A route of a pod's interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// The destination; 0.0.0.0/0 and ::/0 are the default routes.
    pub destination: IpNet,
    /// The next hop; none: the destination is on the link. A gateway outside of the interface's subnets is reached
    /// directly on the link (`onlink`).
    pub gateway: Option<IpAddr>,
}

/// How a device in a pod is to be. The device itself exists already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// Its name.
    pub name: String,
    /// Its station address.
    pub mac: MacAddr,
    /// The largest IP packet it takes, in bytes.
    pub mtu_bytes: u32,
    /// Its addresses with their prefix lengths. IPv6 ones are set without duplicate address detection: control gave them
    /// out once only.
    pub addresses: Vec<IpNet>,
    /// The routes through it, set once it is up. One that exists already is replaced.
    pub routes: Vec<Route>,
}

/// The first station on the way to another node, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// The uplink's own address.
    pub source_mac: MacAddr,
    /// The station; none while the kernel does not know it.
    pub mac: Option<MacAddr>,
    /// The largest IP packet that the uplink takes, in bytes.
    pub mtu_bytes: u32,
}

/// What the node's kernel translates and takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRules {
    /// The node's interface on its network.
    pub interface: String,
    /// Its addresses there: what its own packets have, whatever address they were first given.
    pub own: Vec<IpAddr>,
    /// The addresses of pods, on all nodes: never translated between each other.
    pub cluster: Vec<IpNet>,
    /// What pods' packets have outside; none: they leave as they are.
    pub translated: Option<Translated>,
    /// What comes from outside for services.
    pub forwards: Vec<Forward>,
    /// What the switch translates; none: nothing.
    pub outside: Option<Outside>,
}

/// What of the outside is the switch's, and not the kernel's: it takes on what has these addresses, and hands in what comes
/// for these ports of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The interface by which answers come.
    pub uplink: String,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The ports, and identifiers of echoes.
    pub ports: RangeInclusive<u16>,
    /// The station of the gateway, whom answers are handed to as if the node had sent them.
    pub gateway: MacAddr,
    /// The node's station on its network.
    pub mac: MacAddr,
}

/// The sources of packets that leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// One of a family; where there is none, the node's own.
    pub to: Vec<IpAddr>,
}

/// A port at which a service is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The address; none: all of the node's own, of the family of `to`.
    pub address: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// Whom it goes to.
    pub to: (IpAddr, u16),
}

/// How a device in a pod is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkState {
    /// Its station address.
    pub mac: MacAddr,
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// Administratively up.
    pub up: bool,
    /// All its addresses, the kernel's own (link-local) included.
    pub addresses: Vec<IpNet>,
    /// All routes of the main table through it, without those the kernel derives from the addresses.
    pub routes: Vec<Route>,
    /// The device that it belongs to, as the kernel names it (`virtio3`, `0000:05:00.1`); none: it is all software.
    pub parent: Option<String>,
}

/// Who drives a device of the vDPA bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VdpaDriver {
    /// The kernel: it is a netdev.
    Virtio,
    /// A program or virtual machine, by `/dev/vhost-vdpa-N`.
    Vhost,
}

impl VdpaDriver {
    /// The module and driver.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Virtio => "virtio_vdpa",
            Self::Vhost => "vhost_vdpa",
        }
    }
}

/// Who makes devices of the vDPA bus: VDUSE, or a function of a card.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ManagementDevice {
    /// Its bus; none: it is no device of a bus, as VDUSE.
    pub bus: Option<String>,
    /// Its name: `vduse`, `0000:05:00.1`.
    pub name: String,
}

impl ManagementDevice {
    /// VDUSE.
    pub fn vduse() -> Self {
        Self { bus: None, name: "vduse".to_owned() }
    }

    /// A function of a card.
    pub fn function(function: PciAddress) -> Self {
        Self { bus: Some("pci".to_owned()), name: function.to_string() }
    }
}

impl fmt::Display for ManagementDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bus {
            Some(bus) => write!(f, "{bus}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A device of the vDPA bus that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVdpaDevice {
    /// Its name on the bus.
    pub name: String,
    /// Who makes it.
    pub management: ManagementDevice,
    /// Its station address; none: as its maker has it (VDUSE's has that of the switch's port).
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; none: likewise.
    pub mtu_bytes: Option<u16>,
}

/// A device of the vDPA bus, as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VdpaDevice {
    /// Who drives it, if somebody does.
    pub driver: Option<VdpaDriver>,
    /// With [`VdpaDriver::Virtio`]: the virtio device that its netdev belongs to, as in [`LinkState::parent`]. None while it
    /// has no netdev anywhere.
    pub virtio: Option<String>,
    /// With [`VdpaDriver::Vhost`]: its file.
    pub path: Option<PathBuf>,
}

impl VdpaDevice {
    /// Whether `driver` drives it and made of it what a pod uses.
    pub fn serves(&self, driver: VdpaDriver) -> bool {
        let made = match driver {
            VdpaDriver::Virtio => self.virtio.is_some(),
            VdpaDriver::Vhost => self.path.is_some(),
        };
        made && self.driver == Some(driver)
    }
}

/// A directory or file that control makes: who owns it and who may do what (`0o750`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ownership {
    /// The owner's user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
}

/// Why the kernel did not do it. Every message names the object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The path is no network namespace, or is gone: the pod is.
    #[error("{0} is not a network namespace: the sandbox is gone, or its path is wrong")]
    NoNetns(PathBuf),
    /// The namespace has no device of that name.
    #[error("no device {name:?} in {netns}")]
    NoLink {
        /// The namespace.
        netns: PathBuf,
        /// The device's name.
        name: String,
    },
    /// Anything else; nothing is known about how much of it was done. Asking again is safe.
    #[error("{doing}: {reason}")]
    Refused {
        /// What was being done to which object, as in `set the MTU of eth0 in /run/netns/a to 9000`.
        doing: String,
        /// The kernel's answer, with the remedy where one is known.
        reason: String,
    },
}

/// The kernel of the node, as control needs it. Synchronous: callers run it on threads that may block.
pub trait Kernel: Cards + Send + Sync {
    /// True if `netns` is a network namespace (an nsfs mount or a /proc/PID/ns/net).
    fn netns_exists(&self, netns: &Path) -> bool;

    /// The device `name` in `netns` as it is; `None` if there is none.
    ///
    /// # Errors
    /// [`KernelError::NoNetns`], or the kernel refuses to tell.
    fn link(&self, netns: &Path, name: &str) -> Result<Option<LinkState>, KernelError>;

    /// Makes a device be as `config` says: address, MTU, up, addresses, then routes. Addresses that are there and not
    /// wanted stay (link-local ones are the kernel's).
    ///
    /// # Errors
    /// [`KernelError::NoNetns`], [`KernelError::NoLink`], or the kernel refuses a step.
    fn configure_link(&self, netns: &Path, config: &LinkConfig) -> Result<(), KernelError>;

    /// Removes routes through the device `name` in `netns`. None of them need exist.
    ///
    /// # Errors
    /// [`KernelError::NoNetns`], [`KernelError::NoLink`], or the kernel refuses.
    fn remove_routes(&self, netns: &Path, name: &str, routes: &[Route]) -> Result<(), KernelError>;

    /// Makes the kernel of the agent's own namespace forward packets, and translate them as `rules` say and not as they said
    /// before, at once; none: nothing of it is left.
    ///
    /// # Errors
    /// What does that is not there, or the kernel refuses. The rules are as they were.
    fn put_host_rules(&self, rules: Option<&HostRules>) -> Result<(), KernelError>;

    /// Deletes the device `name` in `netns`. Neither need exist.
    ///
    /// # Errors
    /// The kernel refuses.
    fn delete_link(&self, netns: &Path, name: &str) -> Result<(), KernelError>;

    /// The first stations of packets that leave by the netdev `uplink` of the agent's own namespace, each from an address of
    /// this node to another; in their order. Makes the kernel look for those that it does not know.
    ///
    /// # Errors
    /// Of each: there is no such way, with the remedy.
    fn next_hops(&self, uplink: &str, ways: &[(IpAddr, IpAddr)]) -> Vec<Result<NextHop, KernelError>>;

    /// Makes the directory, its missing parents (mode 0755), and its ownership.
    ///
    /// # Errors
    /// The path holds something else, or the system refuses.
    fn make_dir(&self, path: &Path, ownership: Ownership) -> Result<(), KernelError>;

    /// True if the path is a directory (not a symbolic link to one).
    fn is_dir(&self, path: &Path) -> bool;

    /// Removes a directory and what is in it, without crossing into other mounts. It need not exist.
    ///
    /// # Errors
    /// The system refuses, as it does while something is mounted in it.
    fn remove_dir(&self, path: &Path) -> Result<(), KernelError>;

    /// Mounts the directory `source` over the directory `target` too; nothing if it is there already.
    ///
    /// # Errors
    /// One of them is no directory, or the system refuses.
    fn bind_mount(&self, source: &Path, target: &Path) -> Result<(), KernelError>;

    /// Undoes [`Kernel::bind_mount`]: nothing of ours is mounted on `target` afterwards. It need not be a mount point, nor
    /// exist.
    ///
    /// # Errors
    /// The system refuses.
    fn unmount(&self, target: &Path) -> Result<(), KernelError>;

    /// Writes the whole file so that readers see all of it or none (a new file, renamed). Parents are made.
    ///
    /// # Errors
    /// The system refuses (full disk, permissions).
    fn write_file(&self, path: &Path, content: &[u8], ownership: Ownership) -> Result<(), KernelError>;

    /// Removes a file or socket. It need not exist.
    ///
    /// # Errors
    /// The system refuses.
    fn remove_file(&self, path: &Path) -> Result<(), KernelError>;

    /// Whether the kernel can make a network device of VDUSE, to be driven by `driver`.
    ///
    /// # Errors
    /// Why not, with the remedy, in a sentence without an end: `/dev/vduse/control is missing: modprobe vduse`.
    fn can_vduse(&self, driver: VdpaDriver) -> Result<(), String>;

    /// The device `name` of the vDPA bus, if it is there. Does not wait for whoever changes the bus.
    ///
    /// # Errors
    /// The system refuses to tell.
    fn vdpa_device(&self, name: &str) -> Result<Option<VdpaDevice>, KernelError>;

    /// Puts a device onto the vDPA bus, where some driver takes it up at once. One of that name that is there stays.
    ///
    /// # Errors
    /// Its maker is not there or not ready, or does not take what is asked; or the kernel does not come to an end, because
    /// whoever serves this device or another one does not answer.
    fn put_vdpa_device(&self, device: &NewVdpaDevice) -> Result<(), KernelError>;

    /// Takes a device off the vDPA bus, and with it its netdev, wherever that is. Returns soon even where a device of VDUSE
    /// is served by nobody; such a one is broken then. It need not exist.
    ///
    /// # Errors
    /// A program has its file open, which the kernel would wait for; or the kernel refuses.
    fn delete_vdpa_device(&self, name: &str) -> Result<(), KernelError>;

    /// Makes `driver` drive the device, and no other.
    ///
    /// # Errors
    /// The device or driver is not there, a program has its file open, or the driver refuses the device.
    fn bind_vdpa_driver(&self, name: &str, driver: VdpaDriver) -> Result<(), KernelError>;

    /// Moves the netdev of the device into `netns`, as `interface`. It may be there already.
    ///
    /// # Errors
    /// [`KernelError::NoNetns`]; the device has no netdev (it is broken, or its driver missing); another netdev of that name
    /// is in the namespace.
    fn adopt_vdpa_netdev(&self, name: &str, netns: &Path, interface: &str) -> Result<(), KernelError>;

    /// Gives the file of a device that [`VdpaDriver::Vhost`] drives to the owner, and says which it is.
    ///
    /// # Errors
    /// It has none, or the system refuses.
    fn own_vhost_vdpa(&self, name: &str, ownership: Ownership) -> Result<PathBuf, KernelError>;

    /// Whether the device `name` of VDUSE is broken for good: it let the kernel wait for an answer too long. False of one that
    /// is not there, and of one that a process has open, which sees it itself.
    ///
    /// # Errors
    /// The system refuses to tell.
    fn is_vduse_broken(&self, name: &str) -> Result<bool, KernelError>;

    /// Destroys the device `name` of VDUSE, which is off the vDPA bus. It need not exist.
    ///
    /// # Errors
    /// A process still has it open, as a switch that hangs does; or the kernel refuses.
    fn destroy_vduse(&self, name: &str) -> Result<(), KernelError>;
}
