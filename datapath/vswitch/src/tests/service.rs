//! Addresses that stand for several: who serves, what comes back, and what nobody serves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use frame::{Checksum, DropReason, Offload};
use proptest::prelude::*;
use wire::build::{self, Path};
use wire::checksum::{pseudo_v4, pseudo_v6};
use wire::tcp::Flags;
use wire::{IpProtocol, MacAddr, icmpv4, icmpv6, ipv4, ipv6, udp};

use super::{Bed, Fate, NETWORK, port, segment, spec, station};
use crate::program::{
    Affinity, EndpointSpec, FrontendSpec, GatewaySpec, IdentityNo, IdentitySpec, Policies, PolicyNo,
    PolicySpec, PortNo, PortRangeSpec, PortSpec, Prefix, ProgramError, ProgramSpec, RouterNo, RuleAction,
    RuleSpec, Scope, ServiceNo, ServiceSpec, Services, TierSpec,
};
use crate::{Entrance, Now, Program};

const GATEWAY: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
const SCOPE: Scope = Scope::Router(RouterNo(1));

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Station NUMBER's address.
fn address(number: u8, is_v4: bool) -> IpAddr {
    if is_v4 { [10, 0, 0, number].into() } else { ip(&format!("fd00::{number}")) }
}

fn vip(is_v4: bool) -> IpAddr {
    ip(if is_v4 { "172.30.0.10" } else { "fd00:30::10" })
}

/// Service "shop/web" at 172.30.0.10 port 80 and "shop/web6" at fd00:30::10, of which stations 4, 5 and 6 serve at port 8080; and
/// "shop/idle" at port 81, which nobody serves. Stations 1 and 2 are clients.
fn world() -> ProgramSpec {
    let host = |number: u16| PortSpec {
        macs: vec![station(number as u8)],
        ips: vec![address(number as u8, true), address(number as u8, false)],
        port_security: true,
        ..port(number)
    };
    let mut spec = spec([1, 2, 4, 5, 6].map(host));
    let prefix = |text, len| Prefix { address: ip(text), len };
    spec.networks.get_mut(&NETWORK).unwrap().gateway = Some(GatewaySpec {
        mac: GATEWAY,
        addresses: vec![prefix("10.0.0.254", 24), prefix("fd00::fe", 64)],
        router: RouterNo(1),
        routes: Vec::new(),
    });
    let service = |number, name: &str, is_v4, port, endpoints: &[u8]| ServiceSpec {
        number: ServiceNo(number),
        name: name.into(),
        scope: SCOPE,
        frontends: [IpProtocol::TCP, IpProtocol::UDP]
            .map(|protocol| FrontendSpec { address: vip(is_v4), protocol, port })
            .into(),
        endpoints: endpoints
            .iter()
            .map(|number| EndpointSpec { address: address(*number, is_v4), port: 8080 })
            .collect(),
        affinity: Affinity::None,
    };
    let services = [
        service(1, "shop/web", true, 80, &[4, 5, 6]),
        service(2, "shop/web6", false, 80, &[4, 5, 6]),
        service(3, "shop/idle", true, 81, &[]),
    ];
    spec.services = Services::new(services).unwrap();
    spec
}

/// Changes service `number` of `world`.
fn change(
    world: &mut ProgramSpec,
    number: u32,
    change: impl FnOnce(&mut ServiceSpec),
) -> Result<(), ProgramError> {
    let mut service = world.services.get(ServiceNo(number)).unwrap().clone();
    change(&mut service);
    world.services.put(service)
}

fn bed() -> Bed {
    Bed::new(Program::build(world()).unwrap())
}

fn to_service(from: u8, is_v4: bool) -> Path {
    let (source, destination) = (address(from, is_v4), vip(is_v4));
    Path { source_mac: station(from), destination_mac: GATEWAY, source, destination }
}

/// From an endpoint straight to a client of the same subnet.
fn back(from: u8, to: u8, is_v4: bool) -> Path {
    let (source, destination) = (address(from, is_v4), address(to, is_v4));
    Path { source_mac: station(from), destination_mac: station(to), source, destination }
}

/// Source and destination of a TCP or UDP frame, whose checksum is right.
#[track_caller]
fn ends(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let (source, destination, pseudo, payload): (IpAddr, IpAddr, _, _) = match frame[14] >> 4 {
        4 => {
            let ip = ipv4::View::new(&frame[14..]).unwrap();
            assert!(ip.checksum_is_valid());
            let len = ip.payload().len() as u16;
            let pseudo = pseudo_v4(ip.source(), ip.destination(), ip.protocol(), len);
            (ip.source().into(), ip.destination().into(), pseudo, ip.payload())
        }
        _ => {
            let ip = ipv6::View::new(&frame[14..]).unwrap();
            let len = ip.payload().len() as u32;
            let pseudo = pseudo_v6(ip.source(), ip.destination(), ip.next_header(), len);
            (ip.source().into(), ip.destination().into(), pseudo, ip.payload())
        }
    };
    assert_eq!(pseudo.add_bytes(payload).checksum(), 0, "the checksum");
    let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    ((source, port(0)), (destination, port(2)))
}

/// The one port that sends, and what.
#[track_caller]
fn sent(fate: &Fate) -> (u8, Vec<u8>) {
    assert!(fate.drops.is_empty() && fate.sent.len() == 1, "{fate:?}");
    let (port, frame) = fate.sent.iter().next().unwrap();
    (*port as u8, frame.clone())
}

#[test]
fn a_connection_goes_to_one_endpoint_and_its_answers_come_from_the_service() {
    for is_v4 in [true, false] {
        let mut bed = bed();
        let asked = build::udp(to_service(1, is_v4), (4000, 80), b"hello");
        let (endpoint, frame) = sent(&bed.send(1, asked.clone()));
        assert_eq!(ends(&frame), ((address(1, is_v4), 4000), (address(endpoint, is_v4), 8080)));
        assert_eq!(frame[..12], [station(endpoint).0, GATEWAY.0].concat());
        for _ in 0..3 {
            assert_eq!(sent(&bed.send(1, asked.clone())), (endpoint, frame.clone()));
        }
        let answer = build::udp(back(endpoint, 1, is_v4), (8080, 4000), b"world");
        for _ in 0..3 {
            let (client, frame) = sent(&bed.send(endpoint.into(), answer.clone()));
            assert_eq!((client, ends(&frame)), (1, ((vip(is_v4), 80), (address(1, is_v4), 4000))));
        }
        let (hits, misses) = bed.hits_and_misses();
        assert_eq!((hits, misses), (5, 2));
        // What an endpoint sends of itself has its own address.
        let own = build::udp(back(endpoint, 2, is_v4), (8080, 4000), b"");
        let (_, frame) = sent(&bed.send(endpoint.into(), own));
        assert_eq!(ends(&frame).0, (address(endpoint, is_v4), 8080));
    }
}

#[test]
fn a_trace_shows_the_packet_as_it_would_leave_and_opens_no_connection() {
    for is_v4 in [true, false] {
        let mut bed = bed();
        // Station 4 serves, too: some of its connections come back to it, from the gateway's address.
        for (from, client_port) in
            [1, 4].into_iter().flat_map(|from| (4000..4010).map(move |port| (from, port)))
        {
            let asked = build::udp(to_service(from, is_v4), (client_port, 80), b"hello");
            let before = bed.shared.connections().len();
            let explained = bed.switch.explain(Entrance::Port(PortNo(from.into())), &asked, bed.now);
            assert_eq!(bed.shared.connections().len(), before);
            let (endpoint, frame) = sent(&bed.send(from.into(), asked));
            let [out] = &explained.outputs[..] else { panic!("{explained:?}") };
            assert_eq!((out.port, &out.bytes), (PortNo(endpoint.into()), &frame), "{explained:?}");
        }
    }
}

#[test]
fn connections_are_spread_over_all_endpoints_and_those_of_a_client_are_not_where_it_is_to_keep_one() {
    let mut bed = bed();
    let chosen = |bed: &mut Bed, from: u8| -> BTreeSet<u8> {
        let ask = |port| sent(&bed.send(from.into(), build::udp(to_service(from, true), (port, 80), b""))).0;
        (4000..4040).map(ask).collect()
    };
    assert_eq!(chosen(&mut bed, 1), [4, 5, 6].into());
    let mut sticky = world();
    change(&mut sticky, 1, |service| service.affinity = Affinity::ClientIp { timeout_s: 10_800 }).unwrap();
    let mut bed = Bed::new(Program::build(sticky).unwrap());
    assert_eq!(chosen(&mut bed, 1).len(), 1);
}

#[test]
fn a_client_is_kept_at_its_endpoint_until_the_timeout_and_no_trace_prolongs_it() {
    let (before, after) = ([4, 5], [4, 5, 6]);
    let sticky = |version: u64, serving: &[u8]| {
        let mut world = ProgramSpec { version, ..world() };
        change(&mut world, 1, |service| {
            service.affinity = Affinity::ClientIp { timeout_s: 100 };
            service.endpoints.retain(|it| serving.iter().any(|host| it.address == address(*host, true)));
        })
        .unwrap();
        Program::build(world).unwrap()
    };
    let ask = |port| build::udp(to_service(1, true), (port, 80), b"");
    let hashed = |serving: &[u8]| sent(&Bed::new(sticky(1, serving)).send(1, ask(4000))).0;
    // A client whose hash another endpoint would take is kept all the same.
    let mut bed = Bed::new(sticky(1, &before));
    let home = sent(&bed.send(1, ask(4000))).0;
    let away = [4, 5].into_iter().find(|host| *host != home).unwrap();
    bed.switch.set_program(sticky(2, &[away]));
    assert_eq!(sent(&bed.send(1, ask(4001))).0, away, "its endpoint has gone");
    bed.switch.set_program(sticky(3, &after));
    for port in 4002..4005 {
        bed.pass(90_000);
        for _ in 0..2 {
            assert_eq!(sent(&bed.send(1, ask(port))).0, away, "of which its last connection was");
        }
    }
    bed.pass(99_999);
    bed.switch.explain(Entrance::Port(PortNo(1)), &ask(4005), bed.now);
    bed.pass(1);
    assert_eq!(sent(&bed.send(1, ask(4006))).0, hashed(&after), "as one that nobody remembers");
}

#[test]
fn what_an_endpoint_sends_before_it_is_asked_does_not_become_how_its_answers_go() {
    let mut bed = bed();
    let chosen = (4000..4100).filter(|port| {
        let unasked = build::udp(back(4, 1, true), (8080, *port), b"");
        for _ in 0..2 {
            assert_eq!(ends(&sent(&bed.send(4, unasked.clone())).1).0, (address(4, true), 8080));
        }
        let is_chosen = sent(&bed.send(1, build::udp(to_service(1, true), (*port, 80), b""))).0 == 4;
        if is_chosen {
            assert_eq!(ends(&sent(&bed.send(4, unasked)).1).0, (vip(true), 80), "now it is an answer");
        }
        is_chosen
    });
    assert!(chosen.count() > 0, "of so many connections some are its own");
    // Its own connections are nobody's answers, and are cached.
    bed.hits_and_misses();
    for _ in 0..3 {
        sent(&bed.send(4, build::udp(back(4, 2, true), (39_000, 53), b"")));
    }
    assert_eq!(bed.hits_and_misses(), (2, 1));
}

#[test]
fn what_nobody_serves_is_refused() {
    let mut bed = bed();
    for port in [81, 99] {
        let told = bed.send(1, build::udp(to_service(1, true), (4000, port), b"hello"));
        let (client, frame) = sent(&told);
        let message = icmpv4::View::new(&frame[34..]).unwrap();
        assert_eq!((client, message.kind(), message.code()), (1, icmpv4::UNREACHABLE, 3));
    }
    let (_, frame) = sent(&bed.send(1, build::udp(to_service(1, false), (4000, 99), b"")));
    let message = icmpv6::View::new(&frame[54..]).unwrap();
    assert_eq!((message.kind(), message.code()), (icmpv6::UNREACHABLE, 4));
    let (_, frame) = sent(&bed.send(1, build::echo_request(to_service(1, true), 1, 1, b"")));
    assert_eq!(icmpv4::View::new(&frame[34..]).unwrap().code(), 3, "an address that answers no ping");
    assert_eq!(bed.shared.connections().len(), 0);
}

#[test]
fn an_endpoint_that_asks_its_own_service_may_get_itself() {
    for is_v4 in [true, false] {
        let mut bed = bed();
        let own = if is_v4 { ip("10.0.0.254") } else { ip("fd00::fe") };
        // Of many connections one is its own.
        let hairpin = (4000..4100).find_map(|port| {
            let (to, frame) = sent(&bed.send(4, build::udp(to_service(4, is_v4), (port, 80), b"hello")));
            (to == 4).then_some((port, frame))
        });
        let (port, frame) = hairpin.unwrap();
        assert_eq!(
            ends(&frame),
            ((own, port), (address(4, is_v4), 8080)),
            "from the gateway, not from itself"
        );
        let to_gateway = Path {
            source_mac: station(4),
            destination_mac: GATEWAY,
            source: address(4, is_v4),
            destination: own,
        };
        let (to, frame) = sent(&bed.send(4, build::udp(to_gateway, (8080, port), b"world")));
        assert_eq!((to, ends(&frame)), (4, ((vip(is_v4), 80), (address(4, is_v4), port))));
    }
}

#[test]
fn an_endpoint_that_goes_keeps_its_connections_of_tcp_and_loses_those_of_udp() {
    let mut bed = bed();
    let syn = segment(to_service(1, true), (4000, 80), Flags::SYN, (1000, 0));
    let (by_tcp, _) = sent(&bed.send(1, syn));
    let syn_ack = Flags::SYN.with(Flags::ACK);
    sent(&bed.send(by_tcp.into(), segment(back(by_tcp, 1, true), (8080, 4000), syn_ack, (5000, 1001))));
    let datagram = |port| build::udp(to_service(1, true), (port, 80), b"");
    let port = (4000..4100).find(|port| sent(&bed.send(1, datagram(*port))).0 == by_tcp).unwrap();
    let mut later = world();
    later.version = 2;
    let stays = |endpoint: &EndpointSpec| endpoint.address != address(by_tcp, true);
    change(&mut later, 1, |service| service.endpoints.retain(stays)).unwrap();
    bed.switch.set_program(Program::build(later).unwrap());
    let ack = segment(to_service(1, true), (4000, 80), Flags::ACK, (1001, 5001));
    assert_eq!(sent(&bed.send(1, ack)).0, by_tcp, "it is left to end");
    let answer = segment(back(by_tcp, 1, true), (8080, 4000), Flags::ACK, (5001, 1001));
    let (client, answer) = sent(&bed.send(by_tcp.into(), answer));
    assert_eq!((client, ends(&answer).0), (1, (vip(true), 80)), "and its answers are the service's");
    let new = segment(to_service(1, true), (4001, 80), Flags::SYN, (1000, 0));
    assert_ne!(sent(&bed.send(1, new)).0, by_tcp);
    assert_ne!(sent(&bed.send(1, datagram(port))).0, by_tcp, "a datagram finds another");
}

#[test]
fn an_error_about_a_connection_is_told_in_the_clients_words() {
    let mut bed = bed();
    let (endpoint, asked) = sent(&bed.send(1, build::udp(to_service(1, true), (4000, 80), b"hello")));
    // The endpoint's kernel: nobody listens at port 8080.
    let mut message = vec![icmpv4::UNREACHABLE, 3, 0, 0, 0, 0, 0, 0];
    message.extend(&asked[14..]);
    icmpv4::fill_checksum(&mut message);
    let error = build::ip(back(endpoint, 1, true), IpProtocol::ICMP, &message);
    let (client, told) = sent(&bed.send(endpoint.into(), error));
    let outer = ipv4::View::new(&told[14..]).unwrap();
    assert!(client == 1 && outer.checksum_is_valid());
    let message = icmpv4::View::new(outer.payload()).unwrap();
    assert!(message.checksum_is_valid());
    let quoted = ipv4::View::new(message.payload()).unwrap();
    assert_eq!(IpAddr::from(quoted.destination()), vip(true), "what the client sent it to");
    assert_eq!(udp::View::new(quoted.payload()).unwrap().destination_port(), 80);
}

#[test]
fn policies_are_about_endpoints_and_not_about_services() {
    let mut world = world();
    let web = RuleSpec {
        name: "NetworkPolicy shop/web rule 1".into(),
        peers: Some(vec![IdentityNo(1)]),
        ports: Some(vec![PortRangeSpec { protocol: IpProtocol::UDP, ports: 8080..=8080 }]),
        action: RuleAction::Allow,
    };
    let policy = PolicySpec {
        number: PolicyNo(7),
        name: "web".into(),
        ingress: vec![TierSpec { rules: vec![web], isolated_by: Some("NetworkPolicy shop/web".into()) }],
        ..PolicySpec::default()
    };
    for endpoint in [4, 5, 6] {
        world.ports.get_mut(&PortNo(endpoint)).unwrap().policy = Some(PolicyNo(7));
    }
    let addresses = Prefix { address: address(1, true), len: 32 };
    let client = IdentitySpec { scope: SCOPE, addresses, identity: IdentityNo(1) };
    world.policies = Policies::new([policy], [client]).unwrap();
    let mut bed = Bed::new(Program::build(world.clone()).unwrap());
    let ask = |from| build::udp(to_service(from, true), (4000, 80), b"hello");
    let (endpoint, _) = sent(&bed.send(1, ask(1)));
    assert_eq!(bed.send(2, ask(2)), Fate::drop(DropReason::PolicyDenied));
    let explained = bed.switch.explain(Entrance::Port(PortNo(1)), &ask(1), Now::default());
    let words: Vec<_> =
        explained.steps.iter().map(|step| format!("{}: {}", step.stage, step.sentence)).collect();
    let words = words.join("\n");
    assert!(
        words.contains(&format!("service: is of a connection with 10.0.0.{endpoint} port 8080")),
        "{words}"
    );
    let explained = bed.switch.explain(
        Entrance::Port(PortNo(1)),
        &build::udp(to_service(1, true), (5, 80), b""),
        Now::default(),
    );
    let words: Vec<_> =
        explained.steps.iter().map(|step| format!("{}: {}", step.stage, step.sentence)).collect();
    let words = words.join("\n");
    assert!(words.contains("service: is for service shop/web: 10.0.0."), "{words}");
    assert!(words.contains("policy: ingress of web: allowed by NetworkPolicy shop/web rule 1"), "{words}");
    // A change of mind is about the endpoint, too, in whichever direction it is noticed.
    world.version = 2;
    world.policies.remove_identity(SCOPE, addresses);
    bed.switch.set_program(Program::build(world).unwrap());
    let answer = build::udp(back(endpoint, 1, true), (8080, 4000), b"");
    assert_eq!(bed.send(endpoint.into(), answer), Fate::drop(DropReason::PolicyDenied));
}

#[test]
fn services_that_contradict_themselves_or_each_other_are_refused() {
    let refused = |wrong: &dyn Fn(&mut ServiceSpec)| {
        let mut world = world();
        let error = change(&mut world, 3, wrong).unwrap_err();
        assert_eq!(world.services.get(ServiceNo(3)), None, "nor is it as it was");
        error
    };
    let is_shop = |error| matches!(error, ProgramError::Service { service, .. } if service == "shop/idle");
    let endpoint = |text| EndpointSpec { address: ip(text), port: 1 };
    assert!(is_shop(refused(&|service| service.endpoints.push(endpoint("fd00::1")))));
    assert!(is_shop(refused(&|service| service.endpoints.push(endpoint("224.0.0.1")))));
    assert!(is_shop(refused(&|service| service.frontends[0].protocol = IpProtocol::ICMP)));
    let twice = refused(&|service| service.frontends[0].port = 80);
    assert!(
        matches!(twice, ProgramError::DuplicateFrontend { first, second, .. } if first == "shop/web" && second == "shop/idle")
    );
}

/// One of three services, with these of four addresses as its own and these as its endpoints'.
fn any_service() -> impl Strategy<Value = ServiceSpec> {
    let addresses = |block: u8| {
        prop::collection::vec((0..2u8, 0..2u16), 0..4).prop_map(move |ends| {
            ends.into_iter()
                .map(|(address, port)| (IpAddr::from([10, block, 0, address]), port))
                .collect::<Vec<_>>()
        })
    };
    (0..3u32, addresses(1), addresses(2)).prop_map(|(number, frontends, endpoints)| ServiceSpec {
        number: ServiceNo(number),
        name: format!("service-{number}"),
        scope: SCOPE,
        frontends: frontends
            .into_iter()
            .map(|(address, port)| FrontendSpec { address, protocol: IpProtocol::TCP, port })
            .collect(),
        endpoints: endpoints.into_iter().map(|(address, port)| EndpointSpec { address, port }).collect(),
        affinity: Affinity::None,
    })
}

proptest! {
    /// What was put and removed, in whichever order, is what those that are left make.
    #[test]
    fn services_that_changed_are_those_that_are_left(
        steps in prop::collection::vec((any_service(), any::<bool>()), 0..30)
    ) {
        let mut changed = Services::default();
        for (service, is_put) in steps {
            if is_put {
                let _contradiction = changed.put(service);
            } else {
                changed.remove(service.number);
            }
            let left = (0..3).filter_map(|number| changed.get(ServiceNo(number)).cloned());
            prop_assert_eq!(&Services::new(left).unwrap(), &changed);
        }
    }

    #[test]
    fn what_is_translated_is_sound_whatever_it_carries(
        payload in prop::collection::vec(any::<u8>(), 0..1200), ports: (u16, u16), is_v4: bool, is_tcp: bool,
        is_partial: bool
    ) {
        let path = to_service(1, is_v4);
        let start = if is_v4 { 34 } else { 54 };
        let (mut frame, protocol, offset) = if is_tcp {
            (segment(path, (ports.0, 80), Flags::SYN, (1, 0)), IpProtocol::TCP, 16)
        } else {
            (build::udp(path, (ports.0, 80), &payload), IpProtocol::UDP, 6)
        };
        let mut offload = Offload::NONE;
        if is_partial {
            let len = frame.len() - start;
            let pseudo = match (path.source, path.destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => pseudo_v4(a, b, protocol, len as u16),
                (IpAddr::V6(a), IpAddr::V6(b)) => pseudo_v6(a, b, protocol, len as u32),
                _ => unreachable!(),
            };
            frame[start + offset..start + offset + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
            offload.checksum = Checksum::Partial { start: start as u16, offset: offset as u16 };
        }
        let mut bed = bed();
        let fate = bed.send_offloaded(1, frame, offload);
        let (endpoint, mut frame) = sent(&fate);
        if is_partial {
            let sum = wire::checksum::Sum::ZERO.add_bytes(&frame[start..]).checksum_nonzero();
            frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
        }
        prop_assert_eq!(ends(&frame), ((address(1, is_v4), ports.0), (address(endpoint, is_v4), 8080)));
    }
}
