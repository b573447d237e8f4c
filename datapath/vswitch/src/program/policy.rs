//! Who may talk to whom? Policies as control computes them: rules in tiers, about identities.
//!
//! An *identity* stands for all addresses that the same selectors match: rules name identities, and addresses have one each. A
//! pod that comes or goes changes its address's entry; a rule changes only when somebody writes another.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use wire::IpProtocol;

use super::router::Prefixes;
use super::shared::Map;
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
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) egress: Side,
    pub(crate) ingress: Side,
}

/// All policies, and who is who. A copy costs nothing, and a change what it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    by_number: Map<PolicyNo, Arc<Policy>>,
    identities: Map<Scope, Prefixes<IdentityNo>>,
}

impl Policies {
    /// These policies and identities.
    ///
    /// # Errors
    /// As [`Policies::put_identity`].
    pub fn new(
        policies: impl IntoIterator<Item = PolicySpec>,
        identities: impl IntoIterator<Item = IdentitySpec>,
    ) -> Result<Self, ProgramError> {
        let mut all = Self::default();
        policies.into_iter().for_each(|policy| all.put(&policy));
        identities.into_iter().try_for_each(|identity| all.put_identity(&identity))?;
        Ok(all)
    }

    /// Adds a policy, in the place of the one that has its number.
    pub fn put(&mut self, spec: &PolicySpec) {
        let [egress, ingress] = [&spec.egress, &spec.ingress].map(|tiers| Side::new(tiers));
        let policy = Policy { name: spec.name.clone(), egress, ingress };
        self.by_number.insert_mut(spec.number, Arc::new(policy));
    }

    /// Removes the policy of this number, if there is one.
    pub fn remove(&mut self, number: PolicyNo) {
        self.by_number.remove_mut(&number);
    }

    /// Says who has addresses, whoever had them before.
    ///
    /// # Errors
    /// They are no prefix.
    pub fn put_identity(&mut self, spec: &IdentitySpec) -> Result<(), ProgramError> {
        let IdentitySpec { scope, addresses, identity } = *spec;
        if !addresses.is_sound() {
            return Err(ProgramError::Identity { addresses });
        }
        if !self.identities.contains_key(&scope) {
            self.identities.insert_mut(scope, Prefixes::default());
        }
        if let Some(of_scope) = self.identities.get_mut(&scope) {
            of_scope.add(addresses, identity);
        }
        Ok(())
    }

    /// Nobody has these addresses any more.
    pub fn remove_identity(&mut self, scope: Scope, addresses: Prefix) {
        let Some(of_scope) = self.identities.get_mut(&scope) else { return };
        of_scope.remove(addresses);
        if of_scope.is_empty() {
            self.identities.remove_mut(&scope);
        }
    }

    /// Whose `address` is in `scope`.
    pub(crate) fn identity(&self, scope: Scope, address: IpAddr) -> Option<IdentityNo> {
        self.identities.get(&scope)?.longest(address).copied()
    }

    pub(crate) fn get(&self, number: PolicyNo) -> Option<&Policy> {
        self.by_number.get(&number).map(|policy| &**policy)
    }
}

/// Checks that the policies of ports exist.
pub(super) fn check(spec: &ProgramSpec) -> Result<(), ProgramError> {
    let is_known = |policy: &Option<PolicyNo>| policy.is_none_or(|it| spec.policies.get(it).is_some());
    match spec.ports.values().find(|port| !is_known(&port.policy)) {
        Some(port) => Err(ProgramError::UnknownPolicy { port: port.name.clone() }),
        None => Ok(()),
    }
}

impl Program {
    /// All policies, and who is who.
    pub(crate) fn policies(&self) -> &Policies {
        &self.spec.policies
    }
}
