//! The least TCP that can face a kernel: a client that never loses a segment, because a queue does not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use guest::{Guest, NetHeader};
use wire::build::{self, Path};
use wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use wire::tcp::{self, Flags};
use wire::{EtherType, IpProtocol, ethernet, ipv4, ipv6};

const OWN_PORT: u16 = 40_000;
/// Our maximum segment size option (RFC 9293 §3.7.1): 1440 fits both families.
const MSS: [u8; 4] = [2, 4, 0x05, 0xa0];
/// The longest frame on a link of MTU 1500.
const MAX_FRAME_BYTES: usize = 1514;

/// A connection from the guest to a program in the pod.
pub(crate) struct Stream<'g> {
    guest: &'g mut Guest,
    path: Path,
    port: u16,
    /// The next byte that we send, and the next that we expect.
    next: (u32, u32),
}

impl<'g> Stream<'g> {
    /// Opens a connection to `port`.
    pub(crate) fn connect(guest: &'g mut Guest, path: Path, port: u16, patience: Duration) -> Self {
        let mut stream = Self { guest, path, port, next: (1000, 0) };
        let syn = stream.segment(Flags::SYN, &MSS, &[]);
        stream.guest.send(&syn).unwrap();
        stream.next.0 += 1;
        let answer = stream.incoming(patience);
        assert_eq!(answer.flags, Flags::SYN.with(Flags::ACK));
        stream.next.1 = answer.sequence.wrapping_add(1);
        stream.acknowledge();
        stream
    }

    fn segment(&self, flags: Flags, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header = tcp::Repr {
            source_port: OWN_PORT,
            destination_port: self.port,
            sequence: self.next.0,
            acknowledgement: self.next.1,
            flags,
            window: u16::MAX,
            urgent: 0,
            options,
        };
        build::tcp(self.path, &header, payload)
    }

    fn acknowledge(&mut self) {
        let segment = self.segment(Flags::ACK, &[], &[]);
        self.guest.send(&segment).unwrap();
    }

    /// Sends all of `payload` in one frame that the switch is to cut.
    pub(crate) fn send_large(&mut self, payload: &[u8], mss: u16) {
        let mut frame = self.segment(Flags::ACK.with(Flags::PSH), &[], payload);
        let start = frame.len() - payload.len() - tcp::MIN_HEADER_BYTES;
        leave_sum_partial(&mut frame, self.path, start, tcp::field::CHECKSUM.start);
        let kind = if self.path.source.is_ipv4() { NetHeader::GSO_TCPV4 } else { NetHeader::GSO_TCPV6 };
        self.guest.send_with(&NetHeader::tcp_segments(kind, start as u16, mss), &frame).unwrap();
        self.next.0 = self.next.0.wrapping_add(payload.len() as u32);
    }

    /// The next `len` bytes of the pod, acknowledged as they come.
    pub(crate) fn receive(&mut self, len: usize, patience: Duration) -> Vec<u8> {
        let mut received = Vec::new();
        let mut ahead = BTreeMap::new();
        while received.len() < len {
            let segment = self.incoming(patience);
            ahead.insert(segment.sequence, segment.payload);
            while let Some(payload) = ahead.remove(&self.next.1) {
                self.next.1 = self.next.1.wrapping_add(payload.len() as u32);
                received.extend(payload);
                if ahead.is_empty() {
                    break;
                }
            }
            self.acknowledge();
        }
        received
    }

    /// The pod's next segment to us, its length and checksum verified.
    fn incoming(&mut self, patience: Duration) -> Incoming {
        loop {
            let (frame, header) = self.guest.recv(patience).unwrap().expect("a segment in time");
            let Some(incoming) = Incoming::parse(&frame, self.port) else { continue };
            if header.gso_type == NetHeader::GSO_NONE {
                assert!(frame.len() <= MAX_FRAME_BYTES, "a frame of {} bytes", frame.len());
            }
            assert!(header.flags & NetHeader::NEEDS_CSUM != 0 || incoming.is_summed, "a wrong checksum");
            return incoming;
        }
    }
}

struct Incoming {
    sequence: u32,
    flags: Flags,
    payload: Vec<u8>,
    is_summed: bool,
}

impl Incoming {
    /// The TCP segment from `port` to us in `frame`, if it is one.
    fn parse(frame: &[u8], port: u16) -> Option<Self> {
        let link = ethernet::View::new(frame).ok()?;
        let (protocol, transport, pseudo) = match link.ether_type() {
            EtherType::IPV4 => {
                let ip = ipv4::View::new(link.payload()).ok()?;
                assert!(ip.checksum_is_valid());
                let len = ip.payload().len() as u16;
                (ip.protocol(), ip.payload(), pseudo_v4(ip.source(), ip.destination(), ip.protocol(), len))
            }
            EtherType::IPV6 => {
                let ip = ipv6::View::new(link.payload()).ok()?;
                let len = ip.payload().len() as u32;
                (
                    ip.next_header(),
                    ip.payload(),
                    pseudo_v6(ip.source(), ip.destination(), ip.next_header(), len),
                )
            }
            _ => return None,
        };
        if protocol != IpProtocol::TCP {
            return None;
        }
        let view = tcp::View::new(transport).ok()?;
        if (view.source_port(), view.destination_port()) != (port, OWN_PORT) {
            return None;
        }
        Some(Self {
            sequence: view.sequence(),
            flags: view.flags(),
            payload: view.payload().to_vec(),
            is_summed: pseudo.add_bytes(transport).checksum() == 0,
        })
    }
}

/// Replaces the checksum of the transport header at `start` by the pseudo header's sum, which is all that a source
/// with checksum offload computes.
pub(crate) fn leave_sum_partial(frame: &mut [u8], path: Path, start: usize, offset: usize) {
    let len = frame.len() - start;
    let protocol = if offset == tcp::field::CHECKSUM.start { IpProtocol::TCP } else { IpProtocol::UDP };
    let pseudo: Sum = match (path.source, path.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => pseudo_v4(from, to, protocol, len as u16),
        (IpAddr::V6(from), IpAddr::V6(to)) => pseudo_v6(from, to, protocol, len as u32),
        _ => unreachable!("one family"),
    };
    frame[start + offset..start + offset + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
}
