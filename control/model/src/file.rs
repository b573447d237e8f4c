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

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::{Network, NetworkError, NetworkName, NetworkSpec, Subnet};

/// The largest networks file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// The networks by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(BTreeMap<NetworkName, Arc<Network>>);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSpec {
    #[serde(default)]
    networks: Vec<NetworkSpec>,
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
    /// Reads the YAML (or JSON) text of a networks file.
    ///
    /// # Errors
    /// The first thing that is not legal.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(FileError::TooLarge);
        }
        // An empty file is YAML's null: no networks.
        let file: Option<FileSpec> =
            serde_yaml_ng::from_str(text).map_err(|error| FileError::Shape(error.to_string()))?;
        Self::new(&file.map(|file| file.networks).unwrap_or_default())
    }

    /// Checks specs.
    ///
    /// # Errors
    /// The first thing that is not legal.
    pub fn new(specs: &[NetworkSpec]) -> Result<Self, FileError> {
        let mut networks = BTreeMap::new();
        for spec in specs {
            let network = Network::new(spec)?;
            let name = network.name().clone();
            if networks.insert(name.clone(), Arc::new(network)).is_some() {
                return Err(FileError::Duplicate(name));
            }
        }
        check_routers(&networks)?;
        Ok(Self(networks))
    }

    /// The network of that name.
    pub fn get(&self, name: &NetworkName) -> Option<&Arc<Network>> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.0.values()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &NetworkName> {
        self.0.keys()
    }
}

/// Packets of a router have one way each: no address is of two of its networks.
fn check_routers(networks: &BTreeMap<NetworkName, Arc<Network>>) -> Result<(), FileError> {
    let mut seen: BTreeMap<&NetworkName, Vec<(&NetworkName, IpNet)>> = BTreeMap::new();
    for (name, network) in networks {
        let Some(router) = network.router() else { continue };
        let others = seen.entry(router).or_default();
        for subnet in network.subnets().iter().map(Subnet::net) {
            let overlaps =
                |(_, other): &&(&NetworkName, IpNet)| other.contains(&subnet) || subnet.contains(other);
            if let Some((rival, other)) = others.iter().find(overlaps) {
                let (network, rival, router) = (name.clone(), (*rival).clone(), router.clone());
                return Err(FileError::Overlap { network, subnet, rival, other: *other, router });
            }
        }
        others.extend(network.subnets().iter().map(|subnet| (name, subnet.net())));
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
