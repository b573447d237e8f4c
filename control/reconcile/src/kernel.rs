//! What does control ask of the kernel of the node? The rim that crate `linux` implements and tests fake.
//!
//! Every operation is idempotent: asked again, it finds its work done. Deleting what is not there succeeds.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use model::MacAddr;

/// A route of a pod's interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// The destination; 0.0.0.0/0 and ::/0 are the default routes.
    pub destination: IpNet,
    /// The next hop; none: the destination is on the link. A gateway outside of the interface's subnets is reached
    /// directly on the link (`onlink`).
    pub gateway: Option<IpAddr>,
}

/// How a device in a pod is to be. The device itself exists already: the switch's port made it.
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
pub trait Kernel: Send + Sync {
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

    /// Deletes the device `name` in `netns`. Neither need exist.
    ///
    /// # Errors
    /// The kernel refuses.
    fn delete_link(&self, netns: &Path, name: &str) -> Result<(), KernelError>;

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
}
