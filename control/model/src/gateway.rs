//! How do packets of a router's networks leave the cluster?

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::pod::is_unicast;
use crate::{NameError, Network, NetworkName, Underlay};

/// A gateway as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The router whose networks' packets it takes out: those for no address of its networks. One for each router.
    pub router: String,
    /// Who gives them a source address that is known outside.
    #[serde(default)]
    pub snat: Snat,
    /// By which node they leave; none: each by its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The addresses they have outside, one of a family at most, for `node` to have; none: the node's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// Who translates the sources of packets that leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Snat {
    /// The node's kernel, which has the packets by `mp0`: for the router of the network with `host`.
    #[default]
    Host,
    /// The switch, with ports of its own ([`NAT_PORTS`]), for any router: the networks of two may have the same addresses. The
    /// node's kernel only takes the packets on, by `mp0`.
    Switch,
    /// Nobody: the addresses are known outside. By `mp0`, too.
    None,
}

/// Ports of the node's addresses that the switch has for itself: behind those that Linux gives out by itself
/// (`ip_local_port_range`, 32768 to 60999), as its masquerading had them once.
pub const NAT_PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// What is wrong with a gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gateway of router {router:?}: {invalid}")]
pub struct GatewayError {
    /// Its router, as written.
    router: String,
    invalid: InvalidGateway,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum InvalidGateway {
    #[error("router: {0}")]
    Name(#[from] NameError),
    #[error(
        "router: no network has it: name the router of one, which is a layer3 network's own name if it gives none"
    )]
    NoRouter,
    #[error("router: has a gateway already: remove one of them")]
    Twice,
    #[error(
        "router: the node's kernel has no way to its networks: set host in one of them, or let the switch translate (snat: switch)"
    )]
    NoHost,
    #[error(
        "snat: the switch gives the node's kernel what leaves by a network that the node is on: set host in one network"
    )]
    NoWay,
    #[error("snat: answers come to the switch by the node's uplink: list the node among the nodes")]
    NoUplink,
    #[error("node: {0:?} is not among the nodes: name one of them, or none")]
    NoNode(String),
    #[error("node: networks of the router are on this node only, or have no VNI: remove node")]
    OneNode,
    #[error("addresses: {0} is no host's: name a unicast address")]
    NotAHost(IpAddr),
    #[error("addresses: two are of one family: remove one of them")]
    Family,
    #[error("addresses: which node has them? Name it with node")]
    NoOwner,
    #[error("addresses: nobody translates to them with snat none: remove them, or choose another snat")]
    NotUsed,
}

/// A checked gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    router: NetworkName,
    snat: Snat,
    node: Option<NetworkName>,
    addresses: Vec<IpAddr>,
}

impl Gateway {
    /// Its router.
    pub fn router(&self) -> &NetworkName {
        &self.router
    }

    /// Who translates.
    pub fn snat(&self) -> Snat {
        self.snat
    }

    /// By which node packets leave; none: each by its own.
    pub fn node(&self) -> Option<&NetworkName> {
        self.node.as_ref()
    }

    /// The addresses that they have outside; none: the node's own.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

/// Checks all gateways against the networks and nodes.
pub(crate) fn check_all(
    specs: &[GatewaySpec],
    networks: &BTreeMap<NetworkName, Arc<Network>>,
    underlay: Option<&Underlay>,
) -> Result<BTreeMap<NetworkName, Gateway>, GatewayError> {
    let mut gateways = BTreeMap::new();
    for spec in specs {
        let fault = |invalid| GatewayError { router: spec.router.clone(), invalid };
        let gateway = check(spec, networks, underlay).map_err(fault)?;
        if gateways.insert(gateway.router.clone(), gateway).is_some() {
            return Err(fault(InvalidGateway::Twice));
        }
    }
    Ok(gateways)
}

fn check(
    spec: &GatewaySpec,
    networks: &BTreeMap<NetworkName, Arc<Network>>,
    underlay: Option<&Underlay>,
) -> Result<Gateway, InvalidGateway> {
    let router: NetworkName = spec.router.parse()?;
    let own: Vec<_> = networks.values().filter(|network| network.router() == Some(&router)).collect();
    if own.is_empty() {
        return Err(InvalidGateway::NoRouter);
    }
    match spec.snat {
        Snat::Switch if !networks.values().any(|network| network.spec().host) => {
            return Err(InvalidGateway::NoWay);
        }
        Snat::Switch if underlay.is_none() => return Err(InvalidGateway::NoUplink),
        Snat::Host | Snat::None if !own.iter().any(|network| network.spec().host) => {
            return Err(InvalidGateway::NoHost);
        }
        _ => {}
    }
    let node = spec.node.as_ref().map(|name| check_node(name, &own, underlay)).transpose()?;
    check_addresses(spec)?;
    Ok(Gateway { router, snat: spec.snat, node, addresses: spec.addresses.clone() })
}

fn check_node(
    name: &str,
    networks: &[&Arc<Network>],
    underlay: Option<&Underlay>,
) -> Result<NetworkName, InvalidGateway> {
    let nodes = underlay.into_iter().flat_map(|it| std::iter::once(it.own()).chain(it.others()));
    let mut names = nodes.map(crate::Node::name);
    let Some(node) = names.find(|node| node.as_str() == name) else {
        return Err(InvalidGateway::NoNode(name.to_owned()));
    };
    match networks.iter().any(|network| network.spec().vni.is_some()) {
        true => Ok(node.clone()),
        false => Err(InvalidGateway::OneNode),
    }
}

fn check_addresses(spec: &GatewaySpec) -> Result<(), InvalidGateway> {
    if let Some(address) = spec.addresses.iter().find(|address| !is_unicast(**address)) {
        return Err(InvalidGateway::NotAHost(*address));
    }
    let of_v4 = spec.addresses.iter().filter(|address| address.is_ipv4()).count();
    match spec.addresses.len() {
        0 => Ok(()),
        _ if spec.snat == Snat::None => Err(InvalidGateway::NotUsed),
        _ if spec.node.is_none() => Err(InvalidGateway::NoOwner),
        all if of_v4 > 1 || all - of_v4 > 1 => Err(InvalidGateway::Family),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::Networks;

    const CLUSTER: &str = "
nodes:
  - {name: a, number: 1, addresses: [192.0.2.1], uplink: eth0}
  - {name: b, number: 2, addresses: [192.0.2.2], uplink: eth0}
networks:
  - {name: pods, topology: layer3, vni: 1, host: true, subnets: [{subnet: 10.0.0.0/16, nodePrefix: 24}]}
  - {name: red, topology: layer3, vni: 2, subnets: [{subnet: 10.0.0.0/16, nodePrefix: 24}]}
";

    fn parse(gateways: &str) -> Result<Networks, String> {
        let text = format!("{CLUSTER}gateways: {gateways}");
        Networks::parse_all(&[&text], "a").map_err(|error| error.to_string())
    }

    #[test]
    fn a_gateway_is_of_a_router_whose_networks_the_node_is_on() {
        let networks = parse("[{router: pods, node: b, addresses: [192.0.2.9]}]").unwrap();
        let gateway = &networks.gateways()[&"pods".parse().unwrap()];
        assert_eq!((gateway.node().unwrap().as_str(), gateway.addresses().len()), ("b", 1));
        let pods = networks.get(&"pods".parse().unwrap()).unwrap();
        assert_eq!(pods.subnets()[0].host(), Some([10, 0, 1, 2].into()));
        assert!(!pods.subnets()[0].allows([10, 0, 1, 2].into()), "no pod gets it");
    }

    #[test]
    fn the_switch_translates_for_routers_that_the_node_is_not_on() {
        let networks = parse("[{router: red, snat: switch}]").unwrap();
        assert!(networks.gateways()[&"red".parse().unwrap()].addresses().is_empty());
        parse("[{router: red, snat: switch, node: b, addresses: [192.0.2.9]}, {router: pods, snat: switch}]")
            .unwrap();
        let alone = "networks: [{name: a, router: r, host: true, subnets: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1}]}]";
        let gateways = "gateways: [{router: r, snat: switch}]";
        let error = Networks::parse(&format!("{alone}\n{gateways}")).unwrap_err().to_string();
        assert!(error.contains("list the node among the nodes"), "{error}");
        let error =
            Networks::parse(&format!("{}\n{gateways}", alone.replace("host: true, ", ""))).unwrap_err();
        assert!(error.to_string().contains("set host in one network"), "{error}");
    }

    #[test]
    fn gateways_that_are_not_legal_are_named_with_the_remedy() {
        for (gateways, expected) in [
            ("[{router: blue}]", "gateway of router \"blue\": router: no network has it"),
            ("[{router: red}]", "the node's kernel has no way to its networks: set host in one of them"),
            ("[{router: pods}, {router: pods}]", "has a gateway already"),
            ("[{router: pods, node: c}]", "\"c\" is not among the nodes"),
            ("[{router: pods, node: b, addresses: [224.0.0.1]}]", "224.0.0.1 is no host's"),
            ("[{router: pods, addresses: [192.0.2.9]}]", "which node has them?"),
            ("[{router: pods, node: b, addresses: [192.0.2.8, 192.0.2.9]}]", "two are of one family"),
            ("[{router: pods, snat: none, node: b, addresses: [192.0.2.9]}]", "nobody translates"),
        ] {
            let error = parse(gateways).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let alone = "networks: [{name: a, router: r, host: true, subnets: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1}]}]";
        let one_node = Networks::parse(&format!("{alone}\ngateways: [{{router: r, node: b}}]")).unwrap_err();
        assert!(one_node.to_string().contains("\"b\" is not among the nodes"));
    }

    #[test]
    fn the_node_is_on_one_network_with_a_gateway() {
        for (networks, expected) in [
            ("[{name: a, host: true, subnets: [{subnet: 10.9.0.0/24}]}]", "host: the network has no router"),
            (
                "[{name: a, router: r, host: true, subnets: [{subnet: 10.9.0.0/32, gateway: 10.9.0.0}]}]",
                "host: 10.9.0.0/32 has no address for the node",
            ),
            (
                "[{name: a, router: r, host: true, subnets: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1}]}, \
                 {name: b, router: q, host: true, subnets: [{subnet: 10.8.0.0/24, gateway: 10.8.0.1}]}]",
                "network \"b\": host: the node is on network \"a\" already",
            ),
        ] {
            let error = Networks::parse(&format!("networks: {networks}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
