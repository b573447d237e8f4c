//! What must not be forgotten about an attachment?

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use model::{AttachmentId, DeviceDriver, Dns, MacAddr, NetworkName, PciAddress, PodRef, PortKind, VfConfig};
use serde::{Deserialize, Serialize};

use crate::cards::{FunctionState, Representor, VdpaState};
use crate::kernel::Route;

/// One interface of one container, as the store keeps it. Its addresses, port number and device are leased for as long as
/// the record exists: a lease without an attachment cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Whose and which interface.
    pub id: AttachmentId,
    /// The name of the CNI configuration that asked: GC is for one configuration.
    pub config: NetworkName,
    /// The network.
    pub network: NetworkName,
    /// The kind of interface.
    pub kind: PortKind,
    /// Why it is of that kind, in words; empty: made before that was kept.
    #[serde(default)]
    pub kind_reason: String,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// The pod, where the runtime said it.
    pub pod: Option<PodRef>,
    /// The number of its port in the switch; none: it is a device of a card, which passes the switch by; or, before that was
    /// looked at, may.
    pub port: Option<u16>,
    /// Its station address.
    pub mac: MacAddr,
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Name resolution.
    pub dns: Dns,
    /// Where its socket and files are; of kinds for programs only.
    pub vhost: Option<VhostFiles>,
    /// Its device on the vDPA bus; of kinds of VDUSE and vDPA only.
    #[serde(default)]
    pub vdpa: Option<VdpaPlace>,
    /// The device of a card that it is; of kinds of cards only.
    #[serde(default)]
    pub card: Option<CardDevice>,
    /// The IPAM plugin that gave the addresses; none: Millrace did.
    pub delegation: Option<Delegation>,
    /// How far it has come.
    pub state: State,
}

/// An address of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address with its subnet's prefix length.
    pub net: IpNet,
    /// The router of its subnet.
    pub gateway: Option<IpAddr>,
}

/// How far an attachment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Addresses and numbers are taken; what else was done is unknown. Found at a start, it is undone.
    Reserved,
    /// Made, and about to be answered or answered.
    Ready,
    /// Being undone; what is undone already is unknown.
    Deleting,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
        }
    }
}

/// What an attachment has on the vDPA bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdpaPlace {
    /// The name of its device, on the bus and, where it is of VDUSE, there.
    pub device: String,
    /// The file that was handed to a program, once it was.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

impl VdpaPlace {
    /// A device that is handed to nobody yet.
    pub fn new(device: String) -> Self {
        Self { device, path: None }
    }
}

/// The device of a card that an attachment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardDevice {
    /// The function, which no other attachment has.
    pub function: PciAddress,
    /// Who drives it; none: the card's network driver, or, before it was looked at, who does already.
    pub driver: Option<DeviceDriver>,
    /// What the card is to enforce.
    pub settings: VfConfig,
    /// The file of its IOMMU group, once it was handed to a program by vfio.
    pub group: Option<PathBuf>,
    /// The device-info file (NPWG device-info-spec) that the runtime asked for.
    pub device_info: Option<PathBuf>,
    /// How it was before the first change; none: nothing was changed yet.
    pub before: Option<CardState>,
}

/// How a device of a card was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardState {
    /// The function.
    pub function: FunctionState,
    /// Its vDPA device; none: it had none, or the attachment needs none.
    pub vdpa: Option<VdpaState>,
}

/// Where the socket and files of an attachment for programs are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostFiles {
    /// The container's directory on the node; its interfaces for programs share it.
    pub dir: PathBuf,
    /// The socket in it; of vhost-user only.
    pub socket: Option<PathBuf>,
    /// The pod's volume that the directory is mounted on, if the pod has one.
    pub volume: Option<PathBuf>,
    /// Kuryr's description of the port, in the directory; of vhost-user only.
    pub kuryr: Option<PathBuf>,
    /// The device-info files (NPWG device-info-spec): the one in the directory, and the one the runtime asked for.
    pub device_info: Vec<PathBuf>,
}

/// A call of a delegated IPAM plugin, kept so that it can be undone without the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// The plugin's name.
    pub plugin: String,
    /// The CNI_* variables of the runtime's call, without CNI_COMMAND.
    pub env: Vec<(String, String)>,
    /// The configuration of the runtime's call.
    pub config: Vec<u8>,
}

impl Attachment {
    /// What stands for its device on the node, where its card is a switch: what its port is on.
    pub fn representor(&self) -> Option<&Representor> {
        self.card.as_ref()?.before.as_ref()?.function.representor.as_ref()
    }

    /// The name of its port, for people: the pod where it is known, else the container, and the interface.
    pub fn port_name(&self) -> String {
        match &self.pod {
            Some(pod) => format!("{pod}/{}", self.id.interface),
            None => format!("{}/{}", self.id.container.short(), self.id.interface),
        }
    }
}
