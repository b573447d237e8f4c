//! Which connection is an ICMP error about, and how is it translated?
//!
//! An error quotes the packet that it is about as that packet was where the error arose, translated or not. Turned
//! round, the quote is a tuple of the connection: that of a packet which goes the error's way. So one look-up finds the
//! connection and the direction in which the error travels. It goes to whoever sent the quoted packet, who must find in
//! it what it sent: both the quote and the outer addresses are set back to that. The outer source is kept where it is a
//! router's, which no translation is about.

use frame::Checksum;
use wire::{IpProtocol, checksum, icmpv4, icmpv6, ipv4, ipv6};

use super::observe::{ICMP, ICMPV6, Sight};
use super::rewrite::{Layout, rewrite};
use super::table::Handle;
use super::tuple::{Endpoint, Tuple, ZoneNo};
use super::{Connections, Now};

/// Bytes of an ICMP error before what it quotes, in both versions.
const HEADER_BYTES: usize = icmpv4::HEADER_BYTES;
/// Bytes of a quote that a head can hold.
const QUOTE_BYTES: usize = frame::HEAD_BYTES;

/// An ICMP error, as far as the tracker reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IcmpError {
    /// Its own addresses.
    outer: Tuple,
    layout: Layout,
    /// The packet that it quotes.
    quoted: Tuple,
    quote: Layout,
}

impl Sight<'_> {
    /// The error that the packet is; `None` if it quotes nothing that could be of a connection.
    pub(crate) fn error(&self, zone: ZoneNo) -> Option<IcmpError> {
        let layout = self.layout();
        let outer = self.tuple(zone, (0, 0));
        let at = layout.transport_at? + HEADER_BYTES;
        let end = (layout.transport_at? + layout.transport_bytes).min(self.head.len());
        let quote = self.head.get(at..end)?;
        let (quoted, transport_at) = match outer.protocol {
            IpProtocol::ICMP => quoted_v4(quote, zone)?,
            IpProtocol::ICMPV6 => quoted_v6(quote, zone)?,
            _ => return None,
        };
        let quote = Layout { ip_at: at, transport_at: Some(at + transport_at), transport_bytes: 0 };
        Some(IcmpError { outer, layout, quoted, quote })
    }
}

/// The tuple of the packet at the front of `quote`, and where its transport header begins. Headers may say more than is
/// quoted, so that lengths are not held against each other.
fn quoted_v4(quote: &[u8], zone: ZoneNo) -> Option<(Tuple, usize)> {
    let header: &[u8; ipv4::MIN_HEADER_BYTES] = quote.first_chunk()?;
    let bytes = usize::from(header[ipv4::field::VERSION_IHL] & 15) * 4;
    let is_first = [header[6] & 0x1f, header[7]] == [0, 0];
    if header[ipv4::field::VERSION_IHL] >> 4 != 4 || bytes < ipv4::MIN_HEADER_BYTES || !is_first {
        return None;
    }
    let ip = |at: usize| std::net::Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let ends = [ip(ipv4::field::SOURCE.start), ip(ipv4::field::DESTINATION.start)];
    let protocol = IpProtocol(header[ipv4::field::PROTOCOL]);
    let ends = ends.map(|ip| ip.to_ipv6_mapped());
    Some((tuple(zone, protocol, ends, quote.get(bytes..)?)?, bytes))
}

fn quoted_v6(quote: &[u8], zone: ZoneNo) -> Option<(Tuple, usize)> {
    let header = ipv6::View::new(quote).ok()?;
    let upper = ipv6::walk(header.next_header(), &quote[ipv6::HEADER_BYTES..]).ok()?;
    if upper.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return None;
    }
    let at = ipv6::HEADER_BYTES + upper.offset;
    let ends = [header.source(), header.destination()];
    // No link's: see [`Sight::observe`].
    if ends.iter().any(|ip| ip.to_ipv4_mapped().is_some()) {
        return None;
    }
    Some((tuple(zone, upper.protocol, ends, quote.get(at..)?)?, at))
}

fn tuple(
    zone: ZoneNo,
    protocol: IpProtocol,
    [source, destination]: [std::net::Ipv6Addr; 2],
    transport: &[u8],
) -> Option<Tuple> {
    let word = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
    let echo = |request: u8, reply: u8| match *transport.first()? {
        kind if kind == request => Some((word(4)?, 0)),
        kind if kind == reply => Some((0, word(4)?)),
        _ => None,
    };
    let (source_port, destination_port) = match protocol {
        IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP => (word(0)?, word(2)?),
        IpProtocol::ICMP => echo(ICMP.request, ICMP.reply)?,
        IpProtocol::ICMPV6 => echo(ICMPV6.request, ICMPV6.reply)?,
        _ => (0, 0),
    };
    Some(Tuple {
        zone,
        protocol,
        source: Endpoint { ip: source, port: source_port },
        destination: Endpoint { ip: destination, port: destination_port },
    })
}

impl Connections {
    /// The connection that `error` is about, and the direction in which it travels. It counts as no packet of it.
    pub(crate) fn related(&self, error: &IcmpError, now: Now) -> Option<Handle> {
        self.find(&error.quoted.turned(), now)
    }

    /// Translates `error`, which is of `handle`'s connection, in its `head`. False if the connection is gone, or the
    /// translation cannot be.
    pub(crate) fn translate_error(
        &self,
        handle: Handle,
        error: &IcmpError,
        head: &mut [u8],
        checksum: Checksum,
    ) -> bool {
        // What the quoted packet was when its sender sent it.
        self.tuple(handle.turned()).is_some_and(|sent| error.rewrite(head, checksum, &sent))
    }
}

impl IcmpError {
    /// Lets it quote `sent`.
    fn rewrite(&self, head: &mut [u8], checksum: Checksum, sent: &Tuple) -> bool {
        self.rewrite_quote(head, checksum, sent) && rewrite(head, self.layout, checksum, &self.outer_of(sent))
    }

    fn outer_of(&self, sent: &Tuple) -> Tuple {
        let mut outer = self.outer;
        outer.destination.ip = sent.source.ip;
        if outer.source.ip == self.quoted.destination.ip {
            outer.source.ip = sent.destination.ip;
        }
        outer
    }

    fn rewrite_quote(&self, head: &mut [u8], checksum: Checksum, sent: &Tuple) -> bool {
        let Some(icmp_at) = self.layout.transport_at else { return false };
        let end = (icmp_at + self.layout.transport_bytes).min(head.len());
        let Some(quote) = head.get(self.quote.ip_at..end) else { return false };
        let (mut before, bytes) = ([0; QUOTE_BYTES], quote.len().min(QUOTE_BYTES));
        before[..bytes].copy_from_slice(&quote[..bytes]);
        if !rewrite(&mut head[..end], self.quote, Checksum::Complete, sent) {
            return false;
        }
        // One that is still to be completed does not cover it yet.
        if !matches!(checksum, Checksum::Partial { .. }) {
            let (start, quote) = head.split_at_mut(self.quote.ip_at);
            let field = &mut start[icmp_at..][icmpv6::field::CHECKSUM];
            let sum = u16::from_be_bytes([field[0], field[1]]);
            let sum = checksum::update_bytes(sum, &before[..bytes], &quote[..bytes]);
            field.copy_from_slice(&sum.to_be_bytes());
        }
        true
    }
}
