//! Who may talk to whom? Policies as control computes them: rules in tiers, about identities.
//!
//! An *identity* stands for all addresses that the same selectors match: rules name identities, and addresses have one each. A
//! pod that comes or goes changes its address's entry; a rule changes only when somebody writes another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use wire::IpProtocol;

use super::router::Prefixes;
use super::{NetworkNo, Prefix, Program, ProgramError, ProgramSpec, RouterNo};
use crate::policy::Side;

/// An identity's number: assigned by control, the same on no two nodes necessarily.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct IdentityNo(pub u32);

/// A policy's number: assigned by control, stable while the policy lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PolicyNo(pub u32);

/// Where addresses mean one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// A network that no router joins to others.
    Network(NetworkNo),
    /// A router, with all its networks.
    Router(RouterNo),
}

/// Who has an identity in a scope. The longest prefix that has an address counts; an address without one matches only
/// rules about everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySpec {
    /// Where.
    pub scope: Scope,
    /// The addresses.
    pub addresses: Prefix,
    /// Their identity.
    pub identity: IdentityNo,
}

/// What the ports of a group of pods, all selected by the same objects, may send and be sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySpec {
    /// Its number.
    pub number: PolicyNo,
    /// Its name, for people.
    pub name: String,
    /// About connections that begin behind the port.
    pub egress: Vec<TierSpec>,
    /// About connections to what is behind the port.
    pub ingress: Vec<TierSpec>,
}

/// Rules, of which the first that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TierSpec {
    /// In order.
    pub rules: Vec<RuleSpec>,
    /// Where none matches: who denies, for people; none: the next tier decides, and behind the last everything is allowed.
    pub isolated_by: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSpec {
    /// Whose it is, for people: kind, namespace and name of the object, and which rule of it.
    pub name: String,
    /// About whom; none: about everybody.
    pub peers: Option<Vec<IdentityNo>>,
    /// About which destination ports; none: about all, and protocols without ports too.
    pub ports: Option<Vec<PortRangeSpec>>,
    /// What it says.
    pub action: RuleAction,
}

/// Destination ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRangeSpec {
    /// The protocol.
    pub protocol: IpProtocol,
    /// The ports.
    pub ports: RangeInclusive<u16>,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// The connection may be.
    Allow,
    /// It may not.
    Deny,
    /// The next tier decides.
    Pass,
}

/// A policy, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) egress: Side,
    pub(crate) ingress: Side,
}

/// All policies, and who is who.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    by_number: BTreeMap<PolicyNo, Policy>,
    identities: BTreeMap<Scope, Prefixes<IdentityNo>>,
}

impl Policies {
    /// Whose `address` is in `scope`.
    pub(crate) fn identity(&self, scope: Scope, address: IpAddr) -> Option<IdentityNo> {
        self.identities.get(&scope)?.longest(address).copied()
    }

    pub(crate) fn get(&self, number: PolicyNo) -> Option<&Policy> {
        self.by_number.get(&number)
    }
}

/// Checks the policies of `spec` and derives their lookups.
pub(super) fn build(spec: &ProgramSpec) -> Result<Policies, ProgramError> {
    let mut built = Policies::default();
    for (filed, policy) in &spec.policies {
        if *filed != policy.number {
            let (own, filed) = (policy.number.0, filed.0);
            return Err(ProgramError::Misfiled { object: policy.name.clone(), own, filed });
        }
        let [egress, ingress] = [&policy.egress, &policy.ingress].map(|tiers| Side::new(tiers));
        built.by_number.insert(policy.number, Policy { name: policy.name.clone(), egress, ingress });
    }
    for IdentitySpec { scope, addresses, identity } in &spec.identities {
        if !addresses.is_sound() {
            return Err(ProgramError::Identity { addresses: *addresses });
        }
        built.identities.entry(*scope).or_default().add(*addresses, *identity);
    }
    let is_known =
        |policy: &Option<PolicyNo>| policy.is_none_or(|policy| built.by_number.contains_key(&policy));
    match spec.ports.values().find(|port| !is_known(&port.policy)) {
        Some(port) => Err(ProgramError::UnknownPolicy { port: port.name.clone() }),
        None => Ok(built),
    }
}

impl Program {
    /// All policies, and who is who.
    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }
}
