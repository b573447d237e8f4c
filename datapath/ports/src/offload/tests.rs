//! Softened frames against a reference that builds every packet from scratch, byte by byte.

use frame::{Burst, Gso};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use wire::tcp::Flags;
use wire::{IpProtocol, ipv4, ipv6, tcp, udp};

use super::*;

mod gro;
mod tunnel;

/// A packet as its source meant it.
#[derive(Debug, Clone)]
struct Packet {
    v6: bool,
    tags: usize,
    /// IPv4 options or an IPv6 destination options header, in 8-byte units.
    extension_eights: usize,
    /// TCP, else UDP.
    tcp: bool,
    tcp_option_words: usize,
    flags: u8,
    id: u16,
    sequence: u32,
    payload: Vec<u8>,
}

/// RFC 1071, word by word.
fn naive_sum(runs: &[&[u8]]) -> u16 {
    let bytes = runs.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Packet {
    fn protocol(&self) -> IpProtocol {
        if self.tcp { IpProtocol::TCP } else { IpProtocol::UDP }
    }

    fn link(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.tags {
            bytes.extend([0x81, 0x00, 0x20, tag as u8 + 1]);
        }
        bytes.extend(if self.v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        bytes
    }

    fn addresses(&self) -> [Vec<u8>; 2] {
        let bytes = if self.v6 { 16 } else { 4 };
        [vec![0xfd; bytes], (0..bytes as u8).collect()]
    }

    /// The IP header and what comes before the transport header, for `payload_len` bytes behind them.
    fn ip(&self, number: usize, payload_len: usize, fragment: u16) -> Vec<u8> {
        let [source, destination] = self.addresses();
        if self.v6 {
            let extension = self.extension();
            let next_header =
                if extension.is_empty() { self.protocol() } else { IpProtocol::DESTINATION_OPTIONS };
            let mut bytes = vec![0; ipv6::HEADER_BYTES];
            ipv6::Repr {
                source: <[u8; 16]>::try_from(source).unwrap().into(),
                destination: <[u8; 16]>::try_from(destination).unwrap().into(),
                next_header,
                traffic_class: 2,
                flow_label: 7,
                hop_limit: 64,
                payload_len: (extension.len() + payload_len) as u16,
            }
            .emit(&mut bytes);
            bytes.extend(extension);
            return bytes;
        }
        let options = vec![1; self.extension_eights * 8];
        let mut bytes = vec![0; ipv4::MIN_HEADER_BYTES + options.len()];
        ipv4::Repr {
            source: <[u8; 4]>::try_from(source).unwrap().into(),
            destination: <[u8; 4]>::try_from(destination).unwrap().into(),
            protocol: self.protocol(),
            tos: 2,
            ttl: 64,
            id: self.id.wrapping_add(number as u16),
            fragment,
            options: &options,
            payload_len: payload_len as u16,
        }
        .emit(&mut bytes);
        bytes
    }

    fn extension(&self) -> Vec<u8> {
        if self.extension_eights == 0 {
            return Vec::new();
        }
        let mut bytes = vec![0; self.extension_eights * 8];
        bytes[0] = self.protocol().0;
        bytes[1] = self.extension_eights as u8 - 1;
        bytes
    }

    fn transport(&self, skipped: usize, flags: Flags, payload: &[u8]) -> Vec<u8> {
        if !self.tcp {
            let mut bytes = vec![0; udp::HEADER_BYTES];
            udp::Repr { source_port: 7, destination_port: 9, payload_len: payload.len() as u16 }
                .emit(&mut bytes);
            return bytes;
        }
        let options = vec![1; self.tcp_option_words * 4];
        let header = tcp::Repr {
            source_port: 7,
            destination_port: 9,
            sequence: self.sequence.wrapping_add(skipped as u32),
            acknowledgement: 99,
            flags,
            window: 1000,
            urgent: 0,
            options: &options,
        };
        let mut bytes = vec![0; header.header_len()];
        header.emit(&mut bytes);
        bytes
    }

    fn pseudo(&self, len: usize) -> Vec<u8> {
        let mut bytes = self.addresses().concat();
        bytes.extend((len as u32).to_be_bytes());
        bytes.extend([0, self.protocol().0]);
        bytes
    }

    fn checksum_offset(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    /// A whole transport header and payload, its checksum complete or partial.
    fn summed(&self, mut header: Vec<u8>, payload: &[u8], complete: bool) -> Vec<u8> {
        let pseudo = self.pseudo(header.len() + payload.len());
        let sum = if complete { !naive_sum(&[&pseudo, &header, payload]) } else { naive_sum(&[&pseudo]) };
        let sum = if sum == 0 && complete && !self.tcp { 0xffff } else { sum };
        let at = self.checksum_offset();
        header[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        header.extend(payload);
        header
    }

    /// The large frame that the source hands out, and what it leaves to do.
    fn large(&self) -> (Vec<u8>, Checksum) {
        let transport =
            self.summed(self.transport(0, Flags(self.flags), &self.payload), &self.payload, false);
        let link_and_ip = [self.link(), self.ip(0, transport.len(), ipv4::DONT_FRAGMENT)].concat();
        let checksum =
            Checksum::Partial { start: link_and_ip.len() as u16, offset: self.checksum_offset() as u16 };
        ([link_and_ip, transport].concat(), checksum)
    }

    /// The frames that a source without offloads would send instead.
    fn segments(&self, size: usize, complete: bool) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(size).max(1);
        let piece = |number: usize| {
            let start = number * size;
            let payload = &self.payload[start..(start + size).min(self.payload.len())];
            let mut flags = Flags(self.flags);
            if number + 1 < count {
                flags = flags.without(Flags::FIN).without(Flags::PSH);
            }
            if number > 0 {
                flags = flags.without(Flags::CWR);
            }
            let transport = self.summed(self.transport(start, flags, payload), payload, complete);
            [self.link(), self.ip(number, transport.len(), ipv4::DONT_FRAGMENT), transport].concat()
        };
        (0..count).map(piece).collect()
    }

    fn kind(&self) -> GsoKind {
        match (self.tcp, self.v6) {
            (true, false) => GsoKind::TcpV4,
            (true, true) => GsoKind::TcpV6,
            (false, _) => GsoKind::UdpSegment,
        }
    }
}

prop_compose! {
    fn packet(max_payload: usize)(
        shape: (bool, bool), tags in 0_usize..=2, extension_eights in 0_usize..=2, tcp_option_words in 0_usize..=5,
        flags: u8, id: u16, sequence: u32, payload in vec(any::<u8>(), 0..max_payload),
    ) -> Packet {
        Packet {
            v6: shape.0, tags, extension_eights, tcp: shape.1, tcp_option_words, flags, id, sequence, payload,
        }
    }
}

/// `bytes` in a burst, scattered at `cuts`.
fn burst(bytes: &[u8], cuts: &[Index]) -> Burst {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    let parts: Vec<_> = at
        .windows(2)
        // SAFETY: every caller keeps `bytes` for as long as the burst.
        .map(|ends| unsafe { frame::Segment::new(bytes[ends[0]..].as_ptr(), ends[1] - ends[0]) })
        .collect();
    let mut burst = Burst::new();
    // SAFETY: as above.
    unsafe { burst.push_parts(&parts, Offload::NONE) }.unwrap();
    burst
}

type Softened = Result<Vec<(Vec<u8>, Offload)>, DropReason>;

fn soften_all(bytes: &[u8], cuts: &[Index], offload: Offload, capabilities: &Capabilities) -> Softened {
    soften_first(&burst(bytes, cuts), offload, capabilities)
}

fn soften_first(burst: &Burst, offload: Offload, capabilities: &Capabilities) -> Softened {
    let mut out = Vec::new();
    let mut emit = |piece: Gather<'_>, offload| {
        out.push((piece.to_vec(), offload));
        ControlFlow::Continue(())
    };
    let flow = soften(&burst.gather(0), offload, capabilities, &mut Scratch::default(), &mut emit)?;
    assert!(flow.is_continue());
    Ok(out)
}

fn gso(kind: GsoKind, size: usize) -> Option<Gso> {
    Some(Gso { kind, size: size as u16, ecn: false, headers_bytes: 0 })
}

/// The transport payload that fragments carry, put together by their offsets, and the last one's end.
fn reassemble(fragments: &[Vec<u8>], ip: usize, v6: bool) -> Vec<u8> {
    let mut datagram = Vec::new();
    for (number, fragment) in fragments.iter().enumerate() {
        let is_last = number + 1 == fragments.len();
        let (offset, more, payload) = if v6 {
            let view = ipv6::View::new(&fragment[ip..]).unwrap();
            let upper = view.walk().unwrap();
            let header = upper.fragment.unwrap();
            assert_eq!(upper.protocol, IpProtocol::UDP);
            assert_eq!(usize::from(view.payload_len()) + ip + 40, fragment.len());
            (usize::from(header.offset), header.more, &view.payload()[8..])
        } else {
            let view = ipv4::View::new(&fragment[ip..]).unwrap();
            assert!(view.checksum_is_valid());
            assert_eq!(usize::from(view.total_len()) + ip, fragment.len());
            assert_eq!(view.fragment() & ipv4::DONT_FRAGMENT, 0);
            (view.fragment_offset(), view.fragment() & ipv4::MORE_FRAGMENTS != 0, view.payload())
        };
        assert_eq!((offset, more), (datagram.len(), !is_last));
        assert!(is_last || payload.len().is_multiple_of(8));
        datagram.extend_from_slice(payload);
    }
    datagram
}

proptest! {
    #[test]
    fn segments_of_any_packet_equal_the_reference(
        packet in packet(5000), size in 8_usize..2000, cuts in vec(any::<Index>(), 0..6),
    ) {
        let (bytes, checksum) = packet.large();
        let offload = Offload { checksum, gso: gso(packet.kind(), size), ..Offload::NONE };
        let softened = soften_all(&bytes, &cuts, offload, &Capabilities::NONE).unwrap();
        let expected: Vec<_> = packet.segments(size, true).into_iter().map(|bytes| (bytes, Offload::NONE)).collect();
        prop_assert_eq!(softened, expected);
    }

    #[test]
    fn segments_for_a_device_that_sums_are_left_partial(packet in packet(5000), size in 8_usize..2000) {
        let (bytes, checksum) = packet.large();
        let offload = Offload { checksum, gso: gso(packet.kind(), size), ..Offload::NONE };
        let capabilities = Capabilities { checksum: true, ..Capabilities::NONE };
        let softened = soften_all(&bytes, &[], offload, &capabilities).unwrap();
        let left = Offload { checksum, ..Offload::NONE };
        let expected: Vec<_> = packet.segments(size, false).into_iter().map(|bytes| (bytes, left)).collect();
        prop_assert_eq!(softened, expected);
    }

    #[test]
    fn a_partial_checksum_is_finished_as_the_reference_does(
        packet in packet(3000), cuts in vec(any::<Index>(), 0..6),
    ) {
        let (bytes, checksum) = packet.large();
        let softened = soften_all(&bytes, &cuts, Offload { checksum, ..Offload::NONE }, &Capabilities::NONE).unwrap();
        let mut expected = packet.segments(usize::MAX, true).remove(0);
        let field = expected.len() - packet.payload.len() - packet.transport(0, Flags(0), &[]).len() + packet.checksum_offset();
        // The two zeros of ones' complement are one number to TCP.
        if expected[field..field + 2] == [0, 0] {
            expected[field..field + 2].fill(0xff);
        }
        prop_assert_eq!(softened, vec![(expected, Offload::NONE)]);
    }

    #[test]
    fn fragments_of_any_datagram_make_the_datagram_again(
        packet in packet(5000), size in 8_usize..2000, cuts in vec(any::<Index>(), 0..6),
    ) {
        let packet = Packet { tcp: false, extension_eights: if packet.v6 { 0 } else { packet.extension_eights }, ..packet };
        let (bytes, checksum) = packet.large();
        let offload = Offload { checksum, gso: gso(GsoKind::UdpFragment, size), ..Offload::NONE };
        let softened = soften_all(&bytes, &cuts, offload, &Capabilities::NONE).unwrap();
        let fragments: Vec<_> = softened.into_iter().map(|(bytes, _)| bytes).collect();
        let whole = packet.summed(packet.transport(0, Flags(0), &packet.payload), &packet.payload, true);
        prop_assert_eq!(reassemble(&fragments, packet.link().len(), packet.v6), whole);
        prop_assert_eq!(fragments.len(), (packet.payload.len() + 8).div_ceil(size & !7));
    }

    #[test]
    fn soften_of_any_bytes_and_claims_never_panics(
        bytes in vec(any::<u8>(), 1..400), start: u16, offset: u16, size: u16, kind in 0..4, partial: bool, sums: bool,
    ) {
        let kind = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpFragment, GsoKind::UdpSegment][kind as usize];
        let checksum = if partial { Checksum::Partial { start, offset } } else { Checksum::Complete };
        let capabilities = Capabilities { checksum: sums, ..Capabilities::NONE };
        for gso in [None, gso(kind, usize::from(size))] {
            let _ = soften_all(&bytes, &[], Offload { checksum, gso, ..Offload::NONE }, &capabilities);
        }
    }

    #[test]
    fn soften_of_a_damaged_packet_never_panics(
        packet in packet(600), at: Index, value: u8, size in 1_usize..700, fragment: bool, cut: Option<Index>,
    ) {
        let (mut bytes, checksum) = packet.large();
        let at = at.index(bytes.len().min(100));
        bytes[at] = value;
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len()) + 1));
        let kind = if fragment { GsoKind::UdpFragment } else { packet.kind() };
        let _ = soften_all(&bytes, &[], Offload { checksum, gso: gso(kind, size), ..Offload::NONE }, &Capabilities::NONE);
    }
}

fn tcp_packet() -> Packet {
    Packet {
        v6: false,
        tags: 0,
        extension_eights: 0,
        tcp: true,
        tcp_option_words: 3,
        flags: Flags::ACK.0,
        id: u16::MAX,
        sequence: u32::MAX,
        payload: vec![7; 4000],
    }
}

fn soften_as(packet: &Packet, change: impl FnOnce(&mut Vec<u8>, &mut Offload)) -> Softened {
    let (mut bytes, checksum) = packet.large();
    let mut offload = Offload { checksum, gso: gso(packet.kind(), 1000), ..Offload::NONE };
    change(&mut bytes, &mut offload);
    soften_all(&bytes, &[], offload, &Capabilities::NONE)
}

type Lie = fn(&mut Vec<u8>, &mut Offload);

#[test]
fn claims_that_contradict_the_frame_are_bad_offload() {
    let packet = tcp_packet();
    assert_eq!(soften_as(&packet, |_, _| ()).unwrap().len(), 4);
    let lies: [(&str, Lie); 9] = [
        ("another family", |_, offload| offload.gso = gso(GsoKind::TcpV6, 1000)),
        ("another protocol", |_, offload| offload.gso = gso(GsoKind::UdpSegment, 1000)),
        ("segments of nothing", |_, offload| offload.gso = gso(GsoKind::TcpV4, 0)),
        ("far too many segments", |_, offload| offload.gso = gso(GsoKind::TcpV4, 1)),
        ("a checksum elsewhere", |_, offload| offload.checksum = Checksum::Partial { start: 34, offset: 6 }),
        ("a checksum behind the head", |_, offload| {
            *offload = Offload { checksum: Checksum::Partial { start: 2000, offset: 16 }, ..Offload::NONE };
        }),
        ("a packet longer than its frame", |bytes, _| bytes[16] = 0xff),
        ("a fragment", |bytes, _| bytes[20] = 0x20),
        ("a frame that ends in its headers", |bytes, _| bytes.truncate(60)),
    ];
    for (lie, tell) in lies {
        assert_eq!(soften_as(&packet, tell), Err(DropReason::BadOffload), "{lie}");
    }
}

#[test]
fn ethernet_padding_is_not_payload() {
    let packet = Packet { payload: vec![7; 10], ..tcp_packet() };
    let softened = soften_as(&packet, |bytes, _| bytes.extend([0; 30])).unwrap();
    assert_eq!(softened, vec![(packet.segments(1000, true).remove(0), Offload::NONE)]);
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let packet = Packet { tcp: false, ..tcp_packet() };
    let softened = soften_as(&packet, |bytes, offload| {
        bytes[40..42].fill(0);
        offload.checksum = Checksum::Complete;
    });
    for (bytes, _) in softened.unwrap() {
        assert_eq!(bytes[40..42], [0, 0]);
    }
}

#[test]
fn soften_stops_when_emit_breaks() {
    let (bytes, checksum) = tcp_packet().large();
    let burst = burst(&bytes, &[]);
    let offload = Offload { checksum, gso: gso(GsoKind::TcpV4, 1000), ..Offload::NONE };
    let mut emitted = 0;
    let mut emit = |_: Gather<'_>, _| {
        emitted += 1;
        if emitted == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let flow = soften(&burst.gather(0), offload, &Capabilities::NONE, &mut Scratch::default(), &mut emit);
    assert_eq!((flow, emitted), (Ok(ControlFlow::Break(())), 2));
}

#[test]
fn a_device_gets_whole_what_it_takes() {
    let large = |kind, ecn| Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso { kind, size: 1000, ecn, headers_bytes: 0 }),
        ..Offload::NONE
    };
    let tso4 = Capabilities { checksum: true, tso4: true, ..Capabilities::NONE };
    assert!(!needs_software(&large(GsoKind::TcpV4, false), &tso4));
    assert!(needs_software(&large(GsoKind::TcpV4, true), &tso4));
    assert!(needs_software(&large(GsoKind::TcpV6, false), &tso4));
    assert!(needs_software(&large(GsoKind::TcpV4, false), &Capabilities { checksum: false, ..tso4 }));
    assert!(!needs_software(&Offload::NONE, &Capabilities::NONE));
    assert!(needs_software(&Offload { gso: None, ..large(GsoKind::TcpV4, false) }, &Capabilities::NONE));
    for kind in [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpFragment, GsoKind::UdpSegment] {
        assert!(!needs_software(&large(kind, true), &Capabilities::ALL));
    }
}
