//! How are policies, identities and services said to the switch?

use local_api::switch_v1 as proto;
use vswitch::program::{
    Affinity, EndpointSpec, FrontendSpec, IdentitySpec, PolicySpec, PortRangeSpec, Prefix, RuleAction,
    RuleSpec, Scope, ServiceSpec, TierSpec,
};

/// A policy.
pub(super) fn policy(spec: &PolicySpec) -> proto::Policy {
    let tiers = |tiers: &[TierSpec]| tiers.iter().map(tier).collect();
    proto::Policy {
        number: spec.number.0,
        name: spec.name.clone(),
        egress: tiers(&spec.egress),
        ingress: tiers(&spec.ingress),
    }
}

fn tier(spec: &TierSpec) -> proto::Tier {
    let isolated_by = spec.isolated_by.clone().unwrap_or_default();
    proto::Tier { rules: spec.rules.iter().map(rule).collect(), isolated_by }
}

fn rule(spec: &RuleSpec) -> proto::Rule {
    let range = |range: &PortRangeSpec| proto::PortRange {
        protocol: range.protocol.0.into(),
        first: (*range.ports.start()).into(),
        last: (*range.ports.end()).into(),
    };
    let action = match spec.action {
        RuleAction::Allow => proto::RuleAction::Allow,
        RuleAction::Deny => proto::RuleAction::Deny,
        RuleAction::Pass => proto::RuleAction::Pass,
    };
    let peers = spec.peers.as_ref();
    let ports = spec.ports.as_ref();
    proto::Rule {
        name: spec.name.clone(),
        peers: peers.map(|peers| proto::Peers { identities: peers.iter().map(|peer| peer.0).collect() }),
        ports: ports.map(|ports| proto::PortRanges { ranges: ports.iter().map(range).collect() }),
        action: action.into(),
    }
}

/// Who is who.
pub(super) fn identity(spec: &IdentitySpec) -> proto::Identity {
    proto::Identity { identity: spec.identity.0, ..place((spec.scope, spec.addresses)) }
}

/// A service.
pub(super) fn service(spec: &ServiceSpec) -> proto::Service {
    let scope = match spec.scope {
        Scope::Network(number) => proto::service::Scope::Network(number.0),
        Scope::Router(number) => proto::service::Scope::Router(number.0),
    };
    let frontend = |frontend: &FrontendSpec| proto::Frontend {
        address: frontend.address.to_string(),
        protocol: frontend.protocol.0.into(),
        port: frontend.port.into(),
    };
    let endpoint = |endpoint: &EndpointSpec| proto::Endpoint {
        address: endpoint.address.to_string(),
        port: endpoint.port.into(),
    };
    proto::Service {
        number: spec.number.0,
        name: spec.name.clone(),
        scope: Some(scope),
        frontends: spec.frontends.iter().map(frontend).collect(),
        endpoints: spec.endpoints.iter().map(endpoint).collect(),
        affinity_timeout_s: match spec.affinity {
            Affinity::None => 0,
            Affinity::ClientIp { timeout_s } => timeout_s,
        },
    }
}

/// The addresses of an identity.
pub(super) fn place((scope, addresses): (Scope, Prefix)) -> proto::Identity {
    let scope = match scope {
        Scope::Network(number) => proto::identity::Scope::Network(number.0),
        Scope::Router(number) => proto::identity::Scope::Router(number.0),
    };
    proto::Identity { scope: Some(scope), addresses: addresses.to_string(), identity: 0 }
}
