//! How do policies, identities and services in the words of the socket become the datapath's?

use local_api::switch_v1 as api;
use vswitch::program::{
    Affinity, EndpointSpec, FrontendSpec, IdentityNo, IdentitySpec, NetworkNo, PolicyNo, PolicySpec,
    PortRangeSpec, Prefix, RouterNo, RuleAction, RuleSpec, Scope, ServiceNo, ServiceSpec, TierSpec,
};
use wire::IpProtocol;

use super::convert::{parse, prefix};

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
    let (first, last) = (port(range.first)?, port(range.last)?);
    if first > last {
        return Err(format!("ports {first} to {last} are none"));
    }
    Ok(PortRangeSpec { protocol: protocol(range.protocol)?, ports: first..=last })
}

/// A service.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn service(service: &api::Service) -> Result<ServiceSpec, String> {
    let scope = match service.scope {
        Some(api::service::Scope::Network(number)) => Scope::Network(NetworkNo(number)),
        Some(api::service::Scope::Router(number)) => Scope::Router(RouterNo(number)),
        None => return Err(format!("service {:?} is in no network", service.name)),
    };
    let in_service = |error| format!("service {:?}: {error}", service.name);
    let affinity = match service.affinity_timeout_s {
        0 => Affinity::None,
        timeout_s => Affinity::ClientIp { timeout_s },
    };
    let frontends = service.frontends.iter().map(frontend).collect::<Result<_, String>>();
    let endpoints = service.endpoints.iter().map(endpoint).collect::<Result<_, String>>();
    Ok(ServiceSpec {
        number: ServiceNo(service.number),
        name: service.name.clone(),
        scope,
        frontends: frontends.map_err(in_service)?,
        endpoints: endpoints.map_err(in_service)?,
        affinity,
    })
}

fn frontend(frontend: &api::Frontend) -> Result<FrontendSpec, String> {
    let (address, port) = (parse("address", &frontend.address)?, port(frontend.port)?);
    Ok(FrontendSpec { address, protocol: protocol(frontend.protocol)?, port })
}

fn endpoint(endpoint: &api::Endpoint) -> Result<EndpointSpec, String> {
    Ok(EndpointSpec { address: parse("address", &endpoint.address)?, port: port(endpoint.port)? })
}

fn protocol(number: u32) -> Result<IpProtocol, String> {
    u8::try_from(number).map(IpProtocol).map_err(|_| format!("{number} is no protocol"))
}

fn port(number: u32) -> Result<u16, String> {
    u16::try_from(number).map_err(|_| format!("{number} is no port"))
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
