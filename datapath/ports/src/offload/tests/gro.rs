//! Trains that were parted, against the packets that they were made of.

use super::tunnel::{Tunnel, plain, soften_in, tunnel};
use super::*;
use crate::offload::gro::{Gro, Room};

/// What `frames` become.
fn taken_in(frames: &[(Vec<u8>, Offload)]) -> Result<Vec<(Vec<u8>, Offload)>, DropReason> {
    let (mut room, mut out) = (Room::default(), Vec::new());
    let mut gro = Gro::new(&mut room);
    let mut emit = |parts: &[frame::Segment], offload| {
        let mut burst = Burst::new();
        // SAFETY: the parts are used before this returns.
        unsafe { burst.push_parts(parts, offload) }.unwrap();
        out.push((burst.gather(0).to_vec(), offload));
    };
    let taken = frames.iter().try_for_each(|(bytes, offload)| gro.take(bytes, *offload, &mut emit));
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
    fn a_train_of_any_packets_is_parted_into_them(
        packet in packet(3000), tunnel in untagged(), size in 8_usize..2000,
    ) {
        let tunnel = Tunnel { summed: true, ..tunnel };
        let packets = packets(&packet, &tunnel, size);
        let together = taken_in(&[train(&packets, &tunnel)]).unwrap();
        prop_assert_eq!(cut_again(&together), packets);
    }

    #[test]
    fn any_bytes_with_any_claims_are_taken_or_refused_by_name(
        bytes in vec(any::<u8>(), 1..400), start: u16, size: u16, partial: bool, kind in 0..3,
    ) {
        let checksum = if partial { Checksum::Partial { start, offset: 6 } } else { Checksum::Valid };
        let kind = [GsoKind::TcpV4, GsoKind::UdpSegment, GsoKind::UdpFragment][kind as usize];
        for gso in [None, gso(kind, size.into())] {
            let frame = (bytes.clone(), Offload { checksum, gso, outer_bytes: 0 });
            let _ = taken_in(&[frame.clone(), frame]);
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
        let _ = taken_in(&[(bytes, Offload { gso: gso(GsoKind::UdpSegment, size.into()), ..offload })]);
    }
}

/// Three packets of a segment, over IPv4.
fn three() -> Vec<Vec<u8>> {
    packets(&Packet { payload: vec![7; 3000], ..tcp_packet() }, &plain(), 1000)
}

#[test]
fn a_train_of_far_too_many_packets_is_bad_offload() {
    let (bytes, offload) = train(&three(), &plain());
    let offload = Offload { gso: gso(GsoKind::UdpSegment, 1), ..offload };
    assert_eq!(taken_in(&[(bytes, offload)]), Err(DropReason::BadOffload));
}
