//! Softened frames in tunnels, against outer headers built from scratch around each piece, the checksum summed byte by byte.

use super::*;

/// A tunnel as its source meant it.
#[derive(Debug, Clone)]
pub(super) struct Tunnel {
    pub(super) v6: bool,
    pub(super) tagged: bool,
    /// Behind the fixed header of Geneve, in 4-byte units.
    pub(super) option_words: usize,
    pub(super) id: u16,
    pub(super) summed: bool,
}

prop_compose! {
    pub(super) fn tunnel()(v6: bool, tagged: bool, option_words in 0_usize..5, id: u16, summed: bool) -> Tunnel {
        Tunnel { v6, tagged, option_words, id, summed }
    }
}

impl Tunnel {
    fn addresses(&self) -> Vec<u8> {
        let bytes = if self.v6 { 16 } else { 4 };
        [vec![0x33; bytes], vec![0x44; bytes]].concat()
    }

    fn link(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 9, 1, 2, 0, 0, 0, 9, 2];
        if self.tagged {
            bytes.extend([0x81, 0x00, 0x00, 0x07]);
        }
        bytes.extend(if self.v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        bytes
    }

    /// The header of IP in front of `len` bytes of UDP.
    fn ip(&self, number: usize, len: u16) -> Vec<u8> {
        let (from, to) = ([0x33; 16], [0x44; 16]);
        let mut bytes = vec![0; if self.v6 { 40 } else { 20 }];
        if self.v6 {
            ipv6::Repr {
                source: from.into(),
                destination: to.into(),
                next_header: IpProtocol::UDP,
                traffic_class: 0,
                flow_label: 3,
                hop_limit: 64,
                payload_len: len,
            }
            .emit(&mut bytes);
            return bytes;
        }
        ipv4::Repr {
            source: [0x33; 4].into(),
            destination: [0x44; 4].into(),
            protocol: IpProtocol::UDP,
            tos: 0,
            ttl: 64,
            id: self.id.wrapping_add(number as u16),
            fragment: 0,
            options: &[],
            payload_len: len,
        }
        .emit(&mut bytes);
        bytes
    }

    /// The outer headers around piece `number`, `inner`.
    fn outer(&self, number: usize, inner: &[u8]) -> Vec<u8> {
        let mut geneve = vec![self.option_words as u8, 0, 0x65, 0x58, 0, 0, 7, 0];
        geneve.extend(vec![0xa5; self.option_words * 4]);
        let len = (8 + geneve.len() + inner.len()).min(65_000) as u16;
        let mut udp = [&[0xc0, 0x01, 0x17, 0xc1], &len.to_be_bytes()[..], &[0, 0]].concat();
        if self.summed {
            let pseudo = [self.addresses(), vec![0, 17], len.to_be_bytes().to_vec()].concat();
            let sum = !naive_sum(&[&pseudo, &udp, &geneve, inner]);
            udp[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        }
        [self.link(), self.ip(number, len), udp, geneve].concat()
    }

    pub(super) fn around(&self, number: usize, inner: &[u8]) -> Vec<u8> {
        [self.outer(number, inner), inner.to_vec()].concat()
    }

    /// What `packet` is in the tunnel: outer headers whose lengths and checksum are of no use, and what is left to do.
    fn large(&self, packet: &Packet) -> (Vec<u8>, Offload) {
        let (inner, checksum) = packet.large();
        let bytes = self.around(0, &inner);
        let outer_bytes = (bytes.len() - inner.len()) as u16;
        let Checksum::Partial { start, offset } = checksum else { unreachable!("large packets are partial") };
        let checksum = Checksum::Partial { start: start + outer_bytes, offset };
        (bytes, Offload { checksum, gso: None, outer_bytes })
    }
}

/// Softens a frame whose first `outer` bytes were put in front of it.
pub(super) fn soften_in(
    bytes: &[u8],
    outer: usize,
    cuts: &[Index],
    offload: Offload,
    capabilities: &Capabilities,
) -> Softened {
    let (outer, inner) = bytes.split_at(outer);
    let mut burst = burst(inner, cuts);
    assert!(burst.encapsulate(0, outer));
    soften_first(&burst, offload, capabilities)
}

proptest! {
    #[test]
    fn segments_in_a_tunnel_are_finished_for_a_device_that_sums_only_others(
        packet in packet(3000), tunnel in tunnel(), size in 8_usize..2000,
    ) {
        let (bytes, offload) = tunnel.large(&packet);
        let offload = Offload { gso: gso(packet.kind(), size), ..offload };
        let outer = usize::from(offload.outer_bytes);
        let capabilities = Capabilities { tunnel_checksum: false, ..Capabilities::ALL };
        let softened = soften_in(&bytes, outer, &[], offload, &capabilities);
        prop_assert_eq!(softened, soften_in(&bytes, outer, &[], offload, &Capabilities::NONE));
    }

    #[test]
    fn segments_in_a_tunnel_equal_the_reference(
        packet in packet(5000), tunnel in tunnel(), size in 8_usize..2000, cuts in vec(any::<Index>(), 0..6),
    ) {
        let (bytes, offload) = tunnel.large(&packet);
        let offload = Offload { gso: gso(packet.kind(), size), ..offload };
        let softened = soften_in(&bytes, offload.outer_bytes.into(), &cuts, offload, &Capabilities::NONE).unwrap();
        let whole = packet.segments(size, true).into_iter().enumerate();
        let expected: Vec<_> = whole.map(|(n, bytes)| (tunnel.around(n, &bytes), Offload::NONE)).collect();
        prop_assert_eq!(softened, expected);
    }

    #[test]
    fn segments_in_a_tunnel_left_partial_have_the_outer_checksum_of_finished_ones(
        packet in packet(5000), tunnel in tunnel(), size in 8_usize..2000,
    ) {
        let (bytes, left) = tunnel.large(&packet);
        let offload = Offload { gso: gso(packet.kind(), size), ..left };
        let capabilities = Capabilities::ALL;
        let softened = soften_in(&bytes, offload.outer_bytes.into(), &[], offload, &capabilities).unwrap();
        let finished = packet.segments(size, true).into_iter();
        let expected: Vec<_> = packet.segments(size, false).into_iter().zip(finished).enumerate()
            .map(|(n, (partial, finished))| ([tunnel.outer(n, &finished), partial].concat(), left))
            .collect();
        prop_assert_eq!(softened, expected);
    }

    #[test]
    fn a_partial_checksum_in_a_tunnel_is_finished_without_touching_the_outer_headers(
        packet in packet(3000), tunnel in tunnel(), cuts in vec(any::<Index>(), 0..6),
    ) {
        let (bytes, offload) = tunnel.large(&packet);
        let softened = soften_in(&bytes, offload.outer_bytes.into(), &cuts, offload, &Capabilities::NONE).unwrap();
        let [(softened, left)] = &softened[..] else { panic!("one frame stays one") };
        let (outer, inner) = softened.split_at(offload.outer_bytes.into());
        prop_assert_eq!((outer, *left), (&bytes[..outer.len()], Offload::NONE));
        let (plain, checksum) = packet.large();
        let alone = soften_all(&plain, &[], Offload { checksum, ..Offload::NONE }, &Capabilities::NONE).unwrap();
        prop_assert_eq!(inner, &alone[0].0);
    }

    #[test]
    fn fragments_in_a_tunnel_are_summed_and_make_the_datagram_again(
        packet in packet(5000), tunnel in tunnel(), size in 8_usize..2000,
    ) {
        let packet = Packet { tcp: false, extension_eights: 0, ..packet };
        let (bytes, offload) = tunnel.large(&packet);
        let offload = Offload { gso: gso(GsoKind::UdpFragment, size), ..offload };
        let softened = soften_in(&bytes, offload.outer_bytes.into(), &[], offload, &Capabilities::NONE).unwrap();
        let inner = |bytes: &Vec<u8>| bytes[usize::from(offload.outer_bytes)..].to_vec();
        let fragments: Vec<_> = softened.iter().map(|(bytes, _)| inner(bytes)).collect();
        for (number, (bytes, _)) in softened.iter().enumerate() {
            prop_assert_eq!(bytes, &tunnel.around(number, &fragments[number]));
        }
        let whole = packet.summed(packet.transport(0, Flags(0), &packet.payload), &packet.payload, true);
        prop_assert_eq!(reassemble(&fragments, packet.link().len(), packet.v6), whole);
    }

    #[test]
    fn soften_of_any_bytes_in_any_tunnel_never_panics(
        bytes in vec(any::<u8>(), 1..400), outer_bytes in 0_u16..300, start: u16, size: u16, partial: bool, sums: bool,
    ) {
        let checksum = if partial { Checksum::Partial { start, offset: 16 } } else { Checksum::Complete };
        let capabilities = Capabilities { checksum: sums, ..Capabilities::NONE };
        for gso in [None, gso(GsoKind::TcpV4, size.into()), gso(GsoKind::UdpSegment, size.into())] {
            let _ = soften_all(&bytes, &[], Offload { checksum, gso, outer_bytes }, &capabilities);
        }
    }

    #[test]
    fn soften_of_a_damaged_tunnel_never_panics(
        packet in packet(600), tunnel in tunnel(), at: Index, value: u8, size in 1_usize..700, outer: Option<u8>,
    ) {
        let (mut bytes, offload) = tunnel.large(&packet);
        let at = at.index(bytes.len().min(200));
        bytes[at] = value;
        let real = usize::from(offload.outer_bytes);
        let outer_bytes = outer.map_or(offload.outer_bytes, u16::from);
        for kind in [packet.kind(), GsoKind::UdpFragment] {
            let offload = Offload { gso: gso(kind, size), outer_bytes, ..offload };
            let _ = soften_in(&bytes, real, &[], offload, &Capabilities::NONE);
        }
    }
}

pub(super) fn plain() -> Tunnel {
    Tunnel { v6: false, tagged: false, option_words: 2, id: u16::MAX, summed: true }
}

type Lie = fn(&mut Vec<u8>, &mut Offload);

#[test]
fn claims_about_a_tunnel_that_contradict_the_frame_are_bad_offload() {
    let lies: [(&str, Lie); 8] = [
        ("outer headers of nothing", |_, offload| offload.outer_bytes = 1),
        ("outer headers behind the head", |_, offload| offload.outer_bytes = 2000),
        ("an inner frame elsewhere", |_, offload| offload.outer_bytes += 4),
        ("an odd tunnel", |_, offload| offload.outer_bytes -= 1),
        ("not IP", |bytes, _| bytes[12] = 0x99),
        ("not UDP", |bytes, _| bytes[23] = 6),
        ("an outer fragment", |bytes, _| bytes[20] = 0x20),
        ("a checksum of the outer header", |_, offload| {
            *offload =
                Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: None, ..*offload };
        }),
    ];
    for (lie, tell) in lies {
        let (mut bytes, offload) = plain().large(&tcp_packet());
        let outer = usize::from(offload.outer_bytes);
        let mut offload = Offload { gso: gso(GsoKind::TcpV4, 1000), ..offload };
        assert_eq!(soften_in(&bytes, outer, &[], offload, &Capabilities::NONE).unwrap().len(), 4);
        tell(&mut bytes, &mut offload);
        let softened = soften_in(&bytes, outer, &[], offload, &Capabilities::NONE);
        assert_eq!(softened, Err(DropReason::BadOffload), "{lie}");
    }
}

#[test]
fn a_piece_that_no_tunnel_holds_is_too_big() {
    let packet = Packet { payload: vec![7; 65_480], ..tcp_packet() };
    let (bytes, offload) = plain().large(&packet);
    let offload = Offload { gso: gso(GsoKind::TcpV4, 65_480), ..offload };
    assert_eq!(
        soften_in(&bytes, offload.outer_bytes.into(), &[], offload, &Capabilities::NONE),
        Err(DropReason::TooBig)
    );
}

#[test]
fn a_device_cuts_nothing_in_a_tunnel_but_may_finish_its_checksum() {
    let (_, offload) = plain().large(&tcp_packet());
    assert!(!needs_software(&offload, &Capabilities::ALL));
    assert!(needs_software(&offload, &Capabilities::NONE));
    assert!(needs_software(&offload, &Capabilities { tunnel_checksum: false, ..Capabilities::ALL }));
    assert!(needs_software(&Offload { gso: gso(GsoKind::TcpV4, 1000), ..offload }, &Capabilities::ALL));
}
