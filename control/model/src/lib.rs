//! What are the nouns of the intent, and what makes each of them legal?
//!
//! `Spec -> validated`: a `...Spec` is what a person or a program wrote; the noun itself exists only checked. Every error
//! names the object, the field and the remedy.
//!
//! **Invariant:** no I/O, no Kubernetes.
#![forbid(unsafe_code)]
mod attachment;
mod cluster_policy;
mod device;
mod dhcp;
mod file;
mod gateway;
mod mac;
mod name;
mod network;
mod network_policy;
mod node;
mod object;
mod objects;
mod parts;
mod pci;
mod pod;
mod rule;
mod selector;
mod service;
mod subnet;
mod vf;

pub use attachment::{AttachmentId, KindChoice, PodRef, PortKind, UnknownPortKind};
pub use cluster_policy::{
    ClusterEgressRuleSpec, ClusterIngressRuleSpec, ClusterNetworkPolicy, ClusterNetworkPolicySpec,
    ClusterPeerSpec, ClusterProtocolSpec, NamespacedPodsSpec, PortRangeSpec, PortSpec, SubjectSpec, Tier,
    TransportSpec,
};
pub use device::{DeviceDriver, DeviceRequest, UnknownDriver};
pub use file::{FileError, MAX_FILE_BYTES, Networks};
pub use gateway::{Gateway, GatewayError, GatewaySpec, NAT_PORTS, Snat};
pub use mac::station_address;
pub use name::{ContainerId, IfName, NameError, NetworkName};
pub use network::{
    Dns, Invalid, MtuBytes, Network, NetworkError, NetworkSpec, RouteSpec, SocketCreator, Topology,
    VhostSocket, VhostSocketSpec,
};
pub use network_policy::{
    EgressRuleSpec, IngressRuleSpec, IpBlockSpec, NetworkPolicy, NetworkPolicySpec, NumberOrName, PeerSpec,
    PolicyPortSpec, PolicyType,
};
pub use node::{InvalidNode, Node, NodeError, NodeSpec, Underlay};
pub use object::{InvalidField, ObjectError};
pub use objects::{ObjectName, ObjectSpecs, Objects, ObjectsError};
pub use pci::{AddressError, PciAddress};
pub use pod::{
    ContainerPortSpec, NAMESPACE_NAME_LABEL, NamedPort, Namespace, NamespaceSpec, Pod, PodName, PodSpec,
    Protocol,
};
pub use rule::{Action, Block, NamespaceChoice, Peer, PodChoice, PortMatch, Ports, Rule};
pub use selector::{Asked, LabelSelector, LabelSelectorSpec, Labels, Operator, Requirement, RequirementSpec};
pub use service::{
    ClientIpConfigSpec, Service, ServicePort, ServicePortSpec, ServiceSpec, SessionAffinity,
    SessionAffinityConfigSpec, TrafficPolicy,
};
pub use subnet::{AddressRange, Subnet, SubnetError, SubnetSpec, successor};
pub use vf::{ConfigError, VfConfig, VfLinkState, Vlan, VlanProtocol};
pub use wire::MacAddr;
