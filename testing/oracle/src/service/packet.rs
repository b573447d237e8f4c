//! What do the ends of a connection send, and what do they read in what arrives?

use std::net::IpAddr;

use vswitch::program::FrontendSpec;
use wire::build::{self, Path};
use wire::checksum::{pseudo_v4, pseudo_v6};
use wire::tcp::{self, Flags};
use wire::{EtherType, IpProtocol, ethernet, icmpv4, icmpv6, ipv4, ipv6, sctp};

/// The tags that the ends of an SCTP association ask for.
const CLIENT_TAG: u32 = 1;
const SERVER_TAG: u32 = 2;

/// A packet of a connection: its end's first, second, or any later one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) protocol: IpProtocol,
    pub(super) round: u32,
    pub(super) is_answer: bool,
}

impl Packet {
    /// Its frame; `ports` are source and destination.
    pub(super) fn frame(self, path: Path, ports: (u16, u16)) -> Vec<u8> {
        match self.protocol {
            IpProtocol::TCP => self.segment(path, ports),
            IpProtocol::SCTP => self.chunk(path, ports),
            _ => build::udp(path, ports, b"datagram"),
        }
    }

    /// SYN, SYN and ACK, then ACKs.
    fn segment(self, path: Path, ports: (u16, u16)) -> Vec<u8> {
        let is_first = self.round == 0;
        let (own, other) = if self.is_answer { (5000, 1001) } else { (1000, 5001) };
        let (flags, acknowledgement) = match (is_first, self.is_answer) {
            (true, false) => (Flags::SYN, 0),
            (true, true) => (Flags::SYN.with(Flags::ACK), other),
            _ => (Flags::ACK, other),
        };
        let header = tcp::Repr {
            source_port: ports.0,
            destination_port: ports.1,
            sequence: own + u32::from(!is_first),
            acknowledgement,
            flags,
            window: 1000,
            urgent: 0,
            options: &[],
        };
        build::tcp(path, &header, b"")
    }

    /// INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, then DATA and SACK (RFC 9260 §3.2).
    fn chunk(self, path: Path, ports: (u16, u16)) -> Vec<u8> {
        let (kinds, own, other) = if self.is_answer {
            ([2, 11, 3], SERVER_TAG, CLIENT_TAG)
        } else {
            ([1, 10, 0], CLIENT_TAG, SERVER_TAG)
        };
        let is_first = self.round == 0;
        let tag = if is_first && !self.is_answer { 0 } else { other };
        let mut chunk = vec![kinds[self.round.min(2) as usize], 0, 0, 20];
        chunk.extend(own.to_be_bytes());
        chunk.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let mut packet = vec![0; sctp::HEADER_BYTES];
        sctp::Repr { source_port: ports.0, destination_port: ports.1, tag }.emit(&mut packet);
        packet.extend_from_slice(&chunk);
        sctp::fill_checksum(&mut packet);
        build::ip(path, IpProtocol::SCTP, &packet)
    }
}

/// What one reads who gets a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// One of a connection.
    Packet { from: FrontendSpec, to: FrontendSpec },
    /// Nobody serves what it was sent to.
    Refusal,
    /// Something else.
    Other,
}

impl Seen {
    /// Reads a frame. Its checksums are right.
    pub(super) fn read(frame: &[u8]) -> Seen {
        let view = ethernet::View::new(frame).expect("a frame");
        let (ends, protocol, payload, pseudo) = if view.ether_type() == EtherType::IPV4 {
            let ip = ipv4::View::new(view.payload()).expect("an IPv4 packet");
            assert!(ip.checksum_is_valid(), "the IPv4 header's checksum");
            let (from, to, payload) = (ip.source(), ip.destination(), ip.payload());
            let pseudo = pseudo_v4(from, to, ip.protocol(), payload.len() as u16);
            ((IpAddr::V4(from), IpAddr::V4(to)), ip.protocol(), payload, pseudo)
        } else {
            let ip = ipv6::View::new(view.payload()).expect("an IPv6 packet");
            let (from, to, payload) = (ip.source(), ip.destination(), ip.payload());
            let pseudo = pseudo_v6(from, to, ip.next_header(), payload.len() as u32);
            ((IpAddr::V6(from), IpAddr::V6(to)), ip.next_header(), payload, pseudo)
        };
        if protocol == IpProtocol::SCTP {
            assert!(sctp::View::new(payload).expect("a packet").checksum_is_valid(), "SCTP's checksum");
        } else if protocol != IpProtocol::ICMP {
            assert_eq!(pseudo.add_bytes(payload).checksum(), 0, "the checksum of {protocol}");
        }
        match protocol {
            IpProtocol::ICMP | IpProtocol::ICMPV6 => Seen::message(protocol, payload),
            _ => {
                let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
                let [from, to] = [(ends.0, port(0)), (ends.1, port(2))].map(|(address, port)| FrontendSpec {
                    address,
                    protocol,
                    port,
                });
                Seen::Packet { from, to }
            }
        }
    }

    /// Port unreachable, or something else (RFC 792, RFC 4443 §3.1).
    fn message(protocol: IpProtocol, message: &[u8]) -> Seen {
        let [kind, code, ..] = message else { return Seen::Other };
        let refusal =
            if protocol == IpProtocol::ICMP { (icmpv4::UNREACHABLE, 3) } else { (icmpv6::UNREACHABLE, 4) };
        if (*kind, *code) == refusal { Seen::Refusal } else { Seen::Other }
    }
}
