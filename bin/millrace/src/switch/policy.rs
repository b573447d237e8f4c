//! How do policies and identities in the words of the socket become the datapath's?

use local_api::switch_v1 as api;
use vswitch::program::{
    IdentityNo, IdentitySpec, NetworkNo, PolicyNo, PolicySpec, PortRangeSpec, Prefix, RouterNo, RuleAction,
    RuleSpec, Scope, TierSpec,
};
use wire::IpProtocol;

use super::convert::prefix;

/// A policy.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn policy(policy: &api::Policy) -> Result<PolicySpec, String> {
    if policy.number == 0 {
        return Err(format!("policy {:?} has number 0, which stands for none", policy.name));
    }
    let tiers = |tiers: &[api::Tier]| tiers.iter().map(tier).collect::<Result<_, String>>();
    let in_policy = |error| format!("policy {:?}: {error}", policy.name);
    Ok(PolicySpec {
        number: PolicyNo(policy.number),
        name: policy.name.clone(),
        egress: tiers(&policy.egress).map_err(in_policy)?,
        ingress: tiers(&policy.ingress).map_err(in_policy)?,
    })
}

fn tier(tier: &api::Tier) -> Result<TierSpec, String> {
    let rules = tier.rules.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(TierSpec { rules, isolated_by: Some(tier.isolated_by.clone()).filter(|name| !name.is_empty()) })
}

fn rule(rule: &api::Rule) -> Result<RuleSpec, String> {
    let peers = rule.peers.as_ref().map(|peers| peers.identities.iter().copied().map(IdentityNo).collect());
    let ports = rule.ports.as_ref().map(|ports| ports.ranges.iter().map(range).collect());
    let action = match rule.action() {
        api::RuleAction::Allow => RuleAction::Allow,
        api::RuleAction::Deny => RuleAction::Deny,
        api::RuleAction::Pass => RuleAction::Pass,
        api::RuleAction::Unspecified => {
            return Err(format!("rule {:?} says none of allow, deny and pass", rule.name));
        }
    };
    Ok(RuleSpec { name: rule.name.clone(), peers, ports: ports.transpose()?, action })
}

fn range(range: &api::PortRange) -> Result<PortRangeSpec, String> {
    let protocol = u8::try_from(range.protocol).map_err(|_| format!("{} is no protocol", range.protocol))?;
    let port = |port: u32| u16::try_from(port).map_err(|_| format!("{port} is no port"));
    let (first, last) = (port(range.first)?, port(range.last)?);
    if first > last {
        return Err(format!("ports {first} to {last} are none"));
    }
    Ok(PortRangeSpec { protocol: IpProtocol(protocol), ports: first..=last })
}

/// Who is who.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn identity(identity: &api::Identity) -> Result<IdentitySpec, String> {
    let (scope, addresses) = place(identity)?;
    Ok(IdentitySpec { scope, addresses, identity: IdentityNo(identity.identity) })
}

/// The addresses that an identity is of.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn place(identity: &api::Identity) -> Result<(Scope, Prefix), String> {
    let scope = match identity.scope {
        Some(api::identity::Scope::Network(number)) => Scope::Network(NetworkNo(number)),
        Some(api::identity::Scope::Router(number)) => Scope::Router(RouterNo(number)),
        None => return Err(format!("the identity of {:?} is in no network", identity.addresses)),
    };
    Ok((scope, prefix(&identity.addresses)?))
}
