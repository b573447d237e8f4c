//! What is a host told that asks for its configuration? The answers that the stage `dhcp` decided on.
//!
//! Nothing is negotiated: a host gets the addresses that its port lists, however often it asks, and the switch keeps no state
//! about it. A question is copied out of its sender's memory once, as much of it as any question has, and read from there.

mod advert;
mod v4;
mod v6;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frame::{DropReason, MAX_REPLACED_BYTES};
use wire::{EtherType, IpProtocol, MacAddr, checksum, dhcpv4, dhcpv6, ethernet, ipv4, ipv6, udp};

use crate::gateway::{Handled, TTL};
use crate::program::{Dhcp, Lease};

/// The longest frame that is read as a question; what is behind it is not looked at.
const MAX_QUESTION_BYTES: usize = 1514;
/// How long a host may use its addresses without asking again. They are its port's as long as that lives, so that the time
/// says something else: how old what it knows of routes and servers can be, and how long (half of it) a switch may be away
/// without any host noticing.
const LEASE_S: u32 = 24 * 3600;
/// When a host asks again, and when it asks everybody (RFC 2131 §4.4.5).
const RENEW_S: u32 = LEASE_S / 2;
const REBIND_S: u32 = LEASE_S / 8 * 7;

/// What a host asks by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    DhcpV4,
    DhcpV6,
    /// A router solicitation.
    Router,
}

impl Asked {
    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::DhcpV4 => "by DHCP",
            Self::DhcpV6 => "by DHCPv6",
            Self::Router => "by a router advertisement",
        }
    }
}

/// What a host was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    DhcpV4(dhcpv4::MessageType, Ipv4Addr),
    DhcpV6(dhcpv6::MessageType, Ipv6Addr),
    Router(Ipv6Addr),
}

impl Told {
    /// For people.
    pub(crate) fn words(self) -> String {
        match self {
            Self::DhcpV4(dhcpv4::MessageType::NAK, ip) => {
                format!("answers NAK: it asks for another address than its own, {ip}")
            }
            Self::DhcpV4(kind, ip) => format!("answers {kind}: its port's address is {ip}"),
            Self::DhcpV6(kind, ip) => format!("answers {kind}: its port's address is {ip}"),
            Self::Router(own) => {
                format!("answers that {own} is the router, and addresses are given by DHCPv6")
            }
        }
    }
}

impl Handled<'_> {
    /// Puts the answer in the question's place.
    pub(crate) fn configure(&mut self, asked: Asked) -> Result<Told, DropReason> {
        let program = self.program;
        let port = program.port(self.origin.port).ok_or(DropReason::DhcpUnanswered)?;
        let dhcp = program.network(self.network).and_then(|network| network.dhcp.as_ref());
        let told = dhcp.zip(port.lease.as_deref()).ok_or(DropReason::DhcpUnanswered)?;
        match asked {
            Asked::DhcpV4 => self.dhcp_v4(told, port.mtu_bytes),
            Asked::DhcpV6 => self.dhcp_v6(told, port.mtu_bytes),
            Asked::Router => self.advertise(told.0, port.mtu_bytes),
        }
    }

    fn dhcp_v4(&mut self, (dhcp, lease): (&Dhcp, &Lease), mtu_bytes: u32) -> Result<Told, DropReason> {
        let mut question = [0; MAX_QUESTION_BYTES];
        let ask = dhcpv4::View::new(self.question(&mut question)?).map_err(drop_reason)?;
        let address = lease.v4.ok_or(DropReason::DhcpUnanswered)?;
        let server = dhcp.server(address).ok_or(DropReason::DhcpUnanswered)?;
        let mut answer = Datagram::new(ipv4::MIN_HEADER_BYTES);
        let ask = v4::Ask { ask, from: self.asker(), address, server, mtu_bytes };
        let reply = ask.reply(answer.payload())?;
        let station = if reply.to.is_broadcast() { MacAddr::BROADCAST } else { self.asker() };
        answer.seal(&Envelope {
            stations: (dhcp.mac, station),
            addresses: (server.address.into(), reply.to.into()),
            ports: (dhcpv4::SERVER_PORT, dhcpv4::CLIENT_PORT),
            payload_bytes: reply.bytes,
        });
        self.put(&answer, mtu_bytes)?;
        Ok(Told::DhcpV4(reply.kind, address))
    }

    fn dhcp_v6(&mut self, (dhcp, lease): (&Dhcp, &Lease), mtu_bytes: u32) -> Result<Told, DropReason> {
        let mut question = [0; MAX_QUESTION_BYTES];
        let ask = dhcpv6::View::new(self.question(&mut question)?).map_err(drop_reason)?;
        let address = lease.v6.ok_or(DropReason::DhcpUnanswered)?;
        let mut answer = Datagram::new(ipv6::HEADER_BYTES);
        let (kind, payload_bytes) = v6::reply(&ask, address, dhcp, answer.payload())?;
        answer.seal(&Envelope {
            stations: (dhcp.mac, self.asker()),
            addresses: (dhcp.link_local.into(), self.addresses().0),
            ports: (dhcpv6::SERVER_PORT, dhcpv6::CLIENT_PORT),
            payload_bytes,
        });
        self.put(&answer, mtu_bytes)?;
        Ok(Told::DhcpV6(kind, address))
    }

    /// The message of the datagram, copied into `room`.
    fn question<'b>(&self, room: &'b mut [u8; MAX_QUESTION_BYTES]) -> Result<&'b [u8], DropReason> {
        let frame = self.burst.gather(self.frame);
        let room = &mut room[..frame.len().min(MAX_QUESTION_BYTES)];
        frame.split(0, room.len()).copy_to_slice(room);
        let room: &'b [u8] = room;
        let datagram = room.get(usize::from(self.packet.transport_at)..).unwrap_or_default();
        Ok(udp::View::new(datagram).map_err(drop_reason)?.payload())
    }

    fn put(&mut self, answer: &Datagram, mtu_bytes: u32) -> Result<(), DropReason> {
        let bytes = &answer.bytes[..answer.len];
        let fits = bytes.len() - ethernet::HEADER_BYTES <= mtu_bytes as usize;
        (fits && self.burst.replace(self.frame, bytes)).then_some(()).ok_or(DropReason::TooBig)
    }
}

/// Who sends an answer to whom.
struct Envelope {
    stations: (MacAddr, MacAddr),
    addresses: (IpAddr, IpAddr),
    ports: (u16, u16),
    payload_bytes: usize,
}

/// A frame around a UDP datagram, whose payload is written first.
struct Datagram {
    bytes: [u8; MAX_REPLACED_BYTES],
    udp_at: usize,
    len: usize,
}

impl Datagram {
    fn new(ip_bytes: usize) -> Self {
        Self { bytes: [0; MAX_REPLACED_BYTES], udp_at: ethernet::HEADER_BYTES + ip_bytes, len: 0 }
    }

    fn payload(&mut self) -> &mut [u8] {
        &mut self.bytes[self.udp_at + udp::HEADER_BYTES..]
    }

    /// Writes the headers.
    fn seal(&mut self, envelope: &Envelope) {
        let Envelope { stations: (from, to), addresses, ports: (source_port, destination_port), .. } =
            *envelope;
        let udp_bytes = udp::HEADER_BYTES + envelope.payload_bytes;
        self.len = self.udp_at + udp_bytes;
        let (headers, rest) = self.bytes.split_at_mut(self.udp_at);
        let datagram = &mut rest[..udp_bytes];
        let payload_len = envelope.payload_bytes as u16;
        udp::Repr { source_port, destination_port, payload_len }.emit(datagram);
        let (ether_type, pseudo) = match addresses {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header_v4((source, destination), udp_bytes).emit(&mut headers[ethernet::HEADER_BYTES..]);
                let pseudo = checksum::pseudo_v4(source, destination, IpProtocol::UDP, udp_bytes as u16);
                (EtherType::IPV4, pseudo)
            }
            (source, destination) => {
                let (source, destination) = (to_v6(source), to_v6(destination));
                header_v6((source, destination), udp_bytes).emit(&mut headers[ethernet::HEADER_BYTES..]);
                let pseudo = checksum::pseudo_v6(source, destination, IpProtocol::UDP, udp_bytes as u32);
                (EtherType::IPV6, pseudo)
            }
        };
        let sum = pseudo.add_bytes(datagram).checksum_nonzero();
        datagram[udp::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        ethernet::Repr { source: from, destination: to, ether_type }.emit(headers);
    }
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn header_v4((source, destination): (Ipv4Addr, Ipv4Addr), payload_bytes: usize) -> ipv4::Repr<'static> {
    ipv4::Repr {
        tos: 0,
        id: 0,
        fragment: 0,
        ttl: TTL,
        protocol: IpProtocol::UDP,
        source,
        destination,
        options: &[],
        payload_len: payload_bytes as u16,
    }
}

fn header_v6((source, destination): (Ipv6Addr, Ipv6Addr), payload_bytes: usize) -> ipv6::Repr {
    ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        next_header: IpProtocol::UDP,
        hop_limit: TTL,
        source,
        destination,
        payload_len: payload_bytes as u16,
    }
}

fn drop_reason(error: wire::Error) -> DropReason {
    match error {
        wire::Error::Truncated(_) => DropReason::Truncated,
        wire::Error::Malformed(_) => DropReason::Malformed,
    }
}
