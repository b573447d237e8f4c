//! What does a rule of a policy say, of whichever kind the policy is? Whom it is about, which ports, and what becomes of them.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::object::{Checked, InvalidField};
use crate::pod::{check_port, check_port_name};
use crate::{LabelSelector, Protocol};

/// A rule. What holds for one of its peers and for one of its ports, it decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, if it has one.
    pub name: Option<Box<str>>,
    /// What it says.
    pub action: Action,
    /// Whom it is about; none: everybody.
    pub peers: Option<Vec<Peer>>,
    /// Which destination ports; none: all, and protocols without ports too.
    pub ports: Option<Vec<PortMatch>>,
}

/// What a rule says of what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Action {
    /// It may be.
    Accept,
    /// It may not.
    Deny,
    /// The next tier decides.
    Pass,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Pods.
    Pods(PodChoice),
    /// Whoever has the addresses, pods too.
    Block(Block),
}

/// A choice of pods.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodChoice {
    /// Of which namespaces.
    pub namespaces: NamespaceChoice,
    /// Which of their pods.
    pub pods: LabelSelector,
}

/// A choice of namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NamespaceChoice {
    /// This one.
    Named(Box<str>),
    /// All whose labels are chosen.
    Matching(LabelSelector),
}

/// Addresses, but for some of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The addresses.
    pub cidr: IpNet,
    /// Those of them that are not meant, sorted.
    pub except: Box<[IpNet]>,
}

impl Block {
    /// Checks addresses and exceptions.
    pub(crate) fn new(cidr: IpNet, except: &[IpNet]) -> Checked<Self> {
        let cidr = cidr.trunc();
        let mut nets: Vec<_> = except.iter().map(IpNet::trunc).collect();
        // The API's rule: the whole is no exception.
        if let Some(except) = nets.iter().find(|net| **net == cidr || !cidr.contains(*net)) {
            return Err(InvalidField::NotExcept { except: *except, cidr }.of("except"));
        }
        nets.sort_unstable();
        nets.dedup();
        Ok(Self { cidr, except: nets.into() })
    }

    /// True if all addresses of `net` are meant.
    pub fn contains(&self, net: &IpNet) -> bool {
        self.cidr.contains(net) && !self.except.iter().any(|except| except.contains(net))
    }
}

/// Destination ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortMatch {
    /// By number.
    Range {
        /// Of this protocol.
        protocol: Protocol,
        /// These.
        ports: Ports,
    },
    /// By the name that the destination pod gives its port.
    Named {
        /// Of this protocol; none: of any.
        protocol: Option<Protocol>,
        /// The name.
        name: Box<str>,
    },
}

/// First and last port, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, not before the first.
    pub last: u16,
}

impl Ports {
    /// All ports.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    pub(crate) fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Checks both ends.
    pub(crate) fn new(fields: [&'static str; 2], first: u32, last: u32) -> Checked<Self> {
        let range = Self { first: check_port(fields[0], first)?, last: check_port(fields[1], last)? };
        if range.last < range.first {
            return Err(InvalidField::Backwards { first, last }.of(fields[1]));
        }
        Ok(range)
    }
}

impl From<Ports> for RangeInclusive<u16> {
    fn from(range: Ports) -> Self {
        range.first..=range.last
    }
}

impl PortMatch {
    pub(crate) fn named(field: &'static str, protocol: Option<Protocol>, name: &str) -> Checked<Self> {
        check_port_name(field, name)?;
        Ok(Self::Named { protocol, name: name.into() })
    }
}
