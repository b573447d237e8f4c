//! What are the nouns of the intent, and what makes each of them legal?
//!
//! `Spec -> validated`: a `...Spec` is what a person or a program wrote; the noun itself exists only checked. Every error
//! names the object, the field and the remedy.
//!
//! **Invariant:** no I/O, no Kubernetes.
#![forbid(unsafe_code)]
mod attachment;
mod device;
mod file;
mod mac;
mod name;
mod network;
mod node;
mod parts;
mod pci;
mod subnet;
mod vf;

pub use attachment::{AttachmentId, KindChoice, PodRef, PortKind, UnknownPortKind};
pub use device::{DeviceDriver, DeviceRequest, UnknownDriver};
pub use file::{FileError, MAX_FILE_BYTES, Networks};
pub use mac::station_address;
pub use name::{ContainerId, IfName, NameError, NetworkName};
pub use network::{
    Dns, Invalid, MtuBytes, Network, NetworkError, NetworkSpec, RouteSpec, SocketCreator, Topology,
    VhostSocket, VhostSocketSpec,
};
pub use node::{InvalidNode, Node, NodeError, NodeSpec, Underlay};
pub use pci::{AddressError, PciAddress};
pub use subnet::{AddressRange, Subnet, SubnetError, SubnetSpec, successor};
pub use vf::{ConfigError, VfConfig, VfLinkState, Vlan, VlanProtocol};
pub use wire::MacAddr;
