//! How many TCP connections can a switch take a second? A client and a server that make one short connection after the
//! other, and cost less than the switch between them.
//!
//! Theory of operation. Both ends are one thread. Each answers a segment by what the segment says, and keeps nothing of a
//! connection: a client's first sequence number is a multiple of [`SEQUENCES`], so that what is acknowledged says how many
//! requests were answered. A window of connections is open at once; one that ends opens the next, of the next tuple.
//!
//! ```text
//! client   SYN          ACK  request           FIN       ACK
//! server        SYN-ACK               answer       FIN
//! ```
//!
//! All frames are [`FRAME_BYTES`] long, IPv4 without options, with correct checksums. Each that arrives is held to the
//! addresses that its receiver must see: what a switch translated wrongly is lost, and counted.

use std::net::IpAddr;
use std::time::Instant;

use wire::build::{self, Path};
use wire::tcp::Flags;
use wire::{IpProtocol, ipv4, tcp};

use crate::guest::Pair;
use crate::load::{Load, PATIENCE, broken};
use crate::memory::Block;
use crate::ring::Descriptor;
use crate::{Guest, GuestError};

/// Bytes of each frame.
pub const FRAME_BYTES: usize = 64;
/// Packets of a connection beside its requests and their answers: SYN, SYN-ACK, ACK, FIN, FIN, ACK.
pub const OTHER_PACKETS: u64 = 6;
/// Requests that a connection can have.
pub const MAX_REQUESTS: u32 = (SEQUENCES - 2) / PAYLOAD_BYTES as u32;

/// Sequence numbers of a connection.
const SEQUENCES: u32 = 1 << 12;
const IP_AT: usize = 14;
const TCP_AT: usize = IP_AT + ipv4::MIN_HEADER_BYTES;
const HEADERS_BYTES: usize = TCP_AT + tcp::MIN_HEADER_BYTES;
const PAYLOAD_BYTES: usize = FRAME_BYTES - HEADERS_BYTES;
/// A client's ports, and where they end.
const FIRST_PORT: u16 = 1024;
const PORTS: u32 = u16::MAX as u32 + 1 - FIRST_PORT as u32;
/// Segments that one may be answered with.
const MOST_ANSWERS: u16 = 2;

/// Who connects to whom.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// What the client sends: to a service.
    pub client: Path,
    /// What the server sends: to the client.
    pub server: Path,
    /// The service's first port; the server's are the same.
    pub first_port: u16,
    /// How many ports the service has.
    pub ports: u16,
    /// Requests of each connection, 1 to [`MAX_REQUESTS`].
    pub requests: u32,
}

impl Exchange {
    /// Different connections that there can be.
    pub fn tuples(&self) -> u32 {
        PORTS * u32::from(self.ports)
    }

    /// The client's port and the service's of connection `number`.
    fn ports(&self, number: u32) -> [u16; 2] {
        let of_client = FIRST_PORT + (number % PORTS) as u16;
        [of_client, self.first_port + (number / PORTS % u32::from(self.ports)) as u16]
    }

    /// The first segment of connection `number`.
    fn opening(&self, number: u32) -> Segment {
        let ports = self.ports(number);
        let sequence = number.wrapping_mul(SEQUENCES);
        Segment { ports, sequence, acknowledgement: 0, flags: Flags::SYN, has_payload: false }
    }
}

/// What the load reads of a frame, and what it makes one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    /// Source and destination.
    ports: [u16; 2],
    sequence: u32,
    acknowledgement: u32,
    flags: Flags,
    has_payload: bool,
}

impl Segment {
    /// Sequence numbers that it takes.
    fn length(&self) -> u32 {
        let of_payload = if self.has_payload { PAYLOAD_BYTES as u32 } else { 0 };
        of_payload + u32::from(self.flags.contains(Flags::SYN) || self.flags.contains(Flags::FIN))
    }

    /// The next segment back.
    fn answer(&self, flags: Flags, has_payload: bool) -> Self {
        let [source, destination] = self.ports;
        Self {
            ports: [destination, source],
            sequence: self.acknowledgement,
            acknowledgement: self.sequence.wrapping_add(self.length()),
            flags: flags.with(Flags::ACK),
            has_payload,
        }
    }

    /// What a server says to it.
    fn served(&self) -> Option<Self> {
        if self.flags.contains(Flags::SYN) {
            // Any number will do.
            let sequence = self.sequence.rotate_left(16);
            return Some(Self { sequence, ..self.answer(Flags::SYN, false) });
        }
        if self.flags.contains(Flags::FIN) {
            return Some(self.answer(Flags::FIN, false));
        }
        self.has_payload.then(|| self.answer(Flags::PSH, true))
    }

    /// What a client says to it, that makes so many requests.
    #[inline]
    fn consumed(&self, requests: u32) -> [Option<Self>; MOST_ANSWERS as usize] {
        let acknowledged = self.answer(Flags::ACK, false);
        if self.flags.contains(Flags::SYN) {
            return [Some(acknowledged), Some(self.answer(Flags::PSH, true))];
        }
        if self.flags.contains(Flags::FIN) {
            return [Some(acknowledged), None];
        }
        let has_more = self.acknowledgement % SEQUENCES / (PAYLOAD_BYTES as u32) < requests;
        let next = if has_more { Flags::PSH } else { Flags::FIN };
        [Some(self.answer(next, has_more)), None]
    }
}

/// Frames of one direction, of which only ports, numbers and flags differ.
#[derive(Debug, Clone)]
struct Template {
    /// Without and with payload.
    frames: [[u8; FRAME_BYTES]; 2],
    /// What the checksum covers in them, summed.
    sums: [u32; 2],
    /// Source and destination address, as they stand in what is received.
    expected: [u8; 8],
}

impl Template {
    /// Of what is sent on `path`, by who receives what comes on `back`.
    fn new(path: Path, back: Path) -> Self {
        let blank = tcp::Repr {
            source_port: 0,
            destination_port: 0,
            sequence: 0,
            acknowledgement: 0,
            flags: Flags(0),
            window: u16::MAX,
            urgent: 0,
            options: &[],
        };
        let frame = |payload: &[u8]| {
            let mut bytes = build::tcp(path, &blank, payload);
            bytes.resize(FRAME_BYTES, 0);
            let mut frame = [0; FRAME_BYTES];
            frame.copy_from_slice(&bytes);
            frame
        };
        let frames = [frame(&[]), frame(&[b'm'; PAYLOAD_BYTES])];
        // What is there sums up to this with the blank fields; the rest is added to it.
        let sums = frames.map(|frame| u32::from(!be16(&frame, TCP_AT + tcp::field::CHECKSUM.start)));
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => [0; 4],
        };
        let mut expected = [0; 8];
        expected[..4].copy_from_slice(&octets(back.source));
        expected[4..].copy_from_slice(&octets(back.destination));
        Self { frames, sums, expected }
    }

    /// The frame of `segment`.
    #[inline]
    fn frame(&self, segment: &Segment) -> [u8; FRAME_BYTES] {
        let kind = usize::from(segment.has_payload);
        let mut frame = self.frames[kind];
        let fields = &mut frame[TCP_AT..HEADERS_BYTES];
        fields[0..2].copy_from_slice(&segment.ports[0].to_be_bytes());
        fields[2..4].copy_from_slice(&segment.ports[1].to_be_bytes());
        fields[4..8].copy_from_slice(&segment.sequence.to_be_bytes());
        fields[8..12].copy_from_slice(&segment.acknowledgement.to_be_bytes());
        fields[tcp::field::FLAGS] = segment.flags.0;
        let halves = |number: u32| (number >> 16) + (number & 0xffff);
        let mut sum = self.sums[kind]
            + u32::from(segment.ports[0])
            + u32::from(segment.ports[1])
            + halves(segment.sequence)
            + halves(segment.acknowledgement)
            + u32::from(segment.flags.0);
        sum = halves(halves(sum));
        fields[tcp::field::CHECKSUM].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        frame
    }

    /// Reads a frame; `None` if it is not from the other end to this one.
    #[inline]
    fn read(&self, frame: &[u8; FRAME_BYTES]) -> Option<Segment> {
        if frame[IP_AT + 12..IP_AT + 20] != self.expected
            || frame[IP_AT + ipv4::field::PROTOCOL] != IpProtocol::TCP.0
        {
            return None;
        }
        let at = |offset: usize| be16(frame, TCP_AT + offset);
        let long = |offset: usize| u32::from(at(offset)) << 16 | u32::from(at(offset + 2));
        Some(Segment {
            ports: [at(0), at(2)],
            sequence: long(tcp::field::SEQUENCE.start),
            acknowledgement: long(tcp::field::ACKNOWLEDGEMENT.start),
            flags: Flags(frame[TCP_AT + tcp::field::FLAGS]),
            has_payload: usize::from(be16(frame, IP_AT + ipv4::field::TOTAL_LEN.start)) + IP_AT
                > HEADERS_BYTES,
        })
    }
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A guest that sends frames of one length, each from the buffer of its descriptor.
#[derive(Debug)]
struct Station<'a> {
    pair: &'a mut Pair,
    header_bytes: usize,
    next_descriptor: u16,
    template: Template,
    /// Frames that were not from the other end to this one.
    astray: u64,
}

impl<'a> Station<'a> {
    fn new(guest: &'a mut Guest, template: Template) -> Self {
        let header_bytes = guest.features().header_bytes();
        let pair = &mut guest.pairs[0];
        for ring in [&mut pair.rx.ring, &mut pair.tx.ring] {
            ring.disarm();
        }
        let len = (header_bytes + FRAME_BYTES) as u32;
        for index in 0..pair.tx.ring.size() {
            let at = usize::from(index) * pair.tx.buffer_bytes;
            pair.tx.buffers.write(at, &[0; 12][..header_bytes]);
            let address = pair.tx.buffers.guest(at);
            pair.tx.ring.write_descriptor(index, Descriptor { address, len, flags: 0, next: 0 });
        }
        Self { pair, header_bytes, next_descriptor: 0, template, astray: 0 }
    }

    /// Takes back what the switch has sent. Returns how much there was, and the room that there is.
    #[inline]
    fn reclaim(&mut self) -> Result<(u16, u16), GuestError> {
        let ring = &mut self.pair.tx.ring;
        let taken = ring.ready().map_err(broken("transmit"))?;
        for _ in 0..taken {
            ring.take_used();
        }
        Ok((taken, ring.size() - ring.outstanding()))
    }

    /// Sends `segment`; there must be room.
    #[inline]
    fn send(&mut self, segment: &Segment) {
        let tx = &mut self.pair.tx;
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) & (tx.ring.size() - 1);
        let at = usize::from(head) * tx.buffer_bytes + self.header_bytes;
        put(&tx.buffers, at, self.template.frame(segment));
        tx.ring.offer(head);
    }

    /// The next frame, if it is as it should be; [`crate::ring::Ring::ready`] has counted it.
    #[inline]
    fn receive(&mut self) -> Option<Segment> {
        let rx = &mut self.pair.rx;
        let used = rx.ring.take_used();
        let at = usize::from(used.head & (rx.ring.size() - 1)) * rx.shape.buffer_bytes + self.header_bytes;
        let frame = get(&rx.buffers, at);
        rx.ring.offer(used.head);
        let segment = self.template.read(&frame);
        self.astray += u64::from(segment.is_none());
        segment
    }

    /// Answers what has come, as long as there is room. Returns the frames received.
    #[inline]
    fn turn(
        &mut self,
        mut answer: impl FnMut(&Segment) -> [Option<Segment>; MOST_ANSWERS as usize],
    ) -> Result<u64, GuestError> {
        let (_, room) = self.reclaim()?;
        let ready = self.pair.rx.ring.ready().map_err(broken("receive"))?;
        let now = ready.min(room / MOST_ANSWERS);
        for _ in 0..now {
            let Some(segment) = self.receive() else { continue };
            for answer in answer(&segment).into_iter().flatten() {
                self.send(&answer);
            }
        }
        if now > 0 {
            self.pair.rx.ring.publish();
            self.pair.tx.ring.publish();
        }
        Ok(now.into())
    }
}

#[inline]
fn put(block: &Block, at: usize, frame: [u8; FRAME_BYTES]) {
    // SAFETY: `at` checks the bounds; arrays of bytes have no alignment; the buffer is the guest's, outside the ring.
    unsafe { block.at::<[u8; FRAME_BYTES]>(at).write(frame) }
}

#[inline]
fn get(block: &Block, at: usize) -> [u8; FRAME_BYTES] {
    // SAFETY: as above: what was received is the guest's until it is offered again.
    unsafe { block.at::<[u8; FRAME_BYTES]>(at).read() }
}

/// A client and a server. See the module.
#[derive(Debug)]
pub struct ConnectionLoad<'a> {
    client: Station<'a>,
    server: Station<'a>,
    exchange: Exchange,
    /// The connection that is opened next.
    next: u32,
    window: u32,
    opened: u64,
    completed: u64,
    lost: u64,
    /// Those for whose frames that went astray others were opened.
    replaced: u64,
    /// No more connections are opened.
    is_ending: bool,
}

impl<'a> ConnectionLoad<'a> {
    /// Opens as many connections as the client's ring takes, beginning with number `first`. The guests must be fresh, and
    /// the rings are the load's from here on.
    pub fn new(client: &'a mut Guest, server: &'a mut Guest, exchange: Exchange, first: u32) -> Self {
        let client = Station::new(client, Template::new(exchange.client, exchange.server_seen()));
        let server = Station::new(server, Template::new(exchange.server, exchange.client_seen()));
        let rings = [&client, &server].map(|station| station.pair.tx.ring.size());
        let window = u32::from(rings[0].min(rings[1]) / MOST_ANSWERS);
        let mut load = Self {
            client,
            server,
            exchange,
            next: first,
            window,
            opened: 0,
            completed: 0,
            lost: 0,
            replaced: 0,
            is_ending: false,
        };
        load.open(window);
        load
    }

    fn open(&mut self, count: u32) {
        for _ in 0..count {
            let opening = self.exchange.opening(self.next);
            self.next = self.next.wrapping_add(1);
            self.client.send(&opening);
        }
        self.opened += u64::from(count);
        self.client.pair.tx.ring.publish();
    }

    /// Lets those that are open come to their end, for as long as a loss is waited for.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`] if the switch wrote nonsense.
    pub fn end(&mut self) -> Result<(), GuestError> {
        self.is_ending = true;
        let start = Instant::now();
        while self.opened > self.completed + self.lost && start.elapsed() < PATIENCE {
            self.turn()?;
        }
        Ok(())
    }

    /// The connection that comes next.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Connections that have not.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Connections that have ended as they should.
    pub fn completed(&self) -> u64 {
        self.completed
    }
}

impl ConnectionLoad<'_> {
    /// Opens others for connections of which `astray` frames went wrong so far, as far as there is room now.
    #[cold]
    fn replace(&mut self, astray: u64) -> Result<(), GuestError> {
        let (_, room) = self.client.reclaim()?;
        let count = (astray - self.replaced).min(room.into());
        self.replaced += count;
        self.lost += count;
        if !self.is_ending {
            self.open(count as u32);
        }
        Ok(())
    }
}

impl Exchange {
    /// What the server's packets are at the client: from the service.
    fn server_seen(&self) -> Path {
        self.client.reversed()
    }

    /// What the client's packets are at the server: to the server.
    fn client_seen(&self) -> Path {
        self.server.reversed()
    }
}

impl Load for ConnectionLoad<'_> {
    #[inline]
    fn turn(&mut self) -> Result<u64, GuestError> {
        let Self { client, server, exchange, next, completed, opened, is_ending, .. } = self;
        let at_server = server.turn(|segment| [segment.served(), None])?;
        let at_client = client.turn(|segment| {
            let mut answers = segment.consumed(exchange.requests);
            if segment.flags.contains(Flags::FIN) {
                *completed += 1;
                if !*is_ending {
                    answers[1] = Some(exchange.opening(*next));
                    *next = next.wrapping_add(1);
                    *opened += 1;
                }
            }
            answers
        })?;
        let astray = self.client.astray + self.server.astray;
        if astray > self.replaced {
            self.replace(astray)?;
        }
        Ok(at_server + at_client)
    }

    fn frame_bytes(&self) -> usize {
        FRAME_BYTES
    }

    fn replace_lost(&mut self) -> Result<u64, GuestError> {
        // Nothing moves: all that were open are lost, and the rings are empty, unless the switch takes nothing.
        let (_, room) = self.client.reclaim()?;
        if u32::from(room) < self.window || self.is_ending {
            return Ok(0);
        }
        let lost = self.opened - self.completed - self.lost;
        self.lost += lost;
        self.open(self.window);
        Ok(lost)
    }
}

/// A client that only ever sends first segments, each of another connection, and is never answered.
#[derive(Debug)]
pub struct FloodLoad<'a> {
    client: Station<'a>,
    exchange: Exchange,
    next: u32,
}

impl<'a> FloodLoad<'a> {
    /// Fills the client's ring. The guest must be fresh, and the ring is the load's from here on.
    pub fn new(client: &'a mut Guest, exchange: Exchange, first: u32) -> Self {
        let client = Station::new(client, Template::new(exchange.client, exchange.server_seen()));
        let mut load = Self { client, exchange, next: first };
        let size = load.client.pair.tx.ring.size();
        load.open(size);
        load
    }

    fn open(&mut self, count: u16) {
        for _ in 0..count {
            let opening = self.exchange.opening(self.next);
            self.next = self.next.wrapping_add(1);
            self.client.send(&opening);
        }
        self.client.pair.tx.ring.publish();
    }

    /// The connection that comes next.
    pub fn next(&self) -> u32 {
        self.next
    }
}

impl Load for FloodLoad<'_> {
    /// Returns the frames that the switch has taken.
    #[inline]
    fn turn(&mut self) -> Result<u64, GuestError> {
        let (taken, room) = self.client.reclaim()?;
        if room > 0 {
            self.open(room);
        }
        Ok(taken.into())
    }

    fn frame_bytes(&self) -> usize {
        FRAME_BYTES
    }

    fn replace_lost(&mut self) -> Result<u64, GuestError> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use wire::MacAddr;

    fn path(source: [u8; 4], destination: [u8; 4]) -> Path {
        Path {
            source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddr([2, 0, 0, 0, 0, 9]),
            source: Ipv4Addr::from(source).into(),
            destination: Ipv4Addr::from(destination).into(),
        }
    }

    fn exchange(requests: u32) -> Exchange {
        let (client, server) = (path([10, 1, 0, 1], [10, 9, 0, 1]), path([10, 2, 0, 1], [10, 1, 0, 1]));
        Exchange { client, server, first_port: 80, ports: 3, requests }
    }

    #[test]
    fn frames_have_correct_checksums_and_read_as_they_were_written() {
        let exchange = exchange(1);
        let template = Template::new(exchange.client, exchange.client.reversed());
        let seen = Template::new(exchange.server, exchange.client);
        for number in [0, 1, 70_000, u32::MAX] {
            for (flags, has_payload) in [(Flags::SYN, false), (Flags::PSH, true), (Flags::FIN, false)] {
                let opening = exchange.opening(number);
                let segment = Segment { acknowledgement: !number, flags, has_payload, ..opening };
                let frame = template.frame(&segment);
                let bytes = usize::from(be16(&frame, IP_AT + 2)) - 20;
                let (from, to) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 9, 0, 1));
                let pseudo = wire::checksum::pseudo_v4(from, to, IpProtocol::TCP, bytes as u16);
                let sum = pseudo.add_bytes(&frame[TCP_AT..TCP_AT + bytes]);
                assert_eq!(sum.checksum(), 0, "{segment:?}");
                assert_eq!(seen.read(&frame), Some(segment));
                assert!(template.read(&frame).is_none(), "it is not for who sent it");
            }
        }
    }

    #[test]
    fn a_connection_has_the_packets_that_it_says() {
        for requests in [1, 2, MAX_REQUESTS] {
            let (mut packets, mut answered) = (1, 0);
            let mut at_server = vec![exchange(requests).opening(7)];
            while let Some(segment) = at_server.pop() {
                let Some(answer) = segment.served() else { continue };
                packets += 1;
                answered += u32::from(answer.has_payload);
                let back: Vec<Segment> = answer.consumed(requests).into_iter().flatten().collect();
                packets += back.len() as u64;
                at_server.extend(back.into_iter().rev());
            }
            assert_eq!((answered, packets), (requests, OTHER_PACKETS + 2 * u64::from(requests)));
        }
    }

    #[test]
    fn tuples_are_all_different() {
        let exchange = exchange(1);
        let all: std::collections::HashSet<_> = (0..exchange.tuples()).map(|it| exchange.ports(it)).collect();
        assert_eq!(all.len(), exchange.tuples() as usize);
        assert_eq!(exchange.ports(exchange.tuples()), exchange.ports(0));
    }
}
