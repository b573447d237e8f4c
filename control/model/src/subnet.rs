//! Which addresses of a subnet may pods have?

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A subnet as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SubnetSpec {
    /// In CIDR notation, without host bits: `10.1.0.0/24`.
    pub subnet: IpNet,
    /// The ranges that addresses are taken from, `FIRST-LAST` each; none: all of the subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<String>,
    /// The router's address: never given to a pod, and the next hop of routes that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Addresses and subnets that no pod may have: `10.1.0.53` or `10.1.0.64/28`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Each node has a part of this prefix length, by its number: for networks of several nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_prefix: Option<u8>,
}

/// Why a spec is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Bits are set behind the prefix: perhaps the gateway's address was meant.
    #[error("subnet: {0} has bits set behind its prefix: write {network}", network = .0.trunc())]
    HostBits(IpNet),
    /// Loopback, multicast and the like.
    #[error("subnet: {0} cannot be used by pods: choose a unicast subnet")]
    NotUnicast(IpNet),
    /// A range or exclusion that cannot be read.
    #[error("{field}: {text:?} cannot be read: write {expected}")]
    Unreadable {
        /// `ranges` or `exclude`.
        field: &'static str,
        /// What was written.
        text: String,
        /// The form that is expected.
        expected: &'static str,
    },
    /// The last address lies before the first.
    #[error("ranges: {0} ends before it begins: exchange the two addresses")]
    Backwards(String),
    /// A range, exclusion or gateway that is not in the subnet.
    #[error("{field}: {text} is not in {subnet}: choose addresses of the subnet")]
    Outside {
        /// The field.
        field: &'static str,
        /// The address or range.
        text: String,
        /// The subnet.
        subnet: IpNet,
    },
    /// The subnet's own address, or its broadcast address.
    #[error("gateway: {0} is the subnet's own or its broadcast address: choose another")]
    NotAHost(IpAddr),
}

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
}

impl AddressRange {
    /// True if the address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last && self.first.is_ipv4() == address.is_ipv4()
    }

    /// How many there are; saturates.
    pub fn count(&self) -> u128 {
        number(self.last).saturating_sub(number(self.first)).saturating_add(1)
    }
}

/// A subnet that pods get addresses of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    net: IpNet,
    ranges: Vec<AddressRange>,
    gateway: Option<IpAddr>,
    /// The node's own.
    host: Option<IpAddr>,
    exclude: Vec<IpNet>,
}

impl Subnet {
    /// Checks a spec.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn new(spec: &SubnetSpec) -> Result<Self, SubnetError> {
        let net = spec.subnet;
        if net != net.trunc() {
            return Err(SubnetError::HostBits(net));
        }
        let address = net.addr();
        if address.is_multicast() || address.is_loopback() || is_link_local(address) {
            return Err(SubnetError::NotUnicast(net));
        }
        let usable = usable(net);
        if let Some(gateway) = spec.gateway {
            require("gateway", net, gateway)?;
            if !usable.contains(gateway) {
                return Err(SubnetError::NotAHost(gateway));
            }
        }
        let mut ranges =
            spec.ranges.iter().map(|text| parse_range(text, usable, net)).collect::<Result<Vec<_>, _>>()?;
        if ranges.is_empty() {
            ranges.push(usable);
        }
        let exclude = spec.exclude.iter().map(|text| parse_exclusion(text, net)).collect::<Result<_, _>>()?;
        Ok(Self { net, ranges, gateway: spec.gateway, host: None, exclude })
    }

    /// The subnet.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The router's address.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// Keeps the first address that pods could have for the node. False if there is none.
    pub(crate) fn reserve_host(&mut self) -> bool {
        self.host = self.ranges.iter().find_map(|range| {
            let mut candidate = range.first;
            while let Some(end) = self.forbidden(candidate) {
                candidate = successor(end)?;
            }
            range.contains(candidate).then_some(candidate)
        });
        self.host.is_some()
    }

    /// The address of the node itself, if it is on the network.
    pub fn host(&self) -> Option<IpAddr> {
        self.host
    }

    /// What addresses are taken from, in this order. Holds addresses that [`Subnet::forbidden`] skips.
    pub fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// True if a pod may have the address when it asks for it: any host of the subnet, in a range or not, but for the
    /// gateway and what is excluded.
    pub fn allows(&self, address: IpAddr) -> bool {
        usable(self.net).contains(address) && self.forbidden(address).is_none()
    }

    /// The last address of the block around `address` that no pod may have, or `None` if a pod may have it.
    pub fn forbidden(&self, address: IpAddr) -> Option<IpAddr> {
        let excluded = self.exclude.iter().filter(|net| net.contains(&address)).map(IpNet::broadcast);
        let taken = [self.gateway, self.host].into_iter().flatten().filter(|taken| *taken == address);
        excluded.chain(taken).max()
    }

    /// How many addresses the ranges have, before exclusions; saturates.
    pub fn count(&self) -> u128 {
        self.ranges.iter().fold(0u128, |sum, range| sum.saturating_add(range.count()))
    }
}

/// The addresses of a subnet that hosts may have: IPv4 without network and broadcast address (RFC 3021 lets a /31 have
/// both), IPv6 without the subnet-router anycast address (RFC 4291 §2.6.1; RFC 6164 lets a /127 have both).
pub(crate) fn usable(net: IpNet) -> AddressRange {
    let (mut first, mut last) = (net.network(), net.broadcast());
    let host_bits = net.max_prefix_len() - net.prefix_len();
    if host_bits > 1 {
        first = from_number(number(first) + 1, first);
        if net.addr().is_ipv4() {
            last = from_number(number(last) - 1, last);
        }
    }
    AddressRange { first, last }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn require(field: &'static str, subnet: IpNet, address: IpAddr) -> Result<(), SubnetError> {
    if subnet.contains(&address) {
        return Ok(());
    }
    Err(SubnetError::Outside { field, text: address.to_string(), subnet })
}

fn parse_range(text: &str, usable: AddressRange, subnet: IpNet) -> Result<AddressRange, SubnetError> {
    let unreadable = || SubnetError::Unreadable {
        field: "ranges",
        text: text.to_owned(),
        expected: "FIRST-LAST, as in 10.1.0.10-10.1.0.99",
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |part: &str| IpAddr::from_str(part.trim()).map_err(|_| unreadable());
    let range = AddressRange { first: parse(first)?, last: parse(last)? };
    if !usable.contains(range.first) || !usable.contains(range.last) {
        return Err(SubnetError::Outside { field: "ranges", text: text.to_owned(), subnet });
    }
    if range.last < range.first {
        return Err(SubnetError::Backwards(text.to_owned()));
    }
    Ok(range)
}

fn parse_exclusion(text: &str, subnet: IpNet) -> Result<IpNet, SubnetError> {
    let net = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
    let net = net.map_err(|_| SubnetError::Unreadable {
        field: "exclude",
        text: text.to_owned(),
        expected: "an address or a subnet, as in 10.1.0.53 or 10.1.0.64/28",
    })?;
    if !subnet.contains(&net) {
        return Err(SubnetError::Outside { field: "exclude", text: text.to_owned(), subnet });
    }
    Ok(net.trunc())
}

/// The address behind this one; `None` behind the family's last.
pub fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

/// An address as a number of its family.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address with that number, of the family of `like`.
fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(subnet: &str) -> SubnetSpec {
        SubnetSpec {
            subnet: subnet.parse().unwrap(),
            ranges: vec![],
            gateway: None,
            exclude: vec![],
            node_prefix: None,
        }
    }

    fn range(subnet: &str) -> (String, String) {
        let range = Subnet::new(&spec(subnet)).unwrap().ranges()[0];
        (range.first.to_string(), range.last.to_string())
    }

    #[test]
    fn range_when_not_given_is_all_hosts() {
        assert_eq!(range("10.1.0.0/24"), ("10.1.0.1".into(), "10.1.0.254".into()));
        assert_eq!(range("10.1.0.2/31"), ("10.1.0.2".into(), "10.1.0.3".into()));
        assert_eq!(range("10.1.0.2/32"), ("10.1.0.2".into(), "10.1.0.2".into()));
        assert_eq!(range("fd00::/126"), ("fd00::1".into(), "fd00::3".into()));
        assert_eq!(range("fd00::/127"), ("fd00::".into(), "fd00::1".into()));
        assert_eq!(range("fd00::/64").1, "fd00::ffff:ffff:ffff:ffff");
    }

    #[test]
    fn subnet_when_not_for_pods_is_refused_with_remedy() {
        assert_eq!(
            Subnet::new(&spec("10.1.0.1/24")).unwrap_err().to_string(),
            "subnet: 10.1.0.1/24 has bits set behind its prefix: write 10.1.0.0/24"
        );
        for net in ["127.0.0.0/8", "224.0.0.0/8", "fe80::/64", "ff02::/16", "169.254.0.0/16"] {
            assert!(matches!(Subnet::new(&spec(net)), Err(SubnetError::NotUnicast(_))), "{net}");
        }
    }

    #[test]
    fn range_when_wrong_is_refused_by_reason() {
        let with = |text: &str| Subnet::new(&SubnetSpec { ranges: vec![text.into()], ..spec("10.1.0.0/24") });
        assert!(with("10.1.0.10-10.1.0.20").is_ok());
        assert!(with("10.1.0.10 - 10.1.0.20").is_ok());
        assert!(with("10.1.0.10").is_ok());
        assert!(matches!(with("10.1.0.20-10.1.0.10"), Err(SubnetError::Backwards(_))));
        assert!(matches!(with("10.1.0.10-10.1.1.10"), Err(SubnetError::Outside { .. })));
        assert!(matches!(with("10.1.0.0-10.1.0.9"), Err(SubnetError::Outside { .. })));
        assert!(matches!(with("fd00::1-fd00::2"), Err(SubnetError::Outside { .. })));
        assert!(matches!(with("ten"), Err(SubnetError::Unreadable { .. })));
    }

    #[test]
    fn gateway_when_not_a_host_of_the_subnet_is_refused() {
        let with = |text: &str| {
            Subnet::new(&SubnetSpec { gateway: Some(text.parse().unwrap()), ..spec("10.1.0.0/24") })
        };
        assert!(with("10.1.0.1").is_ok());
        assert!(matches!(with("10.2.0.1"), Err(SubnetError::Outside { field: "gateway", .. })));
        assert!(matches!(with("10.1.0.255"), Err(SubnetError::NotAHost(_))));
        assert!(matches!(with("fd00::1"), Err(SubnetError::Outside { .. })));
    }

    #[test]
    fn forbidden_when_excluded_says_where_the_block_ends() {
        let mut spec = SubnetSpec { gateway: Some("10.1.0.1".parse().unwrap()), ..spec("10.1.0.0/24") };
        spec.exclude = vec!["10.1.0.64/28".into(), "10.1.0.200".into()];
        let subnet = Subnet::new(&spec).unwrap();
        let forbidden = |text: &str| subnet.forbidden(text.parse().unwrap()).map(|last| last.to_string());
        assert_eq!(forbidden("10.1.0.66"), Some("10.1.0.79".into()));
        assert_eq!(forbidden("10.1.0.200"), Some("10.1.0.200".into()));
        assert_eq!(forbidden("10.1.0.1"), Some("10.1.0.1".into()));
        assert_eq!(forbidden("10.1.0.2"), None);
        assert!(subnet.allows("10.1.0.2".parse().unwrap()));
        assert!(!subnet.allows("10.1.0.255".parse().unwrap()));
    }
}
