//! Who is there for policies to speak of? Namespaces, and pods with their labels, addresses and named ports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use wire::IpProtocol;

use crate::object::{Checked, InvalidField, ObjectError, check_label, check_subdomain, each, start};
use crate::selector::Labels;

/// The label that the API server gives each namespace: its name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NamespaceSpec {
    /// Its name.
    pub name: String,
    /// Its labels; that of its name need not be written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A checked namespace. One that nobody wrote, but that a pod is in, has the label of its name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: Box<str>,
    labels: Labels,
}

impl Namespace {
    /// Checks a spec.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn new(spec: &NamespaceSpec) -> Result<Self, ObjectError> {
        Self::check(spec).map_err(|wrong| wrong.of_object(format_args!("Namespace {}", start(&spec.name))))
    }

    fn check(spec: &NamespaceSpec) -> Checked<Self> {
        check_label("name", &spec.name)?;
        let mut labels = spec.labels.clone();
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), spec.name.clone());
        Ok(Self { name: spec.name.as_str().into(), labels: Labels::new(&labels)? })
    }

    /// The namespace of a pod, where nobody wrote it.
    pub fn unwritten(pod: &PodName) -> Self {
        let name = pod.namespace.clone();
        Self { labels: Labels::one(NAMESPACE_NAME_LABEL, &name), name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its labels, that of its name among them.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// A pod as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PodSpec {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its addresses (the API's `status.podIPs`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The ports of all its containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_ports: Vec<ContainerPortSpec>,
    /// The node that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// It has its node's network: no policy selects it, and no selector of a peer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ContainerPortSpec {
    /// Its name, for policies to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number.
    pub container_port: u32,
    /// Its protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A protocol with ports, of those that policies know.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in IP headers.
    pub fn ip(self) -> IpProtocol {
        match self {
            Self::Tcp => IpProtocol::TCP,
            Self::Udp => IpProtocol::UDP,
            Self::Sctp => IpProtocol::SCTP,
        }
    }
}

/// What names a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name in there.
    pub name: Box<str>,
}

impl PodName {
    /// The pod of that name in that namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A checked pod. A copy is the same one: whoever keeps all pods of a cluster keeps them once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod(Arc<Fields>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    name: PodName,
    labels: Labels,
    addresses: Box<[IpAddr]>,
    ports: Box<[NamedPort]>,
    node: Option<Box<str>>,
    host_network: bool,
}

/// A port of a pod that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: Box<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

impl Pod {
    /// Checks a spec.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn new(spec: &PodSpec) -> Result<Self, ObjectError> {
        let name = |wrong: crate::object::Wrong| {
            wrong.of_object(format_args!("Pod {}/{}", start(&spec.namespace), start(&spec.name)))
        };
        Self::check(spec).map_err(name)
    }

    fn check(spec: &PodSpec) -> Checked<Self> {
        check_label("namespace", &spec.namespace)?;
        check_subdomain("name", &spec.name)?;
        if let Some(address) = spec.addresses.iter().find(|address| !is_unicast(**address)) {
            return Err(InvalidField::Address(*address).of("addresses"));
        }
        let ports = each("containerPorts", &spec.container_ports, named_port)?;
        let mut ports: Vec<_> = ports.into_iter().flatten().collect();
        ports.sort_unstable();
        ports.dedup();
        let mut addresses = spec.addresses.clone();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(Self(Arc::new(Fields {
            name: PodName::new(&spec.namespace, &spec.name),
            labels: Labels::new(&spec.labels)?,
            addresses: addresses.into(),
            ports: ports.into(),
            node: spec.node_name.as_deref().map(Into::into),
            host_network: spec.host_network,
        })))
    }

    /// Its namespace and name.
    pub fn name(&self) -> &PodName {
        &self.0.name
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.0.labels
    }

    /// Its addresses, sorted.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.0.addresses
    }

    /// The same pod on this node and at these addresses.
    #[must_use]
    pub fn at(&self, node: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut addresses: Vec<_> = addresses.into_iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let (addresses, node) = (addresses.into(), Some(node.into()));
        Self(Arc::new(Fields { addresses, node, ..Fields::clone(&self.0) }))
    }

    /// Its ports that have names.
    pub fn named_ports(&self) -> &[NamedPort] {
        &self.0.ports
    }

    /// The node that it is on.
    pub fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// It has its node's network.
    pub fn is_host_network(&self) -> bool {
        self.0.host_network
    }
}

pub(crate) fn is_unicast(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let is_mapped = address.to_canonical() != address;
    !(address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback()
        || is_broadcast
        || is_mapped)
}

fn named_port(spec: &ContainerPortSpec) -> Checked<Option<NamedPort>> {
    let port = check_port("containerPort", spec.container_port)?;
    let Some(name) = &spec.name else { return Ok(None) };
    check_port_name("name", name)?;
    Ok(Some(NamedPort { name: name.as_str().into(), protocol: spec.protocol, port }))
}

pub(crate) fn check_port(field: &'static str, number: u32) -> Checked<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(|| InvalidField::Port(number).of(field))
}

/// An IANA service name (RFC 6335 §5.1).
pub(crate) fn check_port_name(field: &'static str, name: &str) -> Checked<()> {
    const MAX_CHARS: usize = 15;
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = name.len() <= MAX_CHARS
        && name.bytes().all(legal)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if is_name { Ok(()) } else { Err(InvalidField::PortName(start(name)).of(field)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: &str) -> Result<Pod, String> {
        let spec: PodSpec = serde_yaml_ng::from_str(yaml).map_err(|error| error.to_string())?;
        Pod::new(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pod_has_what_was_written() {
        let pod = pod("{namespace: shop, name: web-0, labels: {app: web}, addresses: [10.0.0.9, 'fd00::9'], \
                       containerPorts: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP}], nodeName: a}")
        .unwrap();
        assert_eq!((pod.name().to_string().as_str(), pod.labels().get("app")), ("shop/web-0", Some("web")));
        assert_eq!(pod.addresses().len(), 2);
        assert_eq!(pod.named_ports().iter().map(|port| port.port).collect::<Vec<_>>(), [80]);
        assert_eq!((pod.node(), pod.is_host_network()), (Some("a"), false));
    }

    #[test]
    fn pods_when_wrong_are_refused_with_object_field_and_remedy() {
        let error = pod(
            "{namespace: shop, name: web, containerPorts: [{containerPort: 80}, {containerPort: 70000}]}",
        );
        let expected = "Pod shop/web: containerPorts[1].containerPort: 70000 is no port: choose 1 to 65535";
        assert_eq!(error.unwrap_err(), expected);
        for text in [
            "{namespace: Shop, name: web}",
            "{namespace: shop, name: ''}",
            "{namespace: shop, name: web, addresses: [224.0.0.1]}",
            "{namespace: shop, name: web, addresses: ['::ffff:10.0.0.1']}",
            "{namespace: shop, name: web, containerPorts: [{containerPort: 80, name: '80'}]}",
            "{namespace: shop, name: web, labels: {app: 'a b'}}",
            "{namespace: shop, name: web, ip: 10.0.0.1}",
        ] {
            assert!(pod(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_namespace_has_the_label_of_its_name() {
        let spec: NamespaceSpec = serde_yaml_ng::from_str("{name: shop, labels: {team: red}}").unwrap();
        let namespace = Namespace::new(&spec).unwrap();
        assert_eq!(namespace.labels().get(NAMESPACE_NAME_LABEL), Some("shop"));
        assert_eq!(namespace.labels().get("team"), Some("red"));
    }
}
