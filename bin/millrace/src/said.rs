//! How is a network said on the switch's socket? By the agent that asks for it, and by the switch that is asked.

use std::net::IpAddr;

use local_api::switch_v1 as proto;
use vswitch::program::{
    DhcpSpec, GatewaySpec, LocalnetSpec, NetworkSpec, OverlaySpec, Prefix, RouteSpec, Via,
};

/// The network, with its VLAN of the uplink if it is in one.
pub(crate) fn network(spec: &NetworkSpec, localnet: Option<&LocalnetSpec>) -> proto::Network {
    proto::Network {
        number: spec.number.0,
        name: spec.name.clone(),
        flood_unknown: spec.flood_unknown,
        mac_age_ms: spec.mac_age_ms,
        mac_limit: spec.mac_limit,
        gateway: spec.gateway.as_ref().map(gateway),
        overlay: spec.overlay.as_ref().map(overlay),
        dhcp: spec.dhcp.as_ref().map(dhcp),
        localnet: localnet.map(|it| proto::Localnet { vlan: it.vlan.get().into(), port: it.port.0.into() }),
    }
}

fn overlay(spec: &OverlaySpec) -> proto::Overlay {
    let &OverlaySpec { vni, port, floods, isolated } = spec;
    proto::Overlay { vni: vni.get(), port: port.0.into(), floods, isolated }
}

fn gateway(spec: &GatewaySpec) -> proto::Gateway {
    proto::Gateway {
        mac: spec.mac.to_string(),
        addresses: spec.addresses.iter().map(ToString::to_string).collect(),
        router: spec.router.0,
        routes: spec.routes.iter().map(route).collect(),
    }
}

fn dhcp(spec: &DhcpSpec) -> proto::Dhcp {
    let route = |(to, via): &(Prefix, IpAddr)| proto::DhcpRoute { to: to.to_string(), via: via.to_string() };
    proto::Dhcp {
        mac: spec.mac.to_string(),
        servers: spec.servers.iter().map(ToString::to_string).collect(),
        routes: spec.routes.iter().map(route).collect(),
        nameservers: spec.nameservers.iter().map(ToString::to_string).collect(),
        domain: spec.domain.clone().unwrap_or_default(),
        search: spec.search.clone(),
    }
}

fn route(spec: &RouteSpec) -> proto::Route {
    let via = match spec.via {
        Via::Node(node) => proto::route::Via::Node(node.0.into()),
        Via::Host => proto::route::Via::Host(true),
    };
    proto::Route { to: spec.to.to_string(), via: Some(via) }
}
