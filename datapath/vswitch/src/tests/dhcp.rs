//! What hosts are told that ask for their addresses: by DHCP of both families and by router solicitations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frame::DropReason;
use proptest::prelude::*;
use wire::build::{self, Path};
use wire::{IpProtocol, MacAddr, dhcpv4, dhcpv6, icmpv6, ipv4, ipv6, nd, udp};

use super::{Bed, Fate, NETWORK, port, spec, station};
use crate::program::{DhcpSpec, GatewaySpec, PortSpec, Prefix, ProgramError, ProgramSpec, RouterNo};
use crate::{Now, Program};

const SERVER: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
const XID: [u8; 4] = [1, 2, 3, 4];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    Prefix { address: ip(address), len: len.parse().unwrap() }
}

fn dhcp() -> DhcpSpec {
    DhcpSpec {
        mac: SERVER,
        servers: vec![prefix("10.0.0.1/24")],
        routes: vec![
            (prefix("0.0.0.0/0"), ip("10.0.0.1")),
            (prefix("10.9.0.0/16"), ip("10.7.0.1")),
            (prefix("::/0"), ip("fd00::1")),
            (prefix("fd00:9::/48"), ip("fd00::1")),
            (prefix("fd00:8::/48"), ip("fd00::8")),
        ],
        nameservers: vec![ip("10.0.0.53"), ip("fd00::53"), ip("10.0.0.54")],
        domain: Some("pods.example.org".into()),
        search: vec!["example.org".into()],
    }
}

/// Stations 11, 12 and 13 of a network with a gateway, of which 13 has no addresses.
fn world() -> ProgramSpec {
    let host = |number: u16| PortSpec {
        macs: vec![station(number as u8)],
        ips: vec![ip(&format!("fd00::{number}")), ip(&format!("10.0.0.{number}"))],
        port_security: true,
        mtu_bytes: 1400,
        ..port(number)
    };
    let mut spec = spec([host(11), host(12), PortSpec { ips: Vec::new(), ..host(13) }]);
    let network = spec.networks.get_mut(&NETWORK).unwrap();
    network.gateway = Some(GatewaySpec {
        mac: SERVER,
        addresses: vec![prefix("10.0.0.1/24"), prefix("fd00::1/64")],
        router: RouterNo(1),
        routes: Vec::new(),
    });
    network.dhcp = Some(dhcp());
    spec
}

fn bed() -> Bed {
    Bed::new(Program::build(world()).unwrap())
}

/// A message of DHCPv4 from station 11: its type, its own address, its options.
struct Ask<'a> {
    kind: dhcpv4::MessageType,
    client: &'a str,
    options: Vec<(u8, &'a [u8])>,
}

fn ask<'a>(kind: dhcpv4::MessageType, options: &[(u8, &'a [u8])]) -> Ask<'a> {
    Ask { kind, client: "0.0.0.0", options: options.to_vec() }
}

impl Ask<'_> {
    fn repr(&self) -> dhcpv4::Repr {
        dhcpv4::Repr {
            operation: dhcpv4::REQUEST,
            xid: XID,
            flags: 0,
            client: v4(self.client),
            yours: Ipv4Addr::UNSPECIFIED,
            relay: Ipv4Addr::UNSPECIFIED,
            mac: station(11),
        }
    }

    fn frame(&self) -> Vec<u8> {
        self.frame_with(|_| {})
    }

    fn frame_with(&self, edit: impl FnOnce(&mut dhcpv4::Repr)) -> Vec<u8> {
        let mut repr = self.repr();
        edit(&mut repr);
        let mut message = vec![0; dhcpv4::FIXED_BYTES];
        repr.emit(&mut message);
        message.extend([dhcpv4::option::MESSAGE_TYPE, 1, self.kind.0]);
        for (kind, data) in &self.options {
            message.extend([*kind, data.len() as u8]);
            message.extend(*data);
        }
        message.push(dhcpv4::option::END);
        udp_from(v4(self.client).into(), Ipv4Addr::BROADCAST.into(), (68, 67), &message)
    }
}

fn udp_from(source: IpAddr, destination: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let path = Path { source_mac: station(11), destination_mac: MacAddr::BROADCAST, source, destination };
    build::udp(path, ports, payload)
}

/// The datagram's payload that port 11 alone got, with its sender and receiver; all sums are right.
#[track_caller]
fn datagram(fate: &Fate) -> (IpAddr, IpAddr, (u16, u16), Vec<u8>) {
    assert_eq!((fate.ports(), fate.drops.len()), (vec![11], 0), "{fate:?}");
    let frame = &fate.sent[&11];
    assert_eq!(frame[6..12], SERVER.0);
    let (source, destination, datagram): (IpAddr, IpAddr, &[u8]) = if frame[12..14] == [8, 0] {
        let ip = ipv4::View::new(&frame[14..]).unwrap();
        assert!(ip.checksum_is_valid() && usize::from(ip.total_len()) == frame.len() - 14);
        assert!(frame.len() - 14 <= dhcpv4::MIN_MAX_PACKET_BYTES, "more than a client must take");
        (ip.source().into(), ip.destination().into(), ip.payload())
    } else {
        let ip = ipv6::View::new(&frame[14..]).unwrap();
        (ip.source().into(), ip.destination().into(), ip.payload())
    };
    let udp = udp::View::new(datagram).unwrap();
    let rebuilt = Path { source_mac: SERVER, destination_mac: SERVER, source, destination };
    let rebuilt = build::udp(rebuilt, (udp.source_port(), udp.destination_port()), udp.payload());
    assert_eq!(rebuilt[rebuilt.len() - datagram.len()..], *datagram, "length and checksum");
    (source, destination, (udp.source_port(), udp.destination_port()), udp.payload().to_vec())
}

/// What DHCPv4 answered: the message's type, the address, whom it is for, and its options.
#[track_caller]
fn reply(fate: &Fate) -> (dhcpv4::MessageType, Ipv4Addr, IpAddr, Vec<(u8, Vec<u8>)>) {
    let (source, destination, ports, payload) = datagram(fate);
    assert_eq!((source, ports), (ip("10.0.0.1"), (67, 68)));
    let view = dhcpv4::View::new(&payload).unwrap();
    assert_eq!((view.operation(), view.xid(), view.mac()), (dhcpv4::REPLY, XID, station(11)));
    assert_eq!(view.address(dhcpv4::option::SERVER_IDENTIFIER), Ok(Some(v4("10.0.0.1"))));
    let options = view.options().map(|option| option.unwrap()).map(|it| (it.kind, it.data.to_vec()));
    (view.message_type().unwrap().unwrap(), view.yours(), destination, options.collect())
}

fn option(options: &[(u8, Vec<u8>)], kind: u8) -> Option<&[u8]> {
    options.iter().find(|(it, _)| *it == kind).map(|(_, data)| &data[..])
}

#[test]
fn a_host_that_looks_for_an_address_is_offered_its_ports_and_told_of_the_network() {
    use dhcpv4::option as o;
    let mut bed = bed();
    let id = [255, 1, 2, 3, 4, 0, 3, 0, 1];
    let discover = ask(dhcpv4::MessageType::DISCOVER, &[(o::CLIENT_IDENTIFIER, &id), (57, &[5, 0xdc])]);
    let fate = bed.send(11, discover.frame());
    let (kind, yours, to, options) = reply(&fate);
    assert_eq!((kind, yours, to), (dhcpv4::MessageType::OFFER, v4("10.0.0.11"), ip("10.0.0.11")));
    assert_eq!(fate.sent[&11][..6], station(11).0, "it cannot answer ARP yet");
    for (kind, expected) in [
        (o::CLIENT_IDENTIFIER, &id[..]),
        (o::LEASE_TIME, &86_400_u32.to_be_bytes()),
        (o::RENEWAL_TIME, &43_200_u32.to_be_bytes()),
        (o::REBINDING_TIME, &75_600_u32.to_be_bytes()),
        (o::SUBNET_MASK, &[255, 255, 255, 0]),
        (o::ROUTER, &[10, 0, 0, 1]),
        (o::DOMAIN_NAME_SERVER, &[10, 0, 0, 53, 10, 0, 0, 54]),
        (o::DOMAIN_NAME, b"pods.example.org"),
        (o::DOMAIN_SEARCH, b"\x07example\x03org\x00"),
        (o::INTERFACE_MTU, &1400_u16.to_be_bytes()),
        // The next hop that is not of the subnet is on the link.
        (o::CLASSLESS_ROUTES, &[32, 10, 7, 0, 1, 0, 0, 0, 0, 0, 10, 0, 0, 1, 16, 10, 9, 10, 7, 0, 1]),
    ] {
        assert_eq!(option(&options, kind), Some(expected), "option {kind}");
    }
    assert_eq!(bed.send(11, discover.frame()), fate, "however often it asks");
    assert_eq!(bed.hits_and_misses(), (1, 1), "the decision is cached, the answer made anew");
}

#[test]
fn a_request_is_acknowledged_for_the_ports_address_and_no_other() {
    use dhcpv4::MessageType as M;
    use dhcpv4::option as o;
    let mut bed = bed();
    const OWN: (u8, &[u8]) = (o::REQUESTED_ADDRESS, &[10, 0, 0, 11]);
    const OTHER: (u8, &[u8]) = (o::REQUESTED_ADDRESS, &[10, 0, 0, 12]);
    const TO_US: (u8, &[u8]) = (o::SERVER_IDENTIFIER, &[10, 0, 0, 1]);
    let request = |client, options: &[(u8, &'static [u8])]| Ask { client, ..ask(M::REQUEST, options) };
    for (asked, expected) in [
        // Selecting, rebooting, renewing (§4.3.2).
        (request("0.0.0.0", &[TO_US, OWN]), (M::ACK, "10.0.0.11", "10.0.0.11")),
        (request("0.0.0.0", &[OWN]), (M::ACK, "10.0.0.11", "10.0.0.11")),
        (request("10.0.0.11", &[]), (M::ACK, "10.0.0.11", "10.0.0.11")),
        (request("0.0.0.0", &[TO_US, OTHER]), (M::NAK, "0.0.0.0", "255.255.255.255")),
        (request("0.0.0.0", &[OTHER]), (M::NAK, "0.0.0.0", "255.255.255.255")),
        (Ask { client: "10.0.0.11", ..ask(M::INFORM, &[]) }, (M::ACK, "0.0.0.0", "10.0.0.11")),
    ] {
        let (kind, yours, to, options) = reply(&bed.send(11, asked.frame()));
        assert_eq!((kind, yours, to), (expected.0, v4(expected.1), ip(expected.2)));
        let gives = yours == v4("10.0.0.11");
        assert_eq!(option(&options, o::LEASE_TIME).is_some(), gives, "{kind}");
        assert_eq!(option(&options, o::SUBNET_MASK).is_some(), kind == M::ACK, "{kind}");
    }
    let broadcast = ask(M::DISCOVER, &[]).frame_with(|repr| repr.flags = dhcpv4::BROADCAST | 1);
    let fate = bed.send(11, broadcast);
    assert_eq!((reply(&fate).2, &fate.sent[&11][..6]), (ip("255.255.255.255"), &[0xff; 6][..]));
}

#[test]
fn messages_without_an_answer_are_dropped_by_name() {
    use dhcpv4::MessageType as M;
    use dhcpv4::option as o;
    let mut bed = bed();
    let discover = || ask(M::DISCOVER, &[]);
    for frame in [
        ask(M::DECLINE, &[(o::REQUESTED_ADDRESS, &[10, 0, 0, 11])]).frame(),
        ask(M::RELEASE, &[]).frame(),
        ask(M::REQUEST, &[]).frame(),
        ask(M::REQUEST, &[(o::SERVER_IDENTIFIER, &[10, 0, 0, 9]), (o::REQUESTED_ADDRESS, &[10, 0, 0, 11])])
            .frame(),
        ask(M::DISCOVER, &[(o::CLIENT_IDENTIFIER, &[7; 65])]).frame(),
        discover().frame_with(|repr| repr.operation = dhcpv4::REPLY),
        discover().frame_with(|repr| repr.relay = v4("10.0.0.11")),
        discover().frame_with(|repr| repr.mac = station(12)),
    ] {
        assert_eq!(bed.send(11, frame), Fate::drop(DropReason::DhcpUnanswered));
    }
    let short = ask(M::REQUEST, &[(o::REQUESTED_ADDRESS, &[10, 0, 0])]);
    assert_eq!(bed.send(11, short.frame()), Fate::drop(DropReason::Malformed));
    let cut = udp_from(ip("0.0.0.0"), ip("255.255.255.255"), (68, 67), &[1; 100]);
    assert_eq!(bed.send(11, cut), Fate::drop(DropReason::Truncated));
}

#[test]
fn who_has_no_lease_is_not_answered_and_a_network_without_dhcp_has_its_own_server() {
    let mut bed = bed();
    let discover = ask(dhcpv4::MessageType::DISCOVER, &[]).frame();
    // Port 13 lists no addresses, and 12 does not list this station.
    let mut spec = world();
    spec.ports.values_mut().for_each(|port| port.port_security = false);
    bed.switch.set_program(Program::build(spec).unwrap());
    assert_eq!(bed.send(12, discover.clone()).ports(), [11, 13]);
    let mut spec = world();
    spec.networks.get_mut(&NETWORK).unwrap().dhcp = None;
    bed.switch.set_program(Program::build(spec).unwrap());
    assert_eq!(bed.send(11, discover).ports(), [12, 13]);
    assert_eq!(bed.send(11, solicitation("::", 255)).ports(), [12, 13]);
}

#[test]
fn a_secured_port_is_neither_a_router_nor_a_server_where_the_switch_is_both() {
    let server = udp_from(ip("10.0.0.11"), ip("10.0.0.12"), (67, 68), b"a lease");
    let server_v6 = udp_from(ip("fd00::11"), ip("fd00::12"), (547, 546), b"a lease");
    let path = Path {
        source_mac: station(11),
        destination_mac: station(12),
        source: nd_source(11),
        destination: "ff02::1".parse().unwrap(),
    };
    let advert = |kind: u8, bytes: usize| {
        let mut message = vec![0; bytes];
        icmpv6::Repr { kind, code: 0, rest: [0; 4] }.emit(&mut message);
        let (IpAddr::V6(source), IpAddr::V6(to)) = (path.source, path.destination) else { unreachable!() };
        icmpv6::fill_checksum(&mut message, source, to);
        build::ip(path, IpProtocol::ICMPV6, &message)
    };
    let frames = [server, server_v6, advert(nd::ROUTER_ADVERT, 16), advert(nd::REDIRECT, 40)];
    let mut bed = bed();
    for frame in &frames {
        assert_eq!(bed.send(11, frame.clone()), Fate::drop(DropReason::RogueServer));
    }
    // Where somebody else is to be both, and where the port may say anything.
    let mut others = world();
    let network = others.networks.get_mut(&NETWORK).unwrap();
    (network.dhcp, network.gateway) = (None, None);
    let mut open = world();
    open.ports.get_mut(&crate::program::PortNo(11)).unwrap().port_security = false;
    for spec in [others, open] {
        let mut bed = Bed::new(Program::build(spec).unwrap());
        for frame in &frames {
            assert!(!bed.send(11, frame.clone()).drops.contains_key(&DropReason::RogueServer));
        }
    }
}

/// The link-local address of a station (RFC 4291 §2.5.6).
fn nd_source(number: u8) -> IpAddr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, number.into()).into()
}

#[test]
fn a_network_without_a_gateway_has_leases_and_no_router() {
    let mut spec = world();
    let network = spec.networks.get_mut(&NETWORK).unwrap();
    network.gateway = None;
    network.dhcp.as_mut().unwrap().routes.clear();
    let mut bed = Bed::new(Program::build(spec).unwrap());
    let (kind, yours, _, options) = reply(&bed.send(11, ask(dhcpv4::MessageType::DISCOVER, &[]).frame()));
    assert_eq!((kind, yours), (dhcpv4::MessageType::OFFER, v4("10.0.0.11")));
    assert_eq!(option(&options, dhcpv4::option::ROUTER), None);
    assert_eq!(bed.send(11, solicitation("::", 255)).ports(), [12, 13]);
}

/// The link-local address of station 11.
const ELEVEN: &str = "fe80::ff:fe00:b";
/// That of the gateway.
const ROUTER: &str = "fe80::ff:ff:fe00:1";

fn dhcpv6_frame(kind: dhcpv6::MessageType, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = vec![kind.0, 7, 8, 9];
    for (code, data) in options {
        message.extend(code.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(*data);
    }
    udp_from(ip(ELEVEN), dhcpv6::ALL_SERVERS.into(), (546, 547), &message)
}

/// What DHCPv6 answered: the message's type and its options.
#[track_caller]
fn reply_v6(fate: &Fate) -> (dhcpv6::MessageType, Vec<(u16, Vec<u8>)>) {
    let (source, destination, ports, payload) = datagram(fate);
    assert_eq!((source, destination, ports), (ip(ROUTER), ip(ELEVEN), (547, 546)));
    let view = dhcpv6::View::new(&payload).unwrap();
    assert_eq!(view.transaction(), [7, 8, 9]);
    let options = view.options().map(|option| option.unwrap()).map(|it| (it.code, it.data.to_vec()));
    (view.kind(), options.collect())
}

const CLIENT: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 0x0b];
const DUID: &[u8] = &[0, 3, 0, 1, 2, 0xff, 0, 0, 0, 1];

/// An IA_NA with these addresses, as a client or a server writes it.
fn ia(number: u8, times: (u32, u32), addresses: &[(&str, u32)]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, number];
    bytes.extend(times.0.to_be_bytes());
    bytes.extend(times.1.to_be_bytes());
    for (address, lifetime_s) in addresses {
        bytes.extend([0, 5, 0, 24]);
        bytes.extend(v6(address).octets());
        bytes.extend(lifetime_s.to_be_bytes());
        bytes.extend(lifetime_s.to_be_bytes());
    }
    bytes
}

#[test]
fn dhcpv6_gives_the_ports_address_in_each_exchange() {
    use dhcpv6::MessageType as M;
    use dhcpv6::option as o;
    let mut bed = bed();
    let (client, server) = ((o::CLIENT_ID, CLIENT), (o::SERVER_ID, DUID));
    let (empty, held) = (ia(1, (0, 0), &[]), ia(1, (0, 0), &[("fd00::11", 9)]));
    let stale = ia(1, (0, 0), &[("fd00::77", 9), ("fd00::11", 9)]);
    let given = ia(1, (43_200, 75_600), &[("fd00::11", 86_400)]);
    let moved = ia(1, (43_200, 75_600), &[("fd00::11", 86_400), ("fd00::77", 0)]);
    let (empty, held, stale) = [&empty, &held, &stale].map(|ia| (o::IA_NA, &ia[..])).into();
    for (kind, options, answer, expected) in [
        (M::SOLICIT, vec![client, empty], M::ADVERTISE, &given),
        (M::SOLICIT, vec![client, empty, (o::RAPID_COMMIT, &[])], M::REPLY, &given),
        (M::REQUEST, vec![client, server, empty], M::REPLY, &given),
        (M::RENEW, vec![client, server, stale], M::REPLY, &moved),
        (M::REBIND, vec![client, held], M::REPLY, &given),
    ] {
        let (is, said) = reply_v6(&bed.send(11, dhcpv6_frame(kind, &options)));
        assert_eq!(is, answer, "to {kind}");
        let find = |code| said.iter().find(|(it, _)| *it == code).map(|(_, data)| &data[..]);
        assert_eq!((find(o::CLIENT_ID), find(o::SERVER_ID)), (Some(CLIENT), Some(DUID)));
        assert_eq!(find(o::IA_NA), Some(&expected[..]), "to {kind}");
        assert_eq!(find(o::DNS_SERVERS), Some(&v6("fd00::53").octets()[..]));
        assert_eq!(find(o::DOMAIN_LIST), Some(&b"\x07example\x03org\x00"[..]));
        assert_eq!(find(o::PREFERENCE).is_some(), is == M::ADVERTISE);
        assert_eq!(find(o::RAPID_COMMIT).is_some(), kind == M::SOLICIT && is == M::REPLY);
    }
    // A second association gets nothing, and is told so.
    let second = ia(2, (0, 0), &[]);
    let (_, said) = reply_v6(&bed.send(11, dhcpv6_frame(M::SOLICIT, &[client, empty, (o::IA_NA, &second)])));
    let ias: Vec<_> = said.iter().filter(|(code, _)| *code == o::IA_NA).collect();
    assert_eq!(
        (ias.len(), &ias[1].1[..4], &ias[1].1[12..]),
        (2, &[0, 0, 0, 2][..], &[0, 13, 0, 2, 0, 2][..])
    );
}

#[test]
fn dhcpv6_confirms_informs_and_takes_addresses_back_with_a_status() {
    use dhcpv6::MessageType as M;
    use dhcpv6::option as o;
    let mut bed = bed();
    let (client, server) = ((o::CLIENT_ID, CLIENT), (o::SERVER_ID, DUID));
    let (held, other) = (ia(1, (0, 0), &[("fd00::11", 9)]), ia(1, (0, 0), &[("fd00::12", 9)]));
    let (held, other) = ((o::IA_NA, &held[..]), (o::IA_NA, &other[..]));
    for (kind, options, status) in [
        (M::CONFIRM, vec![client, held], [0, 0]),
        (M::CONFIRM, vec![client, other], [0, 4]),
        (M::RELEASE, vec![client, server, held], [0, 0]),
        (M::DECLINE, vec![client, server, held], [0, 0]),
    ] {
        let (is, said) = reply_v6(&bed.send(11, dhcpv6_frame(kind, &options)));
        assert_eq!(is, M::REPLY);
        assert!(said.contains(&(o::STATUS, status.to_vec())), "{kind}: {said:?}");
    }
    let (is, said) = reply_v6(&bed.send(11, dhcpv6_frame(M::INFORMATION_REQUEST, &[])));
    assert_eq!(is, M::REPLY);
    assert!(said.iter().any(|(code, _)| *code == o::DNS_SERVERS) && !said.iter().any(|it| it.0 == o::IA_NA));
    // Who names another server, none where one must be named, or itself not at all.
    let stranger = (o::SERVER_ID, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9][..]);
    for (kind, options) in [
        (M::SOLICIT, vec![]),
        (M::SOLICIT, vec![client, server]),
        (M::REQUEST, vec![client, held]),
        (M::REQUEST, vec![client, stranger, held]),
        (M::REBIND, vec![client, server, held]),
        (M::CONFIRM, vec![client]),
        (M::INFORMATION_REQUEST, vec![client, held]),
        (M::ADVERTISE, vec![client, server, held]),
        (dhcpv6::MessageType(12), vec![client]),
    ] {
        let fate = bed.send(11, dhcpv6_frame(kind, &options));
        assert_eq!(fate, Fate::drop(DropReason::DhcpUnanswered), "{kind} {options:?}");
    }
    let long = [7; 131];
    let fate = bed.send(11, dhcpv6_frame(M::SOLICIT, &[(o::CLIENT_ID, &long)]));
    assert_eq!(fate, Fate::drop(DropReason::Malformed));
    let fate = bed.send(11, dhcpv6_frame(M::SOLICIT, &[client, (o::IA_NA, &[0; 11])]));
    assert_eq!(fate, Fate::drop(DropReason::Truncated));
}

/// A router solicitation of station 11.
fn solicitation(source: &str, hop_limit: u8) -> Vec<u8> {
    let (source, routers) = (v6(source), v6("ff02::2"));
    let mut message = vec![nd::ROUTER_SOLICIT, 0, 0, 0, 0, 0, 0, 0];
    icmpv6::fill_checksum(&mut message, source, routers);
    let path = Path {
        source_mac: station(11),
        destination_mac: nd::multicast_mac(routers),
        source: source.into(),
        destination: routers.into(),
    };
    let mut frame = build::ip(path, IpProtocol::ICMPV6, &message);
    frame[14 + ipv6::field::HOP_LIMIT] = hop_limit;
    frame
}

#[test]
fn a_router_is_advertised_to_whoever_solicits_it() {
    let mut bed = bed();
    for (source, to) in [("::", "ff02::1"), (ELEVEN, ELEVEN)] {
        let fate = bed.send(11, solicitation(source, 255));
        assert_eq!(fate.ports(), [11], "{fate:?}");
        let frame = &fate.sent[&11];
        let station = if source == "::" { nd::multicast_mac(v6("ff02::1")) } else { station(11) };
        assert_eq!((&frame[..6], &frame[6..12]), (&station.0[..], &SERVER.0[..]));
        let packet = ipv6::View::new(&frame[14..]).unwrap();
        assert_eq!((packet.source(), packet.destination()), (v6(ROUTER), v6(to)));
        assert_eq!((packet.hop_limit(), usize::from(packet.payload_len())), (255, frame.len() - 54));
        let message = icmpv6::View::new(packet.payload()).unwrap();
        assert!(message.checksum_is_valid(packet.source(), packet.destination()));
        // A router for all destinations, addresses by DHCPv6.
        assert_eq!(message.rest(), [64, 0xc0, 0xff, 0xff]);
        let (message, options) = nd::Message::parse(packet.payload()).unwrap().unwrap();
        assert_eq!(message, nd::Message::RouterAdvert);
        let options: Vec<_> = options.map(|option| option.unwrap()).collect();
        let kinds: Vec<_> = options.iter().map(|option| (option.kind, option.data.len() + 2)).collect();
        // The route by another next hop is none that this router could tell.
        assert_eq!(kinds, [(1, 8), (3, 32), (24, 8), (24, 16), (25, 24), (31, 24), (5, 8)]);
        assert_eq!((options[1].data[0], options[1].data[1]), (64, 0x80), "on the link, not autonomous");
        assert_eq!(options[6].data, [0, 0, 0, 0, 0x05, 0x78]);
    }
    assert_eq!(bed.send(11, solicitation(ELEVEN, 64)), Fate::drop(DropReason::Malformed), "from elsewhere");
}

#[test]
fn a_router_without_a_default_route_is_none_for_all_destinations() {
    let mut spec = world();
    spec.networks.get_mut(&NETWORK).unwrap().dhcp.as_mut().unwrap().routes.remove(2);
    let mut bed = Bed::new(Program::build(spec).unwrap());
    let fate = bed.send(11, solicitation("::", 255));
    assert_eq!(fate.sent[&11][58..62], [64, 0xc0, 0, 0]);
}

#[test]
fn the_router_has_the_address_that_it_advertises_from() {
    let mut bed = bed();
    let fate = bed.send(11, build::neighbor_solicit(station(11), v6(ELEVEN), v6(ROUTER)));
    assert_eq!((fate.ports(), &fate.sent[&11][6..12]), (vec![11], &SERVER.0[..]));
    let path = Path {
        source_mac: station(11),
        destination_mac: SERVER,
        source: ip(ELEVEN),
        destination: ip(ROUTER),
    };
    assert_eq!(bed.send(11, build::echo_request(path, 1, 1, b"ping")).ports(), [11]);
}

#[test]
fn a_port_that_asks_without_end_is_not_answered_without_end_and_others_are() {
    let mut bed = bed();
    let discover = ask(dhcpv4::MessageType::DISCOVER, &[]).frame();
    let answered = (0..150).filter(|_| bed.send(11, discover.clone()).ports() == [11]).count();
    assert_eq!((answered, bed.report.drops.get(DropReason::AnswerLimit)), (100, 50));
    let mut others = discover.clone();
    others[6..12].copy_from_slice(&station(12).0);
    let chaddr_at = 14 + 20 + 8 + dhcpv4::field::HARDWARE.start;
    others[chaddr_at..chaddr_at + 6].copy_from_slice(&station(12).0);
    assert_eq!(bed.send(12, others).ports(), [12]);
    bed.now = Now { ms: 1000 };
    assert_eq!(bed.send(11, discover).ports(), [11]);
}

#[test]
fn an_answer_that_is_longer_than_the_ports_mtu_is_none() {
    let mut spec = world();
    spec.ports.values_mut().for_each(|port| port.mtu_bytes = 300);
    let mut bed = Bed::new(Program::build(spec).unwrap());
    let fate = bed.send(11, ask(dhcpv4::MessageType::DISCOVER, &[]).frame());
    assert_eq!(fate, Fate::drop(DropReason::TooBig));
}

#[test]
fn an_explanation_says_what_is_answered() {
    let bed = bed();
    let said = |frame: &[u8]| {
        let explanation =
            bed.switch.explain(crate::Entrance::Port(crate::program::PortNo(11)), frame, Now::default());
        let steps = explanation.steps.into_iter().filter(|step| ["dhcp", "drop"].contains(&step.stage));
        steps.map(|step| step.sentence).next_back().unwrap()
    };
    let discover = ask(dhcpv4::MessageType::DISCOVER, &[]).frame();
    assert_eq!(said(&discover), "answers OFFER: its port's address is 10.0.0.11");
    let other = ask(dhcpv4::MessageType::REQUEST, &[(dhcpv4::option::REQUESTED_ADDRESS, &[10, 0, 0, 9])]);
    assert_eq!(said(&other.frame()), "answers NAK: it asks for another address than its own, 10.0.0.11");
    let solicit = dhcpv6_frame(dhcpv6::MessageType::SOLICIT, &[(dhcpv6::option::CLIENT_ID, CLIENT)]);
    assert_eq!(said(&solicit), "answers ADVERTISE: its port's address is fd00::11");
    assert!(said(&solicitation("::", 255)).starts_with(&format!("answers that {ROUTER} is the router")));
    let release = ask(dhcpv4::MessageType::RELEASE, &[]).frame();
    assert_eq!(said(&release), DropReason::DhcpUnanswered.sentence());
}

#[test]
fn what_cannot_be_told_is_no_program() {
    let wrong = |edit: &dyn Fn(&mut DhcpSpec)| {
        let mut spec = world();
        edit(spec.networks.get_mut(&NETWORK).unwrap().dhcp.as_mut().unwrap());
        match Program::build(spec) {
            Err(ProgramError::Dhcp { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert!(wrong(&|dhcp| dhcp.mac = MacAddr::BROADCAST).contains("no station's"));
    assert!(wrong(&|dhcp| dhcp.mac = station(1)).contains("not the gateway's"));
    for server in ["fd00::1/64", "10.0.0.1/33", "0.0.0.0/0", "224.0.0.1/24"] {
        assert!(wrong(&|dhcp| dhcp.servers = vec![prefix(server)]).contains("no IPv4 station's"), "{server}");
    }
    assert!(wrong(&|dhcp| dhcp.routes = vec![(prefix("0.0.0.0/0"), ip("fd00::1"))]).contains("cannot be"));
    assert!(wrong(&|dhcp| dhcp.search = vec!["not a name".into()]).contains("no name"));
    assert!(wrong(&|dhcp| dhcp.domain = Some("a..b".into())).contains("no name"));
    for many in [40, 400] {
        let servers = vec![ip("10.0.0.53"); many];
        assert!(wrong(&|dhcp| dhcp.nameservers.clone_from(&servers)).contains("room"));
    }
    let names = vec!["abcdefgh.example.org".to_owned(); 100];
    assert!(wrong(&|dhcp| dhcp.search.clone_from(&names)).contains("room"));
}

proptest! {
    #[test]
    fn hostile_questions_have_one_fate_and_no_answer_leaves_by_another_port(
        is_v4: bool, head in any::<[u8; 4]>(), tail in prop::collection::vec(any::<u8>(), 0..1400),
        kind in 0_u8..16, honest: bool,
    ) {
        let mut bed = bed();
        let frame = if is_v4 {
            let mut message = vec![0; dhcpv4::FIXED_BYTES];
            ask(dhcpv4::MessageType(kind), &[]).repr().emit(&mut message);
            if honest {
                message.extend([53, 1, kind]);
            }
            message.extend(tail);
            udp_from(ip("0.0.0.0"), ip("255.255.255.255"), (68, 67), &message)
        } else {
            let mut message = vec![kind, head[1], head[2], head[3]];
            if honest {
                message.extend([0, 1, 0, 10]);
                message.extend(CLIENT);
                message.extend([0, 3, 0, head[0]]);
            }
            message.extend(tail);
            udp_from(ip(ELEVEN), dhcpv6::ALL_SERVERS.into(), (546, 547), &message)
        };
        bed.switch.explain(crate::Entrance::Port(crate::program::PortNo(11)), &frame, Now::default());
        let fate = bed.send(11, frame);
        prop_assert!(fate.ports().iter().all(|port| *port == 11));
        prop_assert!(fate.sent.values().all(|frame| frame.len() <= 1414));
    }
}
