//! A port with security sends with its own addresses only.

use std::net::Ipv6Addr;

use frame::DropReason;
use wire::build::{self, Path};
use wire::{EtherType, IpProtocol, MacAddr};

use super::{Bed, Fate, path, port, station, udp};
use crate::program::PortSpec;

const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Of station 1.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);

/// Station 1 with 10.0.0.1 and 2001:db8::1 behind port 1.
fn secured() -> Bed {
    let ips = vec![[10, 0, 0, 1].into(), GLOBAL.into()];
    Bed::with([PortSpec { macs: vec![station(1)], ips, port_security: true, ..port(1) }, port(2)])
}

fn v6(source: Ipv6Addr) -> Path {
    Path { source: source.into(), destination: OTHER.into(), ..path(1, 2) }
}

fn passes(bed: &mut Bed, frame: Vec<u8>) {
    assert_eq!(bed.send(1, frame.clone()).ports(), [2]);
    assert_eq!(bed.send(1, frame).ports(), [2], "the second time");
}

fn ends(bed: &mut Bed, frame: Vec<u8>, reason: DropReason) {
    assert_eq!(bed.send(1, frame.clone()), Fate::drop(reason));
    assert_eq!(bed.send(1, frame), Fate::drop(reason), "the second time");
}

#[test]
fn own_addresses_pass_and_those_of_others_do_not() {
    let mut bed = secured();
    passes(&mut bed, udp(1, 2));
    ends(&mut bed, udp(3, 2), DropReason::SpoofedMac);
    let spoofed = Path { source: [10, 0, 0, 3].into(), ..path(1, 2) };
    ends(&mut bed, build::udp(spoofed, (1, 2), b""), DropReason::SpoofedIp);
    passes(&mut bed, build::udp(v6(GLOBAL), (1, 2), b""));
    passes(&mut bed, build::udp(v6(LINK_LOCAL), (1, 2), b""));
    ends(&mut bed, build::udp(v6(OTHER), (1, 2), b""), DropReason::SpoofedIp);
}

#[test]
fn a_port_without_security_may_use_any_address() {
    let mut bed = secured();
    assert_eq!(bed.send(2, udp(9, 1)).ports(), [1]);
}

#[test]
fn a_list_without_ips_allows_any_and_still_checks_the_mac() {
    let mut bed = Bed::with([PortSpec { macs: vec![station(1)], port_security: true, ..port(1) }, port(2)]);
    passes(&mut bed, udp(1, 2));
    passes(&mut bed, build::udp(v6(OTHER), (1, 2), b""));
    ends(&mut bed, udp(3, 2), DropReason::SpoofedMac);
    let mut arp = build::arp_request(station(3), [10, 9, 9, 9].into(), [10, 0, 0, 2].into());
    arp[6..12].copy_from_slice(&station(1).0);
    ends(&mut bed, arp, DropReason::SpoofedMac);
}

#[test]
fn dhcp_before_an_address_passes_and_nothing_else_does() {
    let mut bed = secured();
    let nobody = Path { source: [0, 0, 0, 0].into(), ..path(1, 2) };
    passes(&mut bed, build::udp(nobody, (68, 67), b"discover"));
    ends(&mut bed, build::udp(nobody, (68, 53), b""), DropReason::SpoofedIp);
    ends(&mut bed, build::tcp_syn(nobody, (68, 67)), DropReason::SpoofedIp);
}

#[test]
fn arp_claims_are_checked_and_probes_pass() {
    let mut bed = secured();
    let request = |mac, ip: [u8; 4]| build::arp_request(mac, ip.into(), [10, 0, 0, 2].into());
    passes(&mut bed, request(station(1), [10, 0, 0, 1]));
    passes(&mut bed, request(station(1), [0, 0, 0, 0]));
    ends(&mut bed, request(station(1), [10, 0, 0, 2]), DropReason::SpoofedIp);
    // The Ethernet source is honest, the claim inside is not.
    let mut claim = request(station(3), [10, 0, 0, 1]);
    claim[6..12].copy_from_slice(&station(1).0);
    ends(&mut bed, claim.clone(), DropReason::SpoofedMac);
    // IEEE 802 as the hardware type, which hosts accept for Ethernet.
    claim[15] = 6;
    ends(&mut bed, claim, DropReason::SpoofedMac);
}

#[test]
fn later_fragments_are_checked_too() {
    let mut bed = secured();
    let fragment = |source: [u8; 4]| {
        let mut frame = build::udp(Path { source: source.into(), ..path(1, 2) }, (1, 2), &[0; 64]);
        frame[20..22].copy_from_slice(&8u16.to_be_bytes());
        frame
    };
    passes(&mut bed, fragment([10, 0, 0, 1]));
    ends(&mut bed, fragment([10, 0, 0, 2]), DropReason::SpoofedIp);
}

#[test]
fn neighbour_discovery_claims_are_checked() {
    let mut bed = secured();
    passes(&mut bed, build::neighbor_solicit(station(1), GLOBAL, OTHER));
    passes(&mut bed, build::neighbor_advert(v6(GLOBAL)));
    passes(&mut bed, build::neighbor_advert(v6(LINK_LOCAL)));
    // An advertisement for another's address, sent from one's own.
    let mut advert = build::neighbor_advert(v6(GLOBAL));
    advert[14 + 40 + 8..][..16].copy_from_slice(&OTHER.octets());
    ends(&mut bed, advert, DropReason::SpoofedIp);
    // The link-layer address option names somebody else.
    let mut advert = build::neighbor_advert(v6(GLOBAL));
    let at = advert.len() - 6;
    advert[at..].copy_from_slice(&station(3).0);
    ends(&mut bed, advert, DropReason::SpoofedMac);
}

#[test]
fn a_probe_for_a_duplicate_passes_for_own_addresses_only() {
    let mut bed = secured();
    passes(&mut bed, build::neighbor_solicit(station(1), Ipv6Addr::UNSPECIFIED, GLOBAL));
    passes(&mut bed, build::neighbor_solicit(station(1), Ipv6Addr::UNSPECIFIED, LINK_LOCAL));
    ends(&mut bed, build::neighbor_solicit(station(1), Ipv6Addr::UNSPECIFIED, OTHER), DropReason::SpoofedIp);
    ends(&mut bed, build::udp(v6(Ipv6Addr::UNSPECIFIED), (1, 2), b""), DropReason::SpoofedIp);
}

#[test]
fn neighbour_discovery_padded_to_an_ethernet_frame_passes() {
    let mut bed = secured();
    let solicit = build::neighbor_solicit(station(1), Ipv6Addr::UNSPECIFIED, GLOBAL);
    passes(&mut bed, [solicit, vec![0; 32]].concat());
}

#[test]
fn what_hides_a_claim_is_refused() {
    let mut bed = secured();
    ends(&mut bed, build::tagged(5, &build::tagged(6, &udp(1, 2))), DropReason::VlanNotAllowed);
    // Extension headers beyond the head: nobody can see what follows.
    let options = [IpProtocol::DESTINATION_OPTIONS.0, 15].into_iter().chain([0; 126]);
    let deep: Vec<u8> = options.chain([0; 64]).collect();
    ends(&mut bed, build::ip(v6(GLOBAL), IpProtocol::DESTINATION_OPTIONS, &deep), DropReason::SpoofedIp);
    // A neighbour discovery message in fragments (RFC 6980).
    let advert = build::neighbor_advert(v6(GLOBAL));
    let fragment = [&[IpProtocol::ICMPV6.0, 0, 0, 1, 0, 0, 0, 9], &advert[54..]].concat();
    ends(&mut bed, build::ip(v6(GLOBAL), IpProtocol::FRAGMENT, &fragment), DropReason::SpoofedIp);
    // One with more options than the head shows.
    let long = [&advert[54..], &[2, 10], &[0; 78]].concat();
    ends(&mut bed, build::ip(v6(GLOBAL), IpProtocol::ICMPV6, &long), DropReason::SpoofedIp);
}

#[test]
fn frames_that_are_not_ip_pass_by_their_mac() {
    let mut bed = secured();
    let frame = |source: MacAddr| build::ethernet(source, station(2), EtherType(0x88b5), &[0; 46]);
    passes(&mut bed, frame(station(1)));
    ends(&mut bed, frame(station(3)), DropReason::SpoofedMac);
}

#[test]
fn security_without_stations_lets_nothing_pass() {
    let mut bed = Bed::with([PortSpec { port_security: true, ..port(1) }, port(2)]);
    ends(&mut bed, udp(1, 2), DropReason::SpoofedMac);
}
