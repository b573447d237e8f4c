//! How does a packet become what its translation says? In its private head, with checksums corrected for what changed
//! (RFC 1624), never computed anew: what was broken stays broken.

use frame::Checksum;
use wire::checksum::Sum;
use wire::{IpProtocol, checksum, icmpv4, icmpv6, ipv4, ipv6, sctp, tcp, udp};

use super::tuple::Tuple;

/// Where the headers of a packet lie in its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) ip_at: usize,
    /// `None` for a fragment that is not the first.
    pub(crate) transport_at: Option<usize>,
    /// Bytes of the transport header and what it carries; 0 if that is not known.
    pub(crate) transport_bytes: usize,
}

/// Bytes of both addresses at most.
const ADDRESSES: usize = 32;
/// The ports of TCP, UDP and SCTP.
const PORTS: std::ops::Range<usize> = 0..4;
/// An echo's identifier.
const IDENTIFIER: std::ops::Range<usize> = 4..6;

/// The sums of what was there and of what is, for the checksums that cover it.
#[derive(Clone, Copy)]
struct Change {
    old: u16,
    new: u16,
}

/// Gives a packet the addresses and ports of `to`, whose protocol is the packet's. `checksum` is the frame's: one that
/// is still to be completed covers only the addresses so far. False, and nothing is done, if that cannot be: another IP
/// version.
pub(crate) fn rewrite(head: &mut [u8], layout: Layout, checksum: Checksum, to: &Tuple) -> bool {
    let Some(addresses) = set_addresses(head, layout.ip_at, to) else { return false };
    let Some(transport) = layout.transport_at.and_then(|at| head.get_mut(at..)) else { return true };
    let is_partial = matches!(checksum, Checksum::Partial { .. });
    let old_ports = transport.get(PORTS).and_then(|ports| ports.first_chunk().copied());
    let ports = set_ports(transport, to);
    match to.protocol {
        IpProtocol::TCP => fix(transport, tcp::field::CHECKSUM, (addresses, ports), is_partial),
        IpProtocol::ICMPV6 => fix(transport, icmpv6::field::CHECKSUM, (addresses, ports), is_partial),
        // Its sum covers no addresses.
        IpProtocol::ICMP => fix(transport, icmpv4::field::CHECKSUM, (Change::NONE, ports), is_partial),
        IpProtocol::UDP => fix_udp(transport, (addresses, ports), is_partial),
        IpProtocol::SCTP if !is_partial => fix_sctp(transport, old_ports, layout.transport_bytes),
        _ => {}
    }
    true
}

/// Writes the addresses, and an IPv4 header's sum.
fn set_addresses(head: &mut [u8], ip_at: usize, to: &Tuple) -> Option<Change> {
    let ip = head.get_mut(ip_at..)?;
    let [source, destination] = [to.source.ip, to.destination.ip];
    match (ip.first()? >> 4, source.to_ipv4_mapped(), destination.to_ipv4_mapped()) {
        (4, Some(source), Some(destination)) => {
            let new = join([source.octets(), destination.octets()]);
            let change = set(ip.get_mut(ipv4::field::SOURCE.start..ipv4::field::DESTINATION.end)?, &new[..8]);
            fix(ip, ipv4::field::CHECKSUM, (change, Change::NONE), false);
            Some(change)
        }
        (6, None, None) => {
            let new = join([source.octets(), destination.octets()]);
            Some(set(ip.get_mut(ipv6::field::SOURCE.start..ipv6::field::DESTINATION.end)?, &new))
        }
        _ => None,
    }
}

/// Writes the ports, or an echo's identifier.
fn set_ports(transport: &mut [u8], to: &Tuple) -> Change {
    let [source, destination] = [to.source.port, to.destination.port].map(u16::to_be_bytes);
    let (field, new) = match (to.protocol, transport.first()) {
        (IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP, _) => (PORTS, join([source, destination])),
        (IpProtocol::ICMP, Some(&icmpv4::ECHO_REQUEST)) => (IDENTIFIER, join([source])),
        (IpProtocol::ICMP, Some(&icmpv4::ECHO_REPLY)) => (IDENTIFIER, join([destination])),
        (IpProtocol::ICMPV6, Some(&icmpv6::ECHO_REQUEST)) => (IDENTIFIER, join([source])),
        (IpProtocol::ICMPV6, Some(&icmpv6::ECHO_REPLY)) => (IDENTIFIER, join([destination])),
        _ => return Change::NONE,
    };
    let bytes = field.len();
    transport.get_mut(field).map_or(Change::NONE, |field| set(field, &new[..bytes]))
}

fn set(field: &mut [u8], new: &[u8]) -> Change {
    let sum = |bytes| Sum::ZERO.add_bytes(bytes).fold();
    let change = Change { old: sum(field), new: sum(new) };
    field.copy_from_slice(new);
    change
}

/// Corrects the sum at `field`, if the head holds it. One that is still to be completed is no complement yet, and knows
/// nothing of the ports.
fn fix(
    header: &mut [u8],
    field: std::ops::Range<usize>,
    (addresses, ports): (Change, Change),
    is_partial: bool,
) {
    let Some([high, low]) = header.get_mut(field) else { return };
    let old = u16::from_be_bytes([*high, *low]);
    let new = if is_partial { !addresses.correct(!old) } else { ports.correct(addresses.correct(old)) };
    [*high, *low] = new.to_be_bytes();
}

/// As [`fix`]; but 0 means that there is no sum (RFC 768).
fn fix_udp(header: &mut [u8], changes: (Change, Change), is_partial: bool) {
    let Some(&[high, low]) = header.get(udp::field::CHECKSUM) else { return };
    if [high, low] == [0, 0] && !is_partial {
        return;
    }
    fix(header, udp::field::CHECKSUM, changes, is_partial);
    if !is_partial && header[udp::field::CHECKSUM] == [0, 0] {
        header[udp::field::CHECKSUM].fill(0xff);
    }
}

/// SCTP's covers the whole packet, and no addresses. Where its length is not known, as in the quote of an error, the
/// packet is not whole either, and nobody can check it.
fn fix_sctp(header: &mut [u8], old_ports: Option<[u8; 4]>, transport_bytes: usize) {
    let Some(behind) = transport_bytes.checked_sub(PORTS.end) else { return };
    let (Some(old), Some(header)) = (old_ports, header.first_chunk_mut::<{ sctp::HEADER_BYTES }>()) else {
        return;
    };
    let (ports, rest) = header.split_at_mut(PORTS.end);
    if ports == old {
        return;
    }
    let field = &mut rest[sctp::field::CHECKSUM.start - PORTS.end..];
    let crc = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    field.copy_from_slice(&checksum::update_crc32c(crc, &old, ports, behind).to_le_bytes());
}

impl Change {
    const NONE: Self = Self { old: 0, new: 0 };

    /// A checksum that covers it.
    fn correct(self, sum: u16) -> u16 {
        checksum::update(sum, self.old, self.new)
    }
}

/// Runs of bytes, one after the other.
fn join<const N: usize, const M: usize>(runs: [[u8; N]; M]) -> [u8; ADDRESSES] {
    let mut all = [0; ADDRESSES];
    for (to, from) in all.iter_mut().zip(runs.as_flattened()) {
        *to = *from;
    }
    all
}
