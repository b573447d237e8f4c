//! Frames that were put together, against the packets that they were put together of: cut again, they are the same.

use super::tunnel::{Tunnel, plain, soften_in, tunnel};
use super::*;
use crate::offload::gro::{Gro, Room};

/// What the packets `frames` become.
fn put_together(frames: &[(Vec<u8>, Offload)]) -> Result<Vec<(Vec<u8>, Offload)>, DropReason> {
    let (mut room, mut out) = (Room::default(), Vec::new());
    let mut gro = Gro::new(&mut room);
    let mut emit = |parts: &[frame::Segment], offload| {
        let mut burst = Burst::new();
        // SAFETY: the parts are used before this returns.
        unsafe { burst.push_parts(parts, offload) }.unwrap();
        out.push((burst.gather(0).to_vec(), offload));
    };
    let taken = frames.iter().try_for_each(|(bytes, offload)| gro.take(bytes, *offload, &mut emit));
    gro.end(&mut emit);
    taken.map(|()| out)
}

/// What is sent of `frames` by a device that takes only finished ones.
fn cut_again(frames: &[(Vec<u8>, Offload)]) -> Vec<Vec<u8>> {
    let cut = |(bytes, offload): &(Vec<u8>, Offload)| match offload.outer_bytes {
        0 => soften_all(bytes, &[], *offload, &Capabilities::NONE),
        outer => soften_in(bytes, outer.into(), &[], *offload, &Capabilities::NONE),
    };
    frames.iter().flat_map(|frame| cut(frame).unwrap()).map(|(bytes, _)| bytes).collect()
}

/// The same without the headers of UDP and what comes before them.
fn insides(frames: &[Vec<u8>], outer: usize) -> Vec<Vec<u8>> {
    frames.iter().map(|bytes| bytes[outer.min(bytes.len())..].to_vec()).collect()
}

fn finished(packets: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Offload)> {
    packets.into_iter().map(|bytes| (bytes, Offload::NONE)).collect()
}

/// The packets of `packet` in `tunnel`.
fn packets(packet: &Packet, tunnel: &Tunnel, size: usize) -> Vec<Vec<u8>> {
    let segments = packet.segments(size, true).into_iter().enumerate();
    segments.map(|(number, bytes)| tunnel.around(number, &bytes)).collect()
}

/// Bytes of the outer headers up to UDP's.
fn outer_bytes(tunnel: &Tunnel) -> usize {
    14 + if tunnel.tagged { 4 } else { 0 } + if tunnel.v6 { 40 } else { 20 } + 8
}

/// `packets` behind the outer headers of the first one, as a socket hands a train out.
fn train(packets: &[Vec<u8>], tunnel: &Tunnel) -> (Vec<u8>, Offload) {
    let outer = outer_bytes(tunnel);
    let mut bytes = packets[0][..outer].to_vec();
    packets.iter().for_each(|packet| bytes.extend(&packet[outer..]));
    let udp_len = (bytes.len() - outer + 8) as u16;
    bytes[outer - 4..outer - 2].copy_from_slice(&udp_len.to_be_bytes());
    if tunnel.v6 {
        bytes[18..20].copy_from_slice(&udp_len.to_be_bytes());
    } else {
        bytes[16..18].copy_from_slice(&(udp_len + 20).to_be_bytes());
        ipv4::fill_checksum(&mut bytes[14..34]);
    }
    let checksum = Checksum::Partial { start: outer as u16 - 8, offset: 6 };
    let gso = gso(GsoKind::UdpSegment, packets[0].len() - outer);
    (bytes, Offload { checksum, gso, outer_bytes: 0 })
}

prop_compose! {
    /// A segment of TCP as pods send them.
    fn segment(max_payload: usize)(packet in packet(max_payload)) -> Packet {
        let some = Flags::PSH.with(Flags::FIN).with(Flags::ECE);
        let flags = Flags::ACK.with(Flags(packet.flags & some.0)).0;
        let payload = [&[7][..], &packet.payload].concat();
        Packet { extension_eights: 0, tcp: true, flags, payload, ..packet }
    }
}

prop_compose! {
    /// A tunnel as the switch looks for it.
    fn untagged()(tunnel in tunnel()) -> Tunnel {
        Tunnel { tagged: false, ..tunnel }
    }
}

proptest! {
    #[test]
    fn packets_of_one_segment_become_one_frame_that_is_cut_into_them_again(
        packet in segment(5000), tunnel in untagged(), size in 40_usize..2000,
    ) {
        let packets = packets(&packet, &tunnel, size);
        let together = put_together(&finished(packets.clone())).unwrap();
        prop_assert_eq!(together.len(), 1);
        prop_assert_eq!(cut_again(&together), packets);
    }

    #[test]
    fn packets_of_any_kind_are_cut_into_themselves_again(
        packet in packet(3000), tunnel in tunnel(), size in 8_usize..2000,
    ) {
        let packets = packets(&packet, &tunnel, size);
        prop_assert_eq!(cut_again(&put_together(&finished(packets.clone())).unwrap()), packets);
    }

    #[test]
    fn a_train_becomes_the_frame_that_its_packets_become(
        packet in segment(5000), tunnel in untagged(), size in 40_usize..2000,
    ) {
        let tunnel = Tunnel { summed: true, ..tunnel };
        let packets = packets(&packet, &tunnel, size);
        let by_themselves = put_together(&finished(packets.clone())).unwrap();
        let together = put_together(&[train(&packets, &tunnel)]).unwrap();
        if packets.len() > 1 {
            prop_assert_eq!(together, by_themselves);
        } else {
            prop_assert_eq!(cut_again(&together), packets);
        }
    }

    #[test]
    fn a_train_of_any_packets_is_parted_into_them(
        packet in packet(3000), tunnel in untagged(), size in 8_usize..2000,
    ) {
        let tunnel = Tunnel { summed: true, ..tunnel };
        let packets = packets(&packet, &tunnel, size);
        let together = put_together(&[train(&packets, &tunnel)]).unwrap();
        prop_assert_eq!(cut_again(&together), packets);
    }

    #[test]
    fn what_is_damaged_or_out_of_order_comes_out_as_it_was(
        packet in segment(3000), tunnel in untagged(), size in 100_usize..1000,
        which: Index, at: Index, value: u8, swapped: Option<Index>,
    ) {
        let mut packets = packets(&packet, &tunnel, size);
        let which = which.index(packets.len());
        let at = at.index(packets[which].len().min(180));
        packets[which][at] = value;
        if let Some(other) = swapped {
            let other = other.index(packets.len());
            packets.swap(which, other);
        }
        let together = put_together(&finished(packets.clone())).unwrap();
        // The tunnel's own headers end here; identifications are no order where fragmentation is forbidden.
        let inner = |frames: &[Vec<u8>]| {
            let mut frames = insides(frames, outer_bytes(&tunnel));
            let ip = packet.link().len();
            for bytes in &mut frames {
                let geneve = 8 + 4 * usize::from(bytes.first().map_or(0, |first| first & 0x3f));
                if !packet.v6 && bytes.len() >= geneve + ip + 20 {
                    bytes[geneve + ip + 4..geneve + ip + 6].fill(0);
                    bytes[geneve + ip + 10..geneve + ip + 12].fill(0);
                }
            }
            frames
        };
        prop_assert_eq!(inner(&cut_again(&together)), inner(&packets));
    }

    #[test]
    fn any_bytes_with_any_claims_are_taken_or_refused_by_name(
        bytes in vec(any::<u8>(), 1..400), start: u16, size: u16, partial: bool, kind in 0..3,
    ) {
        let checksum = if partial { Checksum::Partial { start, offset: 6 } } else { Checksum::Valid };
        let kind = [GsoKind::TcpV4, GsoKind::UdpSegment, GsoKind::UdpFragment][kind as usize];
        for gso in [None, gso(kind, size.into())] {
            let frame = (bytes.clone(), Offload { checksum, gso, outer_bytes: 0 });
            let _ = put_together(&[frame.clone(), frame]);
        }
    }

    #[test]
    fn a_damaged_train_is_taken_or_refused_by_name(
        packet in segment(1500), tunnel in tunnel(), at: Index, value: u8, size: u16, cut: Option<Index>,
    ) {
        let packets = packets(&packet, &tunnel, 200);
        let (mut bytes, offload) = train(&packets, &tunnel);
        let at = at.index(bytes.len().min(200));
        bytes[at] = value;
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len()) + 1));
        let _ = put_together(&[(bytes, Offload { gso: gso(GsoKind::UdpSegment, size.into()), ..offload })]);
    }
}

/// Three packets of a segment, over IPv4.
fn three() -> Vec<Vec<u8>> {
    packets(&Packet { payload: vec![7; 3000], ..tcp_packet() }, &plain(), 1000)
}

/// Where the frame inside begins, its IP header and its TCP header.
const INNER: usize = 42 + 16;
const IP: usize = INNER + 14;
const TCP: usize = IP + 20;

type Change = fn(&mut [u8]);

/// Changes a packet and makes its checksums right again.
fn changed(bytes: &mut [u8], change: impl Fn(&mut [u8])) {
    change(bytes);
    ipv4::fill_checksum(&mut bytes[IP..TCP]);
    bytes[TCP + 16..TCP + 18].fill(0);
    let len = bytes.len() - TCP;
    let pseudo = [&bytes[IP + 12..IP + 20], &[0, 6], &(len as u16).to_be_bytes()[..]].concat();
    let sum = !naive_sum(&[&pseudo, &bytes[TCP..]]);
    bytes[TCP + 16..TCP + 18].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_packet_that_differs_in_any_header_begins_anew() {
    assert_eq!(put_together(&finished(three())).unwrap().len(), 1);
    let differs: [(&str, Change); 18] = [
        ("outer source", |bytes| bytes[29] ^= 1),
        ("outer TOS", |bytes| bytes[15] ^= 1),
        ("outer port", |bytes| bytes[35] ^= 1),
        ("VNI", |bytes| bytes[42 + 6] ^= 1),
        ("option of the tunnel", |bytes| bytes[42 + 9] ^= 1),
        ("inner station", |bytes| bytes[INNER + 3] ^= 1),
        ("TOS", |bytes| bytes[IP + 1] ^= 1),
        ("TTL", |bytes| bytes[IP + 8] ^= 1),
        ("address", |bytes| bytes[IP + 14] ^= 1),
        ("port", |bytes| bytes[TCP + 1] ^= 1),
        ("gap", |bytes| bytes[TCP + 7] ^= 1),
        ("acknowledgement", |bytes| bytes[TCP + 11] ^= 1),
        ("reserved bit", |bytes| bytes[TCP + 12] ^= 1),
        ("CWR", |bytes| bytes[TCP + 13] |= Flags::CWR.0),
        ("SYN", |bytes| bytes[TCP + 13] |= Flags::SYN.0),
        ("window", |bytes| bytes[TCP + 15] ^= 1),
        ("urgent", |bytes| bytes[TCP + 19] ^= 1),
        ("option", |bytes| bytes[TCP + 25] ^= 2),
    ];
    for (what, change) in differs {
        let mut packets = three();
        changed(&mut packets[1], change);
        assert_eq!(put_together(&finished(packets)).unwrap().len(), 3, "{what}");
    }
}

#[test]
fn identifications_are_an_order_where_fragmentation_is_allowed() {
    let allows = |bytes: &mut [u8]| bytes[IP + 6] &= !0x40;
    let mut packets = three();
    packets.iter_mut().for_each(|bytes| changed(bytes, allows));
    assert_eq!(put_together(&finished(packets.clone())).unwrap().len(), 1);
    changed(&mut packets[2], |bytes| bytes[IP + 5] ^= 0x40);
    assert_eq!(put_together(&finished(packets)).unwrap().len(), 2);
    let mut packets = three();
    changed(&mut packets[2], |bytes| bytes[IP + 5] ^= 0x40);
    assert_eq!(put_together(&finished(packets)).unwrap().len(), 1, "elsewhere they mean nothing");
}

#[test]
fn a_packet_with_a_wrong_checksum_goes_by_itself() {
    let mut packets = three();
    packets[1][TCP + 40] ^= 1;
    let together = put_together(&finished(packets.clone())).unwrap();
    assert_eq!(together, finished(packets));
}

#[test]
fn a_push_ends_a_frame() {
    let pushed = |bytes: &mut [u8]| bytes[TCP + 13] |= Flags::PSH.0;
    let mut all = three();
    changed(&mut all[1], pushed);
    let together = put_together(&finished(all.clone())).unwrap();
    assert_eq!(together.len(), 2);
    assert_eq!(together[0].1.gso.unwrap().size, 1000);
    assert_eq!(cut_again(&together), all);
}

#[test]
fn a_frame_is_no_longer_than_its_tunnel_allows() {
    let packet = Packet { payload: vec![7; 65_480], ..tcp_packet() };
    let packets = packets(&packet, &plain(), 1300);
    let together = put_together(&finished(packets.clone())).unwrap();
    assert_eq!(together.len(), 2);
    assert!(together.iter().all(|(bytes, _)| bytes.len() <= 14 + 65_535));
    assert_eq!(cut_again(&together).len(), packets.len());
}

#[test]
fn a_train_of_far_too_many_packets_is_bad_offload() {
    let (bytes, offload) = train(&three(), &plain());
    let offload = Offload { gso: gso(GsoKind::UdpSegment, 1), ..offload };
    assert_eq!(put_together(&[(bytes, offload)]), Err(DropReason::BadOffload));
}
