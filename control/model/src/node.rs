//! What is a node, and which part of a network's addresses does it have?

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{IfName, NameError, NetworkName};

/// A node as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeSpec {
    /// Its name: the agent's `--node`.
    pub name: String,
    /// Its number, of which its part of each network's addresses follows: 1 to 65535, no other node's, never changed.
    pub number: u16,
    /// Where its tunnels end: one address of each family at most.
    pub addresses: Vec<IpAddr>,
    /// Its network interface towards the other nodes.
    pub uplink: String,
}

/// What is wrong with one field of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNode {
    /// The name is none.
    #[error("name: {0}")]
    Name(NameError),
    /// The interface's name is none.
    #[error("uplink: {0}")]
    Uplink(NameError),
    /// Parts begin with number 1.
    #[error("number: 0 is no node's: choose 1 to 65535")]
    Number,
    /// None, or two of one family.
    #[error("addresses: a node has one address of each family at most, and one in all at least")]
    Addresses,
    /// No host can have it.
    #[error("addresses: {0} is no host's: name a unicast address")]
    NotAHost(IpAddr),
    /// Another node has the same.
    #[error("{field}: node {rival:?} has the same: change one of them")]
    Taken {
        /// The field.
        field: &'static str,
        /// The other node.
        rival: String,
    },
    /// The two nodes cannot reach each other.
    #[error(
        "addresses: none is of a family of node {own:?}, whose agent this is: give both one of the same family"
    )]
    Family {
        /// The agent's node.
        own: String,
    },
}

/// A spec that is no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node:?}: {invalid}")]
pub struct NodeError {
    /// Its name, as written.
    pub node: String,
    /// What is wrong.
    pub invalid: InvalidNode,
}

/// A checked node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    name: NetworkName,
    number: u16,
    addresses: Vec<IpAddr>,
    uplink: IfName,
}

impl Node {
    /// Checks a spec.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn new(spec: &NodeSpec) -> Result<Self, NodeError> {
        Self::check(spec).map_err(|invalid| NodeError { node: spec.name.clone(), invalid })
    }

    fn check(spec: &NodeSpec) -> Result<Self, InvalidNode> {
        let name = spec.name.parse().map_err(InvalidNode::Name)?;
        let uplink = spec.uplink.parse().map_err(InvalidNode::Uplink)?;
        if spec.number == 0 {
            return Err(InvalidNode::Number);
        }
        let of_v4 = spec.addresses.iter().filter(|address| address.is_ipv4()).count();
        if spec.addresses.is_empty() || of_v4 > 1 || spec.addresses.len() - of_v4 > 1 {
            return Err(InvalidNode::Addresses);
        }
        let is_host = |ip: &&IpAddr| {
            !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || is_broadcast(**ip))
        };
        match spec.addresses.iter().find(|ip| !is_host(ip)) {
            Some(ip) => Err(InvalidNode::NotAHost(*ip)),
            None => Ok(Self { name, number: spec.number, addresses: spec.addresses.clone(), uplink }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its network interface towards the other nodes.
    pub fn uplink(&self) -> &IfName {
        &self.uplink
    }

    /// Where its tunnels end.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Where tunnels from `own` to it end, on both sides: of the first family of `own` that it has, too.
    pub fn tunnel_from(&self, own: &Node) -> Option<(IpAddr, IpAddr)> {
        own.addresses.iter().find_map(|source| {
            let of_family = |address: &&IpAddr| address.is_ipv4() == source.is_ipv4();
            self.addresses.iter().find(of_family).map(|address| (*source, *address))
        })
    }
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// A node and the others, as its agent sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    own: Node,
    others: Vec<Node>,
}

impl Underlay {
    /// Checks that the nodes fit together, of which `own` is the agent's; `None` if it is not among them.
    ///
    /// # Errors
    /// The first node that is not legal or contradicts another.
    pub fn new(specs: &[NodeSpec], own: &str) -> Result<Option<Self>, NodeError> {
        let mut nodes: Vec<Node> = Vec::with_capacity(specs.len());
        for spec in specs {
            let node = Node::new(spec)?;
            if let Some(invalid) = nodes.iter().find_map(|rival| contradiction(&node, rival)) {
                return Err(NodeError { node: spec.name.clone(), invalid });
            }
            nodes.push(node);
        }
        let Some(at) = nodes.iter().position(|node| node.name.as_str() == own) else { return Ok(None) };
        let own = nodes.remove(at);
        match nodes.iter().find(|node| node.tunnel_from(&own).is_none()) {
            Some(node) => {
                let invalid = InvalidNode::Family { own: own.name.to_string() };
                Err(NodeError { node: node.name.to_string(), invalid })
            }
            None => Ok(Some(Self { own, others: nodes })),
        }
    }

    /// The agent's node.
    pub fn own(&self) -> &Node {
        &self.own
    }

    /// All others.
    pub fn others(&self) -> &[Node] {
        &self.others
    }
}

fn contradiction(node: &Node, rival: &Node) -> Option<InvalidNode> {
    let taken = |field| Some(InvalidNode::Taken { field, rival: rival.name.to_string() });
    if node.name == rival.name {
        return taken("name");
    }
    if node.number == rival.number {
        return taken("number");
    }
    if node.addresses.iter().any(|address| rival.addresses.contains(address)) {
        return taken("addresses");
    }
    None
}

/// Part `number` of `net`, when that is cut into parts of `prefix` bits; `None` if there are not as many.
pub(crate) fn part(net: IpNet, prefix: u8, number: u16) -> Option<IpNet> {
    let bits = prefix.checked_sub(net.prefix_len())?;
    if prefix > net.max_prefix_len() || (bits < 16 && u32::from(number) >= 1 << bits) {
        return None;
    }
    let behind = net.max_prefix_len() - prefix;
    let address = match net.network() {
        IpAddr::V4(own) => IpAddr::V4((own.to_bits() | u32::from(number).checked_shl(behind.into())?).into()),
        IpAddr::V6(own) => {
            IpAddr::V6((own.to_bits() | u128::from(number).checked_shl(behind.into())?).into())
        }
    };
    IpNet::new(address, prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, number: u16, addresses: &[&str]) -> NodeSpec {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        NodeSpec { name: name.into(), number, addresses, uplink: "eth0".into() }
    }

    fn error(specs: &[NodeSpec]) -> String {
        Underlay::new(specs, "a").unwrap_err().to_string()
    }

    #[test]
    fn nodes_reach_each_other_by_a_family_of_both() {
        let specs = [
            node("a", 1, &["2001:db8::1", "192.0.2.1"]),
            node("b", 2, &["192.0.2.2"]),
            node("c", 3, &["192.0.2.3", "2001:db8::3"]),
        ];
        let underlay = Underlay::new(&specs, "a").unwrap().unwrap();
        let tunnels =
            underlay.others().iter().map(|node| node.tunnel_from(underlay.own()).unwrap().1.to_string());
        assert_eq!(tunnels.collect::<Vec<_>>(), ["192.0.2.2", "2001:db8::3"]);
        assert_eq!(Underlay::new(&specs, "d"), Ok(None));
    }

    #[test]
    fn nodes_that_are_not_legal_are_named_with_the_remedy() {
        let a = || node("a", 1, &["192.0.2.1"]);
        assert_eq!(
            error(&[a(), node("b", 1, &["192.0.2.2"])]),
            r#"node "b": number: node "a" has the same: change one of them"#
        );
        assert!(error(&[a(), node("b", 2, &["192.0.2.1"])]).contains("addresses: node \"a\" has the same"));
        assert!(error(&[a(), a()]).contains("name: node \"a\" has the same"));
        assert!(error(&[node("a", 0, &["192.0.2.1"])]).contains("choose 1 to 65535"));
        assert!(error(&[node("a", 1, &[])]).contains("one in all at least"));
        assert!(error(&[node("a", 1, &["192.0.2.1", "192.0.2.2"])]).contains("one address of each family"));
        assert!(error(&[node("a", 1, &["224.0.0.1"])]).contains("no host's"));
        assert!(error(&[NodeSpec { uplink: "a/b".into(), ..a() }]).contains("uplink: "));
        assert!(error(&[node("a b", 1, &["192.0.2.1"])]).contains("name: "));
        assert!(error(&[a(), node("b", 2, &["2001:db8::2"])]).contains("none is of a family of node \"a\""));
    }

    #[test]
    fn a_part_is_one_of_as_many_as_fit() {
        let part =
            |net: &str, prefix, number| part(net.parse().unwrap(), prefix, number).map(|net| net.to_string());
        assert_eq!(part("10.128.0.0/14", 23, 1), Some("10.128.2.0/23".into()));
        assert_eq!(part("10.128.0.0/14", 23, 511), Some("10.131.254.0/23".into()));
        assert_eq!(part("10.128.0.0/14", 23, 512), None);
        assert_eq!(part("10.128.0.0/14", 13, 0), None);
        assert_eq!(part("10.0.0.0/24", 33, 0), None);
        assert_eq!(part("fd00::/48", 64, 65_535), Some("fd00:0:0:ffff::/64".into()));
        assert_eq!(part("fd00::/120", 128, 255), Some("fd00::ff/128".into()));
        assert_eq!(part("0.0.0.0/0", 16, 65_535), Some("255.255.0.0/16".into()));
    }
}
