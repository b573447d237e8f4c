//! A frame with claims about it, in a tunnel or not, softened: nothing panics, and what leaves is finished as claimed.

use std::ops::ControlFlow;

use frame::{Burst, Checksum, Gather, Gso, GsoKind, Offload};
use ports::offload::{Capabilities, Scratch, soften};
use wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use wire::{EtherType, IpProtocol, ipv4, ipv6, vlan};

use crate::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.u8();
    let offload = claims(choice, &mut input);
    let capabilities =
        Capabilities { checksum: choice & 0x20 != 0, tunnel_checksum: true, ..Capabilities::NONE };
    let outer_len = if choice & 0x80 != 0 { usize::from(input.u8()) } else { 0 };
    let Some((outer, inner)) = input.rest().split_at_checked(outer_len) else { return };
    let mut burst = Burst::new();
    if burst.push_owned(inner.to_vec(), offload).is_err() || !outer.is_empty() && !burst.encapsulate(0, outer)
    {
        return;
    }
    let (frame, offload) = (burst.gather(0), burst.offload(0));
    let mut sent = 0;
    let mut emit = |piece: Gather<'_>, left: Offload| {
        sent += 1;
        assert!(left.gso.is_none());
        assert!(capabilities.checksum || !matches!(left.checksum, Checksum::Partial { .. }));
        assert!(piece.len() <= frame.len() + ipv6::FRAGMENT_HEADER_BYTES);
        if offload.gso.is_some_and(|gso| gso.kind != GsoKind::UdpFragment) && left.is_none() {
            assert!(is_summed(&piece.to_vec()[outer.len()..]), "a segment's checksum is wrong");
            assert!(outer.is_empty() || is_summed(&piece.to_vec()), "an outer checksum is wrong");
        }
        ControlFlow::Continue(())
    };
    let result = soften(&frame, offload, &capabilities, &mut Scratch::default(), &mut emit);
    assert_eq!(result.is_err(), sent == 0, "a refused frame sends nothing, any other something");
}

fn claims(choice: u8, input: &mut Input<'_>) -> Offload {
    let kinds = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpFragment, GsoKind::UdpSegment];
    let checksum = match choice & 0x0c {
        0 => Checksum::Complete,
        4 => Checksum::Valid,
        _ => Checksum::Partial { start: input.u16(), offset: input.u16() },
    };
    let size = input.u16();
    let gso = (choice & 0x10 != 0).then_some(Gso {
        kind: kinds[usize::from(choice & 3)],
        size,
        ecn: choice & 0x40 != 0,
        headers_bytes: size,
    });
    Offload { checksum, gso, ..Offload::NONE }
}

/// True if the transport checksum of a TCP or UDP packet is right, or UDP goes without one.
fn is_summed(packet: &[u8]) -> bool {
    let Ok((ether_type, at)) = vlan::skip_tags(packet) else { return false };
    let (pseudo, protocol, transport) = if ether_type == EtherType::IPV4 {
        let Ok(view) = ipv4::View::new(&packet[at..]) else { return false };
        let len = view.payload().len() as u16;
        (pseudo_v4(view.source(), view.destination(), view.protocol(), len), view.protocol(), view.payload())
    } else {
        let Ok(view) = ipv6::View::new(&packet[at..]) else { return false };
        let Ok(upper) = view.walk() else { return false };
        let transport = &view.payload()[upper.offset..];
        let len = transport.len() as u32;
        (pseudo_v6(view.source(), view.destination(), upper.protocol, len), upper.protocol, transport)
    };
    let unsummed = protocol == IpProtocol::UDP && transport.get(6..8) == Some(&[0, 0]);
    let sum: Sum = pseudo.add_bytes(transport);
    unsummed || sum.checksum() == 0
}
