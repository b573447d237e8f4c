//! By what does the switch of the frames forward? Two networks of all kinds of ports, one in a VLAN of the uplink, and two that
//! are on other nodes, too: one of layer 2, and one that is routed, has services and policies, and is the node's own. What leaves
//! by the node is translated. Of these there are two versions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use vswitch::Program;
use vswitch::program::{
    Affinity, DhcpSpec, EndpointSpec, FrontendSpec, GatewaySpec, HostSpec, IdentityNo, IdentitySpec,
    LocalnetSpec, NetworkNo, NetworkSpec, NodeNo, NodeSpec, OverlaySpec, Policies, PolicyNo, PolicySpec,
    PortNo, PortRangeSpec, PortSpec, Prefix, ProgramSpec, RouteSpec, RouterNo, RuleAction, RuleSpec, Scope,
    ServiceNo, ServiceSpec, Services, TierSpec, UnderlaySpec, Via, VlanId, VlanMode, Vni,
};
use wire::{EtherType, IpProtocol, MacAddr, ethernet, ipv4, ipv6};

/// The port to other nodes.
pub(super) const UPLINK: PortNo = PortNo(6);
/// The networks that are on other nodes, too, and the uplink's own.
const FLAT: NetworkNo = NetworkNo(3);
const ROUTED: NetworkNo = NetworkNo(4);
const UPLINKS: NetworkNo = NetworkNo(9);
/// The one in a VLAN.
const TAGGED: NetworkNo = NetworkNo(5);
/// The node's port.
const HOST: PortNo = PortNo(13);
const SCOPE: Scope = Scope::Router(RouterNo(4));

/// The gateway of the network with services.
pub(super) const SERVICES_GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0xff, ROUTED.0 as u8]);

/// The first, and the one that changes it.
pub(super) static PROGRAMS: LazyLock<[Arc<Program>; 2]> = LazyLock::new(|| {
    #[allow(clippy::expect_used, reason = "the programs are constants")]
    [1, 2].map(|version| Program::build(spec(version)).expect("a valid program"))
});

/// The other node that an outer packet says it is from.
pub(super) fn node_of(head: &[u8]) -> Option<NodeNo> {
    let frame = ethernet::View::new(head).ok()?;
    let source: IpAddr = match frame.ether_type() {
        EtherType::IPV4 => ipv4::View::new(frame.payload()).ok()?.source().into(),
        EtherType::IPV6 => ipv6::View::new(frame.payload()).ok()?.source().into(),
        _ => return None,
    };
    nodes().into_values().find(|node| node.address == source).map(|node| node.number)
}

#[allow(clippy::expect_used, reason = "the programs are constants")]
fn spec(version: u64) -> ProgramSpec {
    let networks = [(1, true), (2, false)].map(|(number, flood_unknown)| NetworkSpec {
        gateway: Some(GatewaySpec {
            // One network of a router has the routes of all.
            routes: ways_out().into_iter().filter(|_| number == 1).collect(),
            ..gateway(number, RouterNo(1))
        }),
        dhcp: Some(dhcp(number)),
        flood_unknown,
        ..network(NetworkNo(number))
    });
    let mut all: BTreeMap<_, _> = networks.into_iter().map(|it| (it.number, it)).collect();
    for network in [flat(), routed(), network(TAGGED), network(UPLINKS)] {
        all.insert(network.number, network);
    }
    let ports = local_ports().into_iter().chain(ports_elsewhere());
    ProgramSpec {
        version,
        networks: all,
        ports: ports.map(|port| (port.number, port)).collect(),
        underlay: Some(UnderlaySpec { port: UPLINK, nodes: nodes() }),
        localnets: VlanId::new(70)
            .map(|vlan| (TAGGED, LocalnetSpec { vlan, port: PortNo(102) }))
            .into_iter()
            .collect(),
        host: Some(host()),
        policies: Policies::new(policies(version), identities(version)).expect("sound identities"),
        services: Services::new(services(version)).expect("sound services"),
    }
}

fn network(number: NetworkNo) -> NetworkSpec {
    NetworkSpec {
        number,
        name: format!("network-{}", number.0),
        flood_unknown: true,
        mac_age_ms: 30_000,
        mac_limit: 8,
        gateway: None,
        dhcp: None,
        overlay: None,
    }
}

/// Two routers leave by the node, with few ports.
fn host() -> HostSpec {
    let sources = |texts: [&str; 2]| texts.map(ip).to_vec();
    HostSpec {
        port: HOST,
        nat_ports: 61_000..=61_003,
        sources: [
            (RouterNo(1), sources(["192.0.2.50", "2001:db8::50"])),
            (RouterNo(4), sources(["192.0.2.1", "2001:db8::1"])),
        ]
        .into(),
        elsewhere: sources(["192.0.2.1", "2001:db8::1"]),
    }
}

/// To all that no network has.
fn ways_out() -> [RouteSpec; 2] {
    ["0.0.0.0", "::"].map(|address| RouteSpec { to: prefix(address, 0), via: Via::Host })
}

fn flat() -> NetworkSpec {
    let overlay =
        Vni::new(300).map(|vni| OverlaySpec { vni, port: PortNo(100), floods: true, isolated: false });
    NetworkSpec { overlay, ..network(FLAT) }
}

fn routed() -> NetworkSpec {
    let overlay =
        Vni::new(400).map(|vni| OverlaySpec { vni, port: PortNo(101), floods: false, isolated: false });
    let routes = [("10.4.2.0", 24, 2), ("fd04:2::", 64, 2), ("10.4.3.0", 24, 3)];
    let routes = routes
        .map(|(address, len, node)| RouteSpec { to: prefix(address, len), via: Via::Node(NodeNo(node)) });
    let routes = routes.into_iter().chain(ways_out()).collect();
    let gateway = GatewaySpec { routes, ..gateway(4, RouterNo(4)) };
    NetworkSpec { gateway: Some(gateway), overlay, flood_unknown: false, ..network(ROUTED) }
}

/// Of a router's networks, with the addresses that the frames of the corpus are for.
fn gateway(network: u32, router: RouterNo) -> GatewaySpec {
    let network = network as u8;
    let prefixes = [
        (IpAddr::from([10, 0, network, 1]), 24),
        (IpAddr::from([0xfd00, network.into(), 0, 0, 0, 0, 0, 1]), 64),
    ];
    GatewaySpec {
        mac: MacAddr([2, 0, 0, 0, 0xff, network]),
        addresses: prefixes.map(|(address, len)| Prefix { address, len }).into(),
        router,
        routes: Vec::new(),
    }
}

/// For the addresses that ports list, whose subnet no gateway is of.
fn dhcp(network: u32) -> DhcpSpec {
    let gateway = gateway(network, RouterNo(1));
    let default = |prefix: &Prefix| {
        let all = match prefix.address {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        (Prefix { address: all, len: 0 }, prefix.address)
    };
    DhcpSpec {
        mac: gateway.mac,
        servers: vec![Prefix { address: [10, 0, 0, 254].into(), len: 24 }],
        routes: gateway.addresses.iter().map(default).collect(),
        nameservers: vec![[10, 0, 0, 53].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 0x53].into()],
        domain: None,
        search: vec!["example.org".to_owned()],
    }
}

/// Of two nodes one is reached over IPv4, the other over IPv6; of a third the station is not known.
fn nodes() -> BTreeMap<NodeNo, NodeSpec> {
    let mac = |node: u16| MacAddr([2, 0xaa, 0, 0, 0, node as u8]);
    let node = |(number, address, source): (u16, &str, &str)| NodeSpec {
        number: NodeNo(number),
        name: format!("node-{number}"),
        address: ip(address),
        source: ip(source),
        source_mac: mac(1),
        next_hop: (number < 4).then(|| mac(number)),
        mtu_bytes: 1500,
    };
    let nodes =
        [(2, "192.0.2.2", "192.0.2.1"), (3, "2001:db8::3", "2001:db8::1"), (4, "192.0.2.4", "192.0.2.1")];
    nodes.into_iter().map(|it| (NodeNo(it.0), node(it))).collect()
}

fn port(number: u16, network: NetworkNo) -> PortSpec {
    PortSpec {
        number: PortNo(number),
        name: format!("port-{number}"),
        network,
        vlan: VlanMode::Access(None),
        macs: vec![MacAddr([2, 0, 0, 0, 0, number as u8])],
        ips: vec![IpAddr::from([10, 0, 0, number as u8]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number])],
        port_security: number.is_multiple_of(2),
        mac_limit: 4,
        isolated: number == 1 || number == 4,
        mtu_bytes: 1500,
        policy: None,
    }
}

/// Those of the two networks that are on this node alone.
fn local_ports() -> Vec<PortSpec> {
    let vlan = |id| VlanId::new(id);
    let modes = [
        VlanMode::Access(None),
        VlanMode::Access(vlan(7)),
        VlanMode::Trunk { allowed: vec![], native: None },
        VlanMode::Trunk { allowed: vlan(7).into_iter().chain(vlan(8)).collect(), native: vlan(7) },
        VlanMode::Access(None),
        VlanMode::Access(None),
    ];
    let ports = modes.into_iter().zip(0..);
    ports
        .map(|(vlan, number)| PortSpec { vlan, ..port(number, NetworkNo(1 + u32::from(number == 5))) })
        .collect()
}

/// The uplink, and those of the networks that are beyond it, too: two of layer 2, one of the VLAN, and of the routed network a
/// client and two endpoints, of which one has no policy, and the node.
fn ports_elsewhere() -> Vec<PortSpec> {
    let flat = [8, 12].map(|number| PortSpec { port_security: false, isolated: true, ..port(number, FLAT) });
    let pod = |number: u16, policy| PortSpec {
        ips: vec![ip(&format!("10.0.4.{number}")), ip(&format!("fd00:4::{number}"))],
        policy,
        port_security: PortNo(number) != HOST && number.is_multiple_of(2),
        ..port(number, ROUTED)
    };
    let pods = [(9, Some(PolicyNo(1))), (10, Some(PolicyNo(2))), (11, None), (HOST.0, None)];
    let tagged = PortSpec { port_security: false, ..port(14, TAGGED) };
    let uplink = PortSpec { macs: vec![], ips: vec![], port_security: false, ..port(UPLINK.0, UPLINKS) };
    [uplink, tagged].into_iter().chain(flat).chain(pods.map(|(number, policy)| pod(number, policy))).collect()
}

/// What clients may send, and who may connect to an endpoint: other ports in the second version.
fn policies(version: u64) -> [PolicySpec; 2] {
    let port = 8080 + version as u16 - 1;
    let rule = |ports, action| RuleSpec {
        name: format!("rule of version {version}"),
        peers: Some(vec![IdentityNo(1), IdentityNo(2)]),
        ports: Some(vec![PortRangeSpec { protocol: IpProtocol::UDP, ports }]),
        action,
    };
    let tiers = |port: u16| {
        let admin = TierSpec {
            rules: vec![rule(0..=79, RuleAction::Deny), rule(port..=port, RuleAction::Pass)],
            isolated_by: None,
        };
        let own = TierSpec {
            rules: vec![
                rule(80..=9000, RuleAction::Allow),
                RuleSpec { ports: None, ..rule(0..=0, RuleAction::Allow) },
            ],
            isolated_by: Some("somebody".into()),
        };
        vec![admin, own]
    };
    let policy = |number, egress, ingress| PolicySpec {
        number: PolicyNo(number),
        name: format!("policy-{number}"),
        egress,
        ingress,
    };
    [policy(1, tiers(port), tiers(port)), policy(2, Vec::new(), tiers(port))]
}

fn identities(version: u64) -> Vec<IdentitySpec> {
    let identity =
        |addresses, identity| IdentitySpec { scope: SCOPE, addresses, identity: IdentityNo(identity) };
    let mut all = vec![
        identity(prefix("10.0.4.0", 24), 1),
        identity(prefix("fd00:4::", 64), 1),
        identity(prefix("10.0.4.11", 32), 3),
    ];
    if version == 1 {
        all.push(identity(prefix("0.0.0.0", 0), 2));
    }
    all
}

/// One with an endpoint here and one elsewhere, of which the first goes in the second version; one that keeps its clients
/// together; one that nobody serves.
fn services(version: u64) -> Vec<ServiceSpec> {
    let service = |number, address: &str, port, endpoints: &[&str], affinity| ServiceSpec {
        number: ServiceNo(number),
        name: format!("service-{number}"),
        scope: SCOPE,
        frontends: [IpProtocol::TCP, IpProtocol::UDP, IpProtocol::SCTP]
            .map(|protocol| FrontendSpec { address: ip(address), protocol, port })
            .into(),
        endpoints: endpoints.iter().map(|text| EndpointSpec { address: ip(text), port: 8080 }).collect(),
        affinity,
    };
    let [v4, v6] = [&["10.0.4.10", "10.0.4.9", "10.4.2.2"], &["fd00:4::10", "fd00:4::11", "fd04:2::2"]];
    let first = version as usize - 1;
    vec![
        service(1, "172.30.0.10", 80, &v4[first..], Affinity::None),
        service(2, "fd30::10", 80, &v6[first..], Affinity::ClientIp { timeout_s: 10_800 }),
        service(3, "172.30.0.10", 81, &[], Affinity::None),
    ]
}

fn ip(text: &str) -> IpAddr {
    #[allow(clippy::expect_used, reason = "the addresses are constants")]
    text.parse().expect("an address")
}

fn prefix(text: &str, len: u8) -> Prefix {
    Prefix { address: ip(text), len }
}
