//! Which networks does the networks file define?
//!
//! ```yaml
//! networks:
//!   - name: blue
//!     subnets:
//!       - subnet: 10.10.0.0/24
//!         gateway: 10.10.0.1
//!         ranges: [10.10.0.10-10.10.0.199]
//!         exclude: [10.10.0.64/28]
//!     routes: [{dst: 0.0.0.0/0}]
//!     mtu: 1500
//! ```
//!
//! Networks of several nodes need to know those, and the text is the same on all of them:
//!
//! ```yaml
//! nodes:
//!   - {name: a, number: 1, addresses: [192.0.2.1], uplink: eth0}
//!   - {name: b, number: 2, addresses: [192.0.2.2], uplink: eth0}
//! networks:
//!   - name: green
//!     topology: layer3
//!     vni: 100
//!     subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23}]
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    ClusterNetworkPolicySpec, Gateway, GatewayError, GatewaySpec, NamespaceSpec, Network, NetworkError,
    NetworkName, NetworkPolicySpec, NetworkSpec, NodeError, NodeSpec, ObjectName, ObjectSpecs, Objects,
    ObjectsError, PodSpec, Protocol, ServiceSpec, Topology, Underlay, gateway,
};

/// The largest networks file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// The networks by their names, as one node has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    by_name: BTreeMap<NetworkName, Arc<Network>>,
    underlay: Option<Underlay>,
    gateways: BTreeMap<NetworkName, Gateway>,
    objects: Arc<Objects>,
}

/// What a networks file says.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileSpec {
    #[serde(default)]
    nodes: Vec<NodeSpec>,
    #[serde(default)]
    networks: Vec<NetworkSpec>,
    #[serde(default)]
    gateways: Vec<GatewaySpec>,
    #[serde(default)]
    namespaces: Vec<NamespaceSpec>,
    #[serde(default)]
    pods: Vec<PodSpec>,
    #[serde(default)]
    network_policies: Vec<NetworkPolicySpec>,
    #[serde(default)]
    cluster_network_policies: Vec<ClusterNetworkPolicySpec>,
    #[serde(default)]
    services: Vec<ServiceSpec>,
}

impl FileSpec {
    fn extend(&mut self, other: FileSpec) {
        self.nodes.extend(other.nodes);
        self.networks.extend(other.networks);
        self.gateways.extend(other.gateways);
        self.namespaces.extend(other.namespaces);
        self.pods.extend(other.pods);
        self.network_policies.extend(other.network_policies);
        self.cluster_network_policies.extend(other.cluster_network_policies);
        self.services.extend(other.services);
    }

    fn objects(&self) -> ObjectSpecs {
        ObjectSpecs {
            namespaces: self.namespaces.clone(),
            pods: self.pods.clone(),
            network_policies: self.network_policies.clone(),
            cluster_network_policies: self.cluster_network_policies.clone(),
            services: self.services.clone(),
        }
    }
}

/// Why a text defines no networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("the networks file is larger than {MAX_FILE_BYTES} bytes: split the node's networks")]
    TooLarge,
    /// Not YAML, or not of this shape: the parser's text names field, line and column.
    #[error("the networks file cannot be read: {0}")]
    Shape(String),
    /// A network is not legal.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A pod, policy or service is not legal.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// Two networks that no router joins have policies.
    #[error(
        "network {network:?}: policies: no router joins it to network {rival:?}, which has policies, too: name one router in both, or set policies in one of them only"
    )]
    PoliciesApart {
        /// The later one by name.
        network: NetworkName,
        /// The other one.
        rival: NetworkName,
    },
    /// A service of a network that has no gateway of ours, or of none.
    #[error(
        "Service {service}: network: {network:?} is no network with a router: define it with one, or name another"
    )]
    ServiceWithoutRouter {
        /// The service.
        service: ObjectName,
        /// Its network.
        network: NetworkName,
    },
    /// Two services have one port of the nodes.
    #[error("Service {service}: ports: nodePort {port} is Service {rival}'s too: choose another")]
    DuplicateNodePort {
        /// The later one by name.
        service: ObjectName,
        /// The other one.
        rival: ObjectName,
        /// The port.
        port: u16,
    },
    /// A node is not legal.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A gateway is not legal.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Two networks have the node.
    #[error("network {network:?}: host: the node is on network {rival:?} already: remove one of them")]
    TwoHosts {
        /// The later one by name.
        network: NetworkName,
        /// The other one.
        rival: NetworkName,
    },
    /// A network of several nodes, and nobody says which this is.
    #[error(
        "network {network:?}: topology: this node, {node:?}, is not among the nodes: add it, or start the agent with the --node that it is"
    )]
    NotANode {
        /// The network.
        network: String,
        /// The name of the agent's node.
        node: String,
    },
    /// Two networks of one identifier.
    #[error("network {network:?}: vni: {vni} is network {rival:?}'s too: choose another")]
    DuplicateVni {
        /// The later one by name.
        network: NetworkName,
        /// The other network.
        rival: NetworkName,
        /// The identifier.
        vni: u32,
    },
    /// Two networks in one VLAN of the uplink.
    #[error("network {network:?}: vlan: {vlan} of the uplink is network {rival:?}'s too: choose another")]
    DuplicateVlan {
        /// The later one by name.
        network: NetworkName,
        /// The other network.
        rival: NetworkName,
        /// The VLAN.
        vlan: u16,
    },
    /// Two networks of one name.
    #[error("network {0:?}: name: is defined twice: rename or remove one of them")]
    Duplicate(NetworkName),
    /// Two networks of one router share addresses.
    #[error(
        "network {network:?}: subnets: {subnet} overlaps {other} of network {rival:?}, which has the same router {router:?}: change one of them"
    )]
    Overlap {
        /// The later one by name.
        network: NetworkName,
        /// Its subnet.
        subnet: IpNet,
        /// The other network.
        rival: NetworkName,
        /// Its subnet.
        other: IpNet,
        /// The router of both.
        router: NetworkName,
    },
}

impl Networks {
    /// Reads the YAML (or JSON) text of a networks file, for a node that is on its own.
    ///
    /// # Errors
    /// The first thing that is not legal.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        Self::parse_all(&[text], "")
    }

    /// Reads the texts of several networks files, each with a part of the whole, for the node of the name `own`.
    ///
    /// # Errors
    /// The first thing that is not legal.
    pub fn parse_all(texts: &[&str], own: &str) -> Result<Self, FileError> {
        let mut all = FileSpec::default();
        for text in texts {
            all.extend(read(text)?);
        }
        Self::new(&all, own)
    }

    fn new(specs: &FileSpec, own: &str) -> Result<Self, FileError> {
        let underlay = Underlay::new(&specs.nodes, own)?;
        let mut by_name = BTreeMap::new();
        for spec in &specs.networks {
            let network = match (&underlay, spec.topology.is_local()) {
                (Some(underlay), _) => Network::on_node(spec, underlay)?,
                (None, true) => Network::new(spec)?,
                (None, false) => {
                    let (network, node) = (spec.name.clone(), own.to_owned());
                    return Err(FileError::NotANode { network, node });
                }
            };
            let name = network.name().clone();
            if by_name.insert(name.clone(), Arc::new(network)).is_some() {
                return Err(FileError::Duplicate(name));
            }
        }
        check_routers(&by_name)?;
        check_vnis(&by_name)?;
        check_vlans(&by_name)?;
        check_policies(&by_name)?;
        check_host(&by_name)?;
        let gateways = gateway::check_all(&specs.gateways, &by_name, underlay.as_ref())?;
        let objects = Arc::new(Objects::new(&specs.objects())?);
        check_services(&objects, &by_name)?;
        check_node_ports(&objects)?;
        Ok(Self { by_name, underlay, gateways, objects })
    }

    /// The network of that name.
    pub fn get(&self, name: &NetworkName) -> Option<&Arc<Network>> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.by_name.values()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &NetworkName> {
        self.by_name.keys()
    }

    /// What policies and services are made of.
    pub fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }

    /// How packets leave, by router.
    pub fn gateways(&self) -> &BTreeMap<NetworkName, Gateway> {
        &self.gateways
    }

    /// The nodes, if this one is among them.
    pub fn underlay(&self) -> Option<&Underlay> {
        self.underlay.as_ref()
    }
}

fn read(text: &str) -> Result<FileSpec, FileError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    // An empty file is YAML's null: no networks.
    let file: Option<FileSpec> =
        serde_yaml_ng::from_str(text).map_err(|error| FileError::Shape(error.to_string()))?;
    Ok(file.unwrap_or_default())
}

/// A policy names pods by their labels, and means one address of each: networks that it is about are joined by one router.
fn check_policies(networks: &BTreeMap<NetworkName, Arc<Network>>) -> Result<(), FileError> {
    let mut asked = networks.values().filter(|network| network.spec().policies);
    let Some(first) = asked.next() else { return Ok(()) };
    let is_apart = |other: &&Arc<Network>| first.router().is_none() || other.router() != first.router();
    match asked.find(is_apart) {
        Some(other) => {
            let (network, rival) = (other.name().clone(), first.name().clone());
            Err(FileError::PoliciesApart { network, rival })
        }
        None => Ok(()),
    }
}

/// The node has one interface of ours.
fn check_host(networks: &BTreeMap<NetworkName, Arc<Network>>) -> Result<(), FileError> {
    let mut hosted = networks.values().filter(|network| network.spec().host).map(|it| it.name().clone());
    match (hosted.next(), hosted.next()) {
        (Some(rival), Some(network)) => Err(FileError::TwoHosts { network, rival }),
        _ => Ok(()),
    }
}

/// The gateway is what takes packets to services.
fn check_services(
    objects: &Objects,
    networks: &BTreeMap<NetworkName, Arc<Network>>,
) -> Result<(), FileError> {
    let has_router = |name: &NetworkName| networks.get(name).is_some_and(|it| it.router().is_some());
    match objects.services.values().find(|service| !has_router(service.network())) {
        Some(service) => {
            let (service, network) = (service.name().clone(), service.network().clone());
            Err(FileError::ServiceWithoutRouter { service, network })
        }
        None => Ok(()),
    }
}

/// A node has each of its ports once.
fn check_node_ports(objects: &Objects) -> Result<(), FileError> {
    let mut seen: BTreeMap<(Protocol, u16), &ObjectName> = BTreeMap::new();
    for service in objects.services.values() {
        let ports = service.ports().iter().filter_map(|it| Some((it.protocol, it.node_port?)));
        for (protocol, port) in ports {
            if let Some(rival) = seen.insert((protocol, port), service.name()) {
                let (service, rival) = (service.name().clone(), rival.clone());
                return Err(FileError::DuplicateNodePort { service, rival, port });
            }
        }
    }
    Ok(())
}

fn check_vnis(networks: &BTreeMap<NetworkName, Arc<Network>>) -> Result<(), FileError> {
    let mut seen: BTreeMap<u32, &NetworkName> = BTreeMap::new();
    for (name, network) in networks {
        let Some(vni) = network.spec().vni else { continue };
        if let Some(rival) = seen.insert(vni, name) {
            return Err(FileError::DuplicateVni { network: name.clone(), rival: rival.clone(), vni });
        }
    }
    Ok(())
}

fn check_vlans(networks: &BTreeMap<NetworkName, Arc<Network>>) -> Result<(), FileError> {
    let mut seen: BTreeMap<u16, &NetworkName> = BTreeMap::new();
    for (name, network) in networks.iter().filter(|(_, it)| it.spec().topology == Topology::Localnet) {
        let Some(vlan) = network.spec().vlan else { continue };
        if let Some(rival) = seen.insert(vlan, name) {
            return Err(FileError::DuplicateVlan { network: name.clone(), rival: rival.clone(), vlan });
        }
    }
    Ok(())
}

/// Packets of a router have one way each: no address is of two of its networks.
fn check_routers(networks: &BTreeMap<NetworkName, Arc<Network>>) -> Result<(), FileError> {
    let mut seen: BTreeMap<&NetworkName, Vec<(&NetworkName, IpNet)>> = BTreeMap::new();
    for (name, network) in networks {
        let Some(router) = network.router() else { continue };
        let others = seen.entry(router).or_default();
        for subnet in network.cluster().iter().copied() {
            let overlaps =
                |(_, other): &&(&NetworkName, IpNet)| other.contains(&subnet) || subnet.contains(other);
            if let Some((rival, other)) = others.iter().find(overlaps) {
                let (network, rival, router) = (name.clone(), (*rival).clone(), router.clone());
                return Err(FileError::Overlap { network, subnet, rival, other: *other, router });
            }
        }
        others.extend(network.cluster().iter().map(|subnet| (name, *subnet)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KindChoice, PortKind};

    fn error(text: &str) -> String {
        Networks::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn parse_when_all_fields_are_given_reads_them() {
        let text = r#"
networks:
  - name: blue
    subnets:
      - subnet: 10.10.0.0/24
        gateway: 10.10.0.1
        ranges: [10.10.0.10-10.10.0.199]
        exclude: [10.10.0.64/28, 10.10.0.99]
      - {subnet: "fd00:10::/64", gateway: "fd00:10::1"}
    routes: [{dst: 0.0.0.0/0}, {dst: "::/0", gw: "fd00:10::2"}]
    dns: {nameservers: [10.10.0.53], domain: cluster.local, search: [svc.cluster.local], options: ["ndots:5"]}
    mtu: 9000
    vlan: 100
    portKind: vhost-user
    queues: 4
    portSecurity: false
    isolated: true
    floodUnknown: false
    macAgeSeconds: 60
    macLimit: 100
    portMacLimit: 2
    vhostUser: {createdBy: pod, uid: 1000, gid: 107, mode: "0600"}
  - name: plain
"#;
        let networks = Networks::parse(text).unwrap();
        let blue = networks.get(&"blue".parse().unwrap()).unwrap();
        assert_eq!(
            (blue.mtu().get(), blue.spec().vlan, blue.spec().port_kind),
            (9000, Some(100), KindChoice::Only(PortKind::VhostUser))
        );
        assert_eq!(blue.subnets().len(), 2);
        assert_eq!(blue.routes()[0], ("0.0.0.0/0".parse().unwrap(), "10.10.0.1".parse().unwrap()));
        assert_eq!(blue.routes()[1].1, "fd00:10::2".parse::<std::net::IpAddr>().unwrap());
        assert_eq!(blue.vhost_socket().mode, 0o600);
        let plain = networks.get(&"plain".parse().unwrap()).unwrap();
        assert_eq!((plain.mtu().get(), plain.spec().port_security), (1500, true));
        assert_eq!(plain.spec().port_kind, KindChoice::Auto);
        assert!(plain.subnets().is_empty());
    }

    #[test]
    fn parse_when_empty_gives_no_networks() {
        for text in ["", "\n# none\n", "{}", "networks: []"] {
            assert_eq!(Networks::parse(text).unwrap(), Networks::default(), "{text:?}");
        }
    }

    #[test]
    fn parse_when_a_field_is_wrong_names_object_field_and_remedy() {
        let network = |rest: &str| error(&format!("networks: [{{name: blue, {rest}}}]"));
        assert_eq!(network("mtu: 60"), r#"network "blue": mtu: 60 is out of bounds: choose 68 to 65521"#);
        assert_eq!(network("vlan: 4095"), r#"network "blue": vlan: 4095 is out of bounds: choose 1 to 4094"#);
        assert_eq!(network("queues: 0"), r#"network "blue": queues: 0 is out of bounds: choose 1 to 64"#);
        assert_eq!(
            network("queues: 2, portKind: vduse"),
            r#"network "blue": queues: 2 is more than a port of kind vduse can have: choose 1, or another portKind"#
        );
        assert!(network("portKind: veth").contains(r#""veth" is no port kind: choose auto, tap, vduse"#));
        assert_eq!(
            network("subnets: [{subnet: 10.0.0.0/8}, {subnet: 10.1.0.0/16}]"),
            r#"network "blue": subnets[1].subnet: 10.1.0.0/16 overlaps 10.0.0.0/8: remove one of them"#
        );
        assert!(
            network("subnets: [{subnet: 10.0.0.1/8}]").contains("subnets[0].subnet: 10.0.0.1/8 has bits set")
        );
        assert!(network("mtu: 1000, subnets: [{subnet: 'fd00::/64'}]").contains("too small for IPv6"));
        assert!(network("routes: [{dst: 0.0.0.0/0}]").contains("no subnet is of the family"));
        assert!(
            network("subnets: [{subnet: 10.0.0.0/8}], routes: [{dst: 0.0.0.0/0}]")
                .contains("needs a next hop")
        );
        assert!(network("vhostUser: {mode: '0999'}").contains("write octal digits"));
        assert!(network("router: a b").contains("router: "));
        assert!(network("router: r").contains("has no subnets"));
        assert_eq!(
            network("router: r, subnets: [{subnet: 10.0.0.0/8, gateway: 10.0.0.1}, {subnet: 'fd00::/64'}]"),
            r#"network "blue": subnets[1].gateway: a router needs the address that it has in fd00::/64: name one of its hosts"#
        );
    }

    #[test]
    fn parse_when_networks_of_one_router_overlap_names_both() {
        let networks = |router: &str| {
            let net = |name: &str, subnet: &str, router: &str| {
                format!(
                    "{{name: {name}, router: {router}, subnets: [{{subnet: {subnet}.0/16, gateway: {subnet}.1}}]}}"
                )
            };
            format!(
                "networks: [{}, {}, {}]",
                net("a", "10.1.0", "r"),
                net("b", "10.2.0", "r"),
                net("c", "10.1.0", router)
            )
        };
        let parsed = Networks::parse(&networks("elsewhere")).unwrap();
        assert_eq!(parsed.get(&"c".parse().unwrap()).unwrap().router().unwrap().as_str(), "elsewhere");
        assert_eq!(
            error(&networks("r")),
            r#"network "c": subnets: 10.1.0.0/16 overlaps 10.1.0.0/16 of network "a", which has the same router "r": change one of them"#
        );
    }

    const NODES: &str = "nodes: [{name: a, number: 1, addresses: [192.0.2.1], uplink: eth0}, {name: b, number: 2, addresses: [192.0.2.2], uplink: eth0}]";

    fn on_node(own: &str, networks: &str) -> Result<Networks, FileError> {
        Networks::parse_all(&[NODES, &format!("networks: [{networks}]")], own)
    }

    #[test]
    fn parse_when_networks_are_of_several_nodes_gives_each_its_part() {
        let text = "{name: l3, topology: layer3, vni: 7, subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23, exclude: [10.128.4.9, 10.128.2.9]}, {subnet: 'fd00::/48', nodePrefix: 64}]}, \
            {name: l2, topology: layer2, vni: 8, subnets: [{subnet: 10.1.0.0/16, nodePrefix: 24, gateway: 10.1.0.1}], router: r}";
        let [a, b] = ["a", "b"].map(|node| on_node(node, text).unwrap());
        let l3 = |networks: &Networks| networks.get(&"l3".parse().unwrap()).unwrap().clone();
        let nets =
            |network: &Network| network.subnets().iter().map(|it| it.net().to_string()).collect::<Vec<_>>();
        assert_eq!(nets(&l3(&a)), ["10.128.2.0/23", "fd00:0:0:1::/64"]);
        assert_eq!(nets(&l3(&b)), ["10.128.4.0/23", "fd00:0:0:2::/64"]);
        assert_eq!(l3(&a).subnets()[0].gateway(), Some([10, 128, 2, 1].into()));
        assert_eq!(l3(&a).router().unwrap().as_str(), "l3");
        assert_eq!((l3(&a).mtu().get(), l3(&a).spec().vni), (1400, Some(7)));
        let routes: Vec<_> = l3(&a).routes().iter().map(|(dst, gw)| format!("{dst} {gw}")).collect();
        assert_eq!(routes, ["10.128.0.0/14 10.128.2.1", "fd00::/48 fd00:0:0:1::1"]);
        let elsewhere: Vec<_> =
            l3(&a).elsewhere().iter().map(|(node, net)| format!("{node} {net}")).collect();
        assert_eq!(elsewhere, ["2 10.128.4.0/23", "2 fd00:0:0:2::/64"]);
        let l2 = a.get(&"l2".parse().unwrap()).unwrap();
        assert_eq!(nets(l2), ["10.1.0.0/16"]);
        let range = l2.subnets()[0].ranges()[0];
        assert_eq!((range.first, range.last), ([10, 1, 1, 1].into(), [10, 1, 1, 254].into()));
        // What is stored of it is legal by itself.
        assert_eq!(Network::new(l3(&a).spec()).unwrap().subnets(), l3(&a).subnets());
        assert_eq!(a.underlay().unwrap().others()[0].name().as_str(), "b");
    }

    #[test]
    fn parse_when_a_network_of_several_nodes_is_not_legal_names_the_remedy() {
        let error = |text: &str| on_node("a", &format!("{{name: n, {text}}}")).unwrap_err().to_string();
        assert!(error("topology: layer2").contains("vni: a network of topology layer2 needs one"));
        assert!(error("vni: 7").contains("vni: a local network has none"));
        assert!(error("topology: layer2, vni: 16777216").contains("vni: 16777216 is out of bounds"));
        assert!(
            error("topology: layer2, vni: 1, vlan: 7").contains("vlan: a network with a VNI has no VLAN")
        );
        assert!(
            error("subnets: [{subnet: 10.0.0.0/8, nodePrefix: 9}]").contains("a local network has no parts")
        );
        let layer3 = |subnet: &str| error(&format!("topology: layer3, vni: 1, subnets: [{{{subnet}}}]"));
        assert!(layer3("subnet: 10.0.0.0/8").contains("Choose a prefix length longer than 8"));
        assert!(layer3("subnet: 10.0.0.0/8, nodePrefix: 8").contains("longer than 8"));
        assert!(
            layer3("subnet: 10.0.0.0/8, nodePrefix: 9")
                .contains(r#"no part 2 of prefix length 9, which is node "b"'s"#)
        );
        assert!(
            layer3("subnet: 10.0.0.0/8, nodePrefix: 16, gateway: 10.0.0.1")
                .contains("gateway: each node has its own")
        );
        assert!(
            layer3("subnet: 10.0.0.0/8, nodePrefix: 16, ranges: [10.0.0.1-10.0.0.9]")
                .contains("ranges: each node")
        );
        let elsewhere = on_node("c", "{name: n, topology: layer2, vni: 1}").unwrap_err().to_string();
        assert!(elsewhere.contains(r#"this node, "c", is not among the nodes"#), "{elsewhere}");
        let services = |ports: [&str; 2], fields: &str| {
            let service = |name, ports| {
                format!(
                    "{{namespace: x, name: {name}, network: n, clusterIPs: [172.30.0.1], ports: [{{{ports}}}]{fields}}}"
                )
            };
            let network =
                "networks: [{name: n, router: r, subnets: [{subnet: 10.1.0.0/24, gateway: 10.1.0.1}]}]";
            let services = format!("services: [{}, {}]", service("a", ports[0]), service("b", ports[1]));
            Networks::parse(&format!("{network}\n{services}")).map_err(|error| error.to_string())
        };
        let both = ["port: 80, nodePort: 30080", "port: 81, nodePort: 30080"];
        assert_eq!(
            services(both, "").unwrap_err(),
            "Service x/b: ports: nodePort 30080 is Service x/a's too: choose another"
        );
        let apart = ["port: 80, nodePort: 30080", "port: 80, nodePort: 30080, protocol: UDP"];
        assert!(services(apart, ", externalTrafficPolicy: Local").is_ok());
        let local = services(["port: 80", "port: 81"], ", externalTrafficPolicy: Local").unwrap_err();
        assert!(local.contains("Local needs a nodePort in each port"), "{local}");
        assert!(error("topology: localnet").contains("vlan: a network of topology localnet needs one"));
        assert!(error("topology: localnet, vlan: 7, vni: 7").contains("vlan: a network with a VNI"));
        let gateway = "topology: localnet, vlan: 7, router: r, \
                       subnets: [{subnet: 10.1.0.0/24, gateway: 10.1.0.1, nodePrefix: 28}]";
        assert!(error(gateway).contains("router: the switch is no gateway in a VLAN of the uplink"));
        let twice = "{name: n, topology: localnet, vlan: 7}, {name: m, topology: localnet, vlan: 7}";
        let twice = on_node("a", twice).unwrap_err().to_string();
        assert_eq!(twice, r#"network "n": vlan: 7 of the uplink is network "m"'s too: choose another"#);
        let twice = "{name: n, topology: layer2, vni: 1}, {name: m, topology: layer2, vni: 1}";
        let twice = on_node("a", twice).unwrap_err().to_string();
        assert_eq!(twice, r#"network "n": vni: 1 is network "m"'s too: choose another"#);
    }

    #[test]
    fn parse_when_not_of_the_shape_names_field_and_place() {
        let text = error("networks:\n  - name: blue\n    mtuu: 1\n");
        assert!(
            text.contains("mtuu") && text.contains("line 3") && text.contains("expected one of"),
            "{text}"
        );
        assert!(error("networks: [{name: blue, mtu: big}]").contains("mtu"));
        assert!(error("networks: [{mtu: 1500}]").contains("missing field `name`"));
        assert!(error("network: []").contains("unknown field `network`"));
        assert!(error("networks: [").contains("line"));
        assert!(error("networks: [{name: ../x}]").contains("not legal"));
        assert!(error("networks: [{name: a}, {name: a}]").contains("defined twice"));
        assert_eq!(Networks::parse(&" ".repeat(MAX_FILE_BYTES + 1)), Err(FileError::TooLarge));
    }

    #[test]
    fn parse_when_aliases_multiply_ends_with_an_error() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(",");
            text.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        assert!(Networks::parse(&text).is_err());
        assert!(Networks::parse(&format!("networks: {}", "[".repeat(10_000))).is_err());
    }
}
