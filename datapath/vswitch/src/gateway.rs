//! How is a packet routed, and what does the gateway say? The edits of frames that the stage `gateway` decided on.
//!
//! A routed frame keeps its body and gets new stations and one hop less. An answer takes the place of its question and leaves
//! by the port that it came in by, so that a frame is still one frame in the ledger.
//!
//! Complaints (RFC 792, RFC 4443) are bounded in number, and never about complaints, fragments that are not the first, or
//! senders that cannot be told (RFC 1122 §3.2.2, RFC 4443 §2.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frame::{Burst, Checksum, DropReason, HEAD_BYTES};
use wire::{EtherType, IpProtocol, MacAddr, arp, checksum, ethernet, icmpv4, icmpv6, ipv4, ipv6, nd};

use crate::actions::Origin;
use crate::dhcp::Asked;
use crate::key::{Field, class, ip, mac};
use crate::outputs::{Egress, Outputs};
use crate::parse::Packet;
use crate::program::{Gateway, HopNo, NetworkNo, PortNo, Program};
use crate::switch::ProcessReport;
use crate::time::Now;

/// Complaints of one switch in a second: what Linux sends at most, too (`icmp_msgs_per_sec`).
const COMPLAINTS_PER_S: u32 = 1000;
/// Hosts of one port that one switch tells their addresses in a second: one host asks a few times, a port that is asked for
/// many (a test's, a host's that starts again and again) not more often than that.
const CONFIGURATIONS_PER_S: u32 = 100;
/// Hops of what the gateway sends itself (RFC 1700); neighbour discovery's never leave the link (RFC 4861 §7.1.2).
pub(crate) const TTL: u8 = 64;
pub(crate) const LINK_TTL: u8 = 255;
/// The group of all hosts of a link (RFC 4291 §2.7.1).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What the gateway says instead of forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// That the address asked about is at this station.
    Arp(MacAddr),
    /// The same for neighbour discovery.
    Neighbor(MacAddr),
    /// The echo.
    Echo,
    /// The asking host's addresses, and what it is to know of its network.
    Configure(Asked),
    /// Why it goes no further.
    Complain(Complaint),
}

impl Answer {
    /// For people.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Arp(mac) | Self::Neighbor(mac) => format!("it is at {mac}"),
            Self::Echo => "the echo".to_owned(),
            Self::Configure(asked) => format!("its configuration, {}", asked.words()),
            Self::Complain(complaint) => complaint.reason().sentence().to_owned(),
        }
    }
}

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaint {
    NoRoute,
    NoNeighbor,
    Expired,
    /// Nobody serves the address and port.
    NoEndpoint,
    /// The next link takes packets of this many bytes.
    TooBig(u32),
}

impl Complaint {
    fn reason(self) -> DropReason {
        match self {
            Self::NoRoute => DropReason::NoRoute,
            Self::NoNeighbor => DropReason::NoNeighbor,
            Self::Expired => DropReason::TtlExpired,
            Self::NoEndpoint => DropReason::NoEndpoint,
            Self::TooBig(_) => DropReason::TooBig,
        }
    }

    /// Type, code and last four bytes of the header (RFC 792; RFC 1191 §4 for the MTU).
    fn header_v4(self) -> icmpv4::Repr {
        let repr = |kind, code, rest| icmpv4::Repr { kind, code, rest };
        match self {
            Self::NoRoute => repr(icmpv4::UNREACHABLE, 0, [0; 4]),
            Self::NoNeighbor => repr(icmpv4::UNREACHABLE, 1, [0; 4]),
            Self::Expired => repr(icmpv4::TIME_EXCEEDED, 0, [0; 4]),
            Self::NoEndpoint => repr(icmpv4::UNREACHABLE, 3, [0; 4]),
            Self::TooBig(mtu_bytes) => {
                let rest = mtu_bytes.min(u16::MAX.into()).to_be_bytes();
                repr(icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED, rest)
            }
        }
    }

    /// The same of RFC 4443 §3.
    fn header_v6(self) -> icmpv6::Repr {
        let repr = |kind, code, rest| icmpv6::Repr { kind, code, rest };
        match self {
            Self::NoRoute => repr(icmpv6::UNREACHABLE, 0, [0; 4]),
            Self::NoNeighbor => repr(icmpv6::UNREACHABLE, 3, [0; 4]),
            Self::Expired => repr(icmpv6::TIME_EXCEEDED, 0, [0; 4]),
            Self::NoEndpoint => repr(icmpv6::UNREACHABLE, 4, [0; 4]),
            Self::TooBig(mtu_bytes) => repr(icmpv6::PACKET_TOO_BIG, 0, mtu_bytes.to_be_bytes()),
        }
    }
}

/// How much a switch may still say of what others could make it say without end.
#[derive(Debug)]
pub(crate) struct Budget {
    complaints: Second,
    /// Of all ports that have the same number but for multiples of how many these are: who asks too much takes from few.
    configurations: [Second; 64],
}

/// What was said in one second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    spent: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { complaints: Second::default(), configurations: [Second::default(); 64] }
    }
}

impl Budget {
    fn complain(&mut self, now: Now) -> bool {
        self.complaints.take(COMPLAINTS_PER_S, now)
    }

    fn configure(&mut self, port: PortNo, now: Now) -> bool {
        let share = usize::from(port.0) % self.configurations.len();
        self.configurations[share].take(CONFIGURATIONS_PER_S, now)
    }
}

impl Second {
    fn take(&mut self, limit: u32, now: Now) -> bool {
        if now.ms / 1000 != self.number {
            *self = Self { number: now.ms / 1000, spent: 0 };
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= limit
    }
}

/// A frame that the gateway takes care of.
pub(crate) struct Handled<'a> {
    pub(crate) burst: &'a mut Burst,
    pub(crate) frame: usize,
    pub(crate) packet: &'a Packet,
    /// Where it came from, and its network.
    pub(crate) origin: Origin,
    pub(crate) network: NetworkNo,
    pub(crate) program: &'a Program,
    pub(crate) now: Now,
}

impl Handled<'_> {
    /// Sends the packet on to `hop`, or says why not.
    ///
    /// # Errors
    /// Why not: its sender is told, or it is dropped.
    #[inline(never)]
    pub(crate) fn route(
        mut self,
        hop: HopNo,
        budget: &mut Budget,
        (out, report): (&mut Outputs, &mut ProcessReport),
    ) -> Result<(), DropReason> {
        let Some(hop) = self.program.hop(hop) else {
            report.drops.add(DropReason::NoNeighbor, 1);
            return Err(DropReason::NoNeighbor);
        };
        if let Err(complaint) = self.pass(hop.mtu_bytes) {
            self.answer(Answer::Complain(complaint), budget, (out, report));
            return Err(complaint.reason());
        }
        let head = self.burst.head_mut(self.frame);
        head[..6].copy_from_slice(&hop.mac.0);
        head[6..12].copy_from_slice(&hop.gateway_mac.0);
        match hop.tunnel {
            None => out.push(hop.port, Egress::Plain, self.frame),
            Some(tunnel) => out.push(self.program.uplink(), Egress::Tunnel(tunnel), self.frame),
        }
        Ok(())
    }

    /// Takes one hop off, where that is not done yet: the gateway is one router on all nodes.
    fn pass(&mut self, mtu_bytes: u32) -> Result<(), Complaint> {
        if self.packet.network_bytes > mtu_bytes {
            return Err(Complaint::TooBig(mtu_bytes));
        }
        if self.origin.tunnel.is_some() {
            return Ok(());
        }
        let at = usize::from(self.packet.link_bytes);
        let is_v4 = self.is_v4();
        let ip = &mut self.burst.head_mut(self.frame)[at..];
        let ttl = if is_v4 { ipv4::field::TTL } else { ipv6::field::HOP_LIMIT };
        if ip[ttl] <= 1 {
            return Err(Complaint::Expired);
        }
        ip[ttl] -= 1;
        if is_v4 {
            // TTL and protocol are one word of the sum (RFC 1624).
            let word = [ip[ttl], ip[ttl + 1]];
            fix(&mut ip[ipv4::field::CHECKSUM], &[word[0] + 1, word[1]], &word);
        }
        Ok(())
    }

    /// Puts the answer in the frame's place, or drops the frame where none may be given.
    #[inline(never)]
    pub(crate) fn answer(
        mut self,
        answer: Answer,
        budget: &mut Budget,
        (out, report): (&mut Outputs, &mut ProcessReport),
    ) {
        match self.try_answer(answer, budget) {
            Ok(()) => {
                let (port, egress) = self.origin.back(self.program);
                out.push(port, egress, self.frame);
            }
            Err(reason) => report.drops.add(reason, 1),
        }
    }

    fn try_answer(&mut self, answer: Answer, budget: &mut Budget) -> Result<(), DropReason> {
        match answer {
            Answer::Arp(mac) => self.arp(mac).ok_or(DropReason::ForGateway)?,
            Answer::Neighbor(mac) => self.neighbor(mac).ok_or(DropReason::ForGateway)?,
            Answer::Echo => self.echo(),
            Answer::Configure(asked) => {
                if !budget.configure(self.origin.port, self.now) {
                    return Err(DropReason::AnswerLimit);
                }
                self.configure(asked)?;
            }
            Answer::Complain(complaint) => {
                let told = self.may_complain(complaint) && budget.complain(self.now);
                let told = told.then(|| self.complain(complaint)).flatten();
                return told.ok_or(complaint.reason());
            }
        }
        Ok(())
    }

    fn is_v4(&self) -> bool {
        self.packet.key.get(Field::ETHER_TYPE) == u64::from(EtherType::IPV4.0)
    }

    pub(crate) fn addresses(&self) -> (IpAddr, IpAddr) {
        let read = |[high, low]: [Field; 2]| ip(self.packet.key.get(high), self.packet.key.get(low));
        (read(Field::SOURCE_IP), read(Field::DESTINATION_IP))
    }

    /// The station that sent it.
    pub(crate) fn asker(&self) -> MacAddr {
        mac(self.packet.key.get(Field::SOURCE_MAC))
    }

    fn gateway(&self) -> Option<&Gateway> {
        self.program.network(self.network)?.gateway.as_ref()
    }

    /// The addresses of stations of a frame from `source` back to whoever sent this one.
    fn link(&self, source: MacAddr, ether_type: EtherType, out: &mut [u8]) {
        out[..6].copy_from_slice(&self.asker().0);
        out[6..12].copy_from_slice(&source.0);
        out[12..14].copy_from_slice(&ether_type.0.to_be_bytes());
    }

    /// In place: the question is as long as the answer.
    fn arp(&mut self, owner: MacAddr) -> Option<()> {
        let at = usize::from(self.packet.link_bytes);
        // None of another hardware: who asks of that cannot be told.
        let asked = arp::View::new(self.burst.head(self.frame).get(at..)?).ok()?;
        let reply = arp::Repr {
            operation: arp::REPLY,
            sender_mac: owner,
            sender_ip: asked.target_ip(),
            target_mac: asked.sender_mac(),
            target_ip: asked.sender_ip(),
        };
        let mut bytes = [0; ethernet::HEADER_BYTES + arp::PACKET_BYTES];
        self.link(owner, EtherType::ARP, &mut bytes);
        reply.emit(&mut bytes[ethernet::HEADER_BYTES..]);
        self.burst.replace(self.frame, &bytes);
        Some(())
    }

    /// RFC 4861 §7.2.4. To all where the asking station has no address yet.
    fn neighbor(&mut self, owner: MacAddr) -> Option<()> {
        let at = usize::from(self.packet.transport_at);
        let (IpAddr::V6(asker), _) = self.addresses() else { return None };
        let message = nd::Message::parse(self.burst.head(self.frame).get(at..)?).ok()??;
        let nd::Message::NeighborSolicit { target } = message.0 else { return None };
        let is_gateway = self.gateway()?.has(target.into());
        let sourceless = asker.is_unspecified();
        let router = if is_gateway { nd::FLAG_ROUTER } else { 0 };
        let solicited = if sourceless { 0 } else { nd::FLAG_SOLICITED };
        let repr = nd::Repr {
            kind: nd::NEIGHBOR_ADVERT,
            flags: router | solicited | nd::FLAG_OVERRIDE,
            target,
            mac: Some(owner),
        };
        let destination = if sourceless { ALL_NODES } else { asker };
        let mut bytes = [0; HEAD_BYTES];
        let payload_at = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES;
        let end = payload_at + repr.message_len();
        self.link(owner, EtherType::IPV6, &mut bytes);
        if sourceless {
            bytes[..6].copy_from_slice(&nd::multicast_mac(ALL_NODES).0);
        }
        header_v6((target, destination), LINK_TTL, repr.message_len())
            .emit(&mut bytes[ethernet::HEADER_BYTES..]);
        repr.emit(&mut bytes[payload_at..end]);
        icmpv6::fill_checksum(&mut bytes[payload_at..end], target, destination);
        self.burst.replace(self.frame, &bytes[..end]).then_some(())
    }

    /// In place, with its body: stations and addresses change sides, which no sum notices.
    fn echo(&mut self) {
        let (ip_at, icmp_at) = (usize::from(self.packet.link_bytes), usize::from(self.packet.transport_at));
        let (is_v4, gateway) = (self.is_v4(), self.gateway().map(|gateway| gateway.mac));
        // What a partial sum holds so far is of the addresses alone; the type is summed when it is completed.
        let is_summed = !matches!(self.burst.offload(self.frame).checksum, Checksum::Partial { .. });
        let asker = self.asker();
        let head = self.burst.head_mut(self.frame);
        head[..6].copy_from_slice(&asker.0);
        head[6..12].copy_from_slice(&gateway.unwrap_or_default().0);
        let (reply, ttl) = if is_v4 {
            (icmpv4::ECHO_REPLY, ipv4::field::TTL)
        } else {
            (icmpv6::ECHO_REPLY, ipv6::field::HOP_LIMIT)
        };
        let ip = &mut head[ip_at..];
        let old = [ip[ttl], ip[ttl + 1]];
        ip[ttl] = TTL;
        if is_v4 {
            fix(&mut ip[ipv4::field::CHECKSUM], &old, &[TTL, old[1]]);
            let (source, destination) = (ipv4::field::SOURCE, ipv4::field::DESTINATION);
            (0..4).for_each(|byte| ip.swap(source.start + byte, destination.start + byte));
        } else {
            let (source, destination) = (ipv6::field::SOURCE, ipv6::field::DESTINATION);
            (0..16).for_each(|byte| ip.swap(source.start + byte, destination.start + byte));
        }
        let icmp = &mut head[icmp_at..];
        let old = [icmp[0], icmp[1]];
        icmp[0] = reply;
        if is_summed {
            fix(&mut icmp[icmpv4::field::CHECKSUM], &old, &[reply, old[1]]);
        }
    }

    fn may_complain(&self, complaint: Complaint) -> bool {
        let key = &self.packet.key;
        let classes = key.get(Field::CLASS);
        if classes & class::LATER_FRAGMENT != 0 || !self.may_be_told() {
            return false;
        }
        // Without "don't fragment" the sender expects no such news, and IPv4 of this switch is not fragmented.
        if let Complaint::TooBig(_) = complaint
            && self.is_v4()
            && !self.forbids_fragments()
        {
            return false;
        }
        let kind = key.get(Field::SOURCE_PORT) as u8;
        match IpProtocol(key.get(Field::PROTOCOL) as u8) {
            // Only questions and answers of ICMP are complained about; what is not seen may be a complaint.
            IpProtocol::ICMP => {
                classes & class::TRANSPORT != 0 && [icmpv4::ECHO_REQUEST, icmpv4::ECHO_REPLY].contains(&kind)
            }
            IpProtocol::ICMPV6 => classes & class::TRANSPORT != 0 && kind >= icmpv6::ECHO_REQUEST,
            _ => classes & class::HIDDEN == 0,
        }
    }

    fn is_from_outside(&self) -> bool {
        self.program.host_at(self.origin.port).is_some_and(|host| host.is_source(self.addresses().1))
    }

    fn may_be_told(&self) -> bool {
        match self.addresses().0 {
            IpAddr::V4(ip) => {
                !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback())
            }
            IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback()),
        }
    }

    fn forbids_fragments(&self) -> bool {
        let ip = &self.burst.head(self.frame)[usize::from(self.packet.link_bytes)..];
        ipv4::View::new(ip).is_ok_and(|ip| ip.fragment() & ipv4::DONT_FRAGMENT != 0)
    }

    /// The packet's first bytes, as many as fit, behind the reason.
    fn complain(&mut self, complaint: Complaint) -> Option<()> {
        let gateway = self.gateway()?;
        let (asker, asked) = self.addresses();
        // Outside, the gateway has no address but the one that the packet was for.
        let source = if self.is_from_outside() { asked } else { gateway.address_towards(asker)? };
        let mut bytes = [0; HEAD_BYTES];
        let packet = self.burst.head(self.frame).get(usize::from(self.packet.link_bytes)..)?;
        // Padding behind the packet is not of it, and a frame that is still to be cut says no length of its own.
        let quoted = &packet[..packet.len().min(self.packet.network_bytes as usize)];
        let end = match (source, asker) {
            (IpAddr::V4(source), IpAddr::V4(to)) => {
                self.link(gateway.mac, EtherType::IPV4, &mut bytes);
                complain_v4(complaint, (source, to), quoted, &mut bytes)
            }
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                self.link(gateway.mac, EtherType::IPV6, &mut bytes);
                complain_v6(complaint, (source, to), quoted, &mut bytes)
            }
            _ => return None,
        };
        self.burst.replace(self.frame, &bytes[..end]).then_some(())
    }
}

fn complain_v4(
    complaint: Complaint,
    (source, to): (Ipv4Addr, Ipv4Addr),
    quoted: &[u8],
    out: &mut [u8; HEAD_BYTES],
) -> usize {
    let message_at = ethernet::HEADER_BYTES + ipv4::MIN_HEADER_BYTES;
    let quote_at = message_at + icmpv4::HEADER_BYTES;
    let quote = quoted.len().min(HEAD_BYTES - quote_at);
    let end = quote_at + quote;
    let header = ipv4::Repr {
        tos: 0,
        id: 0,
        fragment: 0,
        ttl: TTL,
        protocol: IpProtocol::ICMP,
        source,
        destination: to,
        options: &[],
        payload_len: (icmpv4::HEADER_BYTES + quote) as u16,
    };
    header.emit(&mut out[ethernet::HEADER_BYTES..message_at]);
    complaint.header_v4().emit(&mut out[message_at..quote_at]);
    out[quote_at..end].copy_from_slice(&quoted[..quote]);
    icmpv4::fill_checksum(&mut out[message_at..end]);
    end
}

fn complain_v6(
    complaint: Complaint,
    (source, to): (Ipv6Addr, Ipv6Addr),
    quoted: &[u8],
    out: &mut [u8; HEAD_BYTES],
) -> usize {
    let message_at = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES;
    let quote_at = message_at + icmpv6::HEADER_BYTES;
    let quote = quoted.len().min(HEAD_BYTES - quote_at);
    let end = quote_at + quote;
    header_v6((source, to), TTL, end - message_at).emit(&mut out[ethernet::HEADER_BYTES..message_at]);
    complaint.header_v6().emit(&mut out[message_at..quote_at]);
    out[quote_at..end].copy_from_slice(&quoted[..quote]);
    icmpv6::fill_checksum(&mut out[message_at..end], source, to);
    end
}

fn header_v6((source, destination): (Ipv6Addr, Ipv6Addr), hop_limit: u8, payload_bytes: usize) -> ipv6::Repr {
    ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        next_header: IpProtocol::ICMPV6,
        hop_limit,
        source,
        destination,
        payload_len: payload_bytes as u16,
    }
}

/// Corrects a sum for bytes that changed.
fn fix(sum: &mut [u8], old: &[u8], new: &[u8]) {
    let fixed = checksum::update_bytes(u16::from_be_bytes([sum[0], sum[1]]), old, new);
    sum.copy_from_slice(&fixed.to_be_bytes());
}
