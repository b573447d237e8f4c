//! What does control ask of the switch? The rim that the agent implements over gRPC and tests fake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use vswitch::program::{
    HostSpec, IdentitySpec, LocalnetSpec, NetworkNo, NetworkSpec, PolicyNo, PolicySpec, PortNo, PortSpec,
    Prefix, Scope, ServiceNo, ServiceSpec, UnderlaySpec,
};

use crate::kernel::Ownership;

/// What a port is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A kernel netdev, born in the pod under its final name.
    Tap {
        /// The pod's network namespace.
        netns: PathBuf,
        /// The netdev's name in it.
        netdev: String,
        /// Queue pairs.
        queues: u32,
    },
    /// A device of VDUSE, which the switch creates or finds again. Control puts it onto the vDPA bus once the port is
    /// there, and takes it off again before the port goes.
    Vduse {
        /// Its name: `/dev/vduse/NAME`.
        name: String,
    },
    /// A network interface that the node has, which stays its kernel driver's.
    Netdev {
        /// Its name in the switch's own namespace.
        netdev: String,
        /// Which of its packets are the switch's.
        take: Take,
    },
    /// A vhost-user socket.
    VhostUser {
        /// The socket.
        socket: PathBuf,
        /// Who creates it.
        role: VhostUserRole,
        /// Queue pairs offered.
        queues: u32,
    },
}

/// Which packets of an interface are the switch's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// All: it is a representor, behind which is a pod.
    All,
    /// Those of tunnels and of these VLANs; all others are left to the host, whose way to other nodes it is.
    Ours {
        /// The VLANs.
        vlans: Vec<u16>,
    },
}

/// Who creates a vhost-user socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VhostUserRole {
    /// The switch, with this owner and mode; the program connects.
    Listen(Ownership),
    /// The program; the switch connects, and again for ever.
    Connect,
}

/// A port: its place in the forwarding, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its place in the forwarding. Its first MAC and its MTU are also the device's.
    pub spec: PortSpec,
    /// What it is made of.
    pub device: Device,
}

/// A change of the program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// The version that the change starts from; 0: the update is everything, and what it does not name is removed.
    pub from_version: u64,
    /// The version afterwards.
    pub to_version: u64,
    /// Networks to create or replace.
    pub put_networks: Vec<NetworkSpec>,
    /// Networks to remove.
    pub delete_networks: Vec<NetworkNo>,
    /// Ports to create or replace.
    pub put_ports: Vec<Port>,
    /// Ports to remove.
    pub delete_ports: Vec<PortNo>,
    /// The other nodes, where the update is everything; else they stay as they are.
    pub underlay: Option<UnderlaySpec>,
    /// Which networks are in VLANs of the uplink, of those that are put.
    pub localnets: BTreeMap<NetworkNo, LocalnetSpec>,
    /// The node itself, likewise.
    pub host: Option<HostSpec>,
    /// Policies to create or replace.
    pub put_policies: Vec<PolicySpec>,
    /// Policies to remove.
    pub delete_policies: Vec<PolicyNo>,
    /// Who is who from now on.
    pub put_identities: Vec<IdentitySpec>,
    /// Addresses that have no identity any more.
    pub delete_identities: Vec<(Scope, Prefix)>,
    /// Services to create or replace.
    pub put_services: Vec<ServiceSpec>,
    /// Services to remove.
    pub delete_services: Vec<ServiceNo>,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The switch forwards by `to_version`.
    Done {
        /// The switch process: another one holds another program.
        instance: String,
        /// The ports that failed, each with the reason. The others are as asked.
        failed: Vec<(PortNo, String)>,
    },
    /// The switch does not have `from_version`; nothing was changed. Send everything.
    Resync,
}

/// The switch process that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchInfo {
    /// Random per process: a change means that it restarted and holds no program yet.
    pub instance: String,
    /// The program version it forwards by; 0: none.
    pub program_version: u64,
}

/// Why the switch gave no answer to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatapathError {
    /// Nobody answers, or not in time: whether the change was made is unknown. Temporary; ask again.
    #[error("no answer from the switch: {0}")]
    Unreachable(String),
    /// It understood and said no. Asking the same again gives the same answer.
    #[error("the switch refuses: {0}")]
    Refused(String),
}

/// The switch of the node. Synchronous: callers run it on threads that may block.
pub trait Datapath: Send + Sync {
    /// Who answers.
    ///
    /// # Errors
    /// Nobody does.
    fn info(&self) -> Result<SwitchInfo, DatapathError>;

    /// Makes the datapath be what the update says. Idempotent. A port that fails leaves the others alone.
    ///
    /// # Errors
    /// No answer, or the update as a whole is refused.
    fn apply(&self, update: &Update) -> Result<Applied, DatapathError>;

    /// The ports that are open.
    ///
    /// # Errors
    /// Nobody answers.
    fn ports(&self) -> Result<BTreeSet<PortNo>, DatapathError>;
}
