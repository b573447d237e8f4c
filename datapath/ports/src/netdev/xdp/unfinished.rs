//! Has somebody finished a frame's checksum? XDP does not tell.
//!
//! A kernel leaves the transport checksums of what it sends to the device, and a device that is no wire (a veth, a virtual
//! machine's card) leaves them as they are: with the pseudo header's sum in the field, and, other than to a packet socket,
//! without a word about it. But that sum gives them away. And a field that is right and holds that number by chance does no
//! harm: to finish it gives the same number again, because what the sum of the rest must then be is zero.

use frame::Checksum;
use wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use wire::{EtherType, IpProtocol, ipv4, ipv6, tcp, udp, vlan};

/// What is known of the transport checksum of a frame of `len` bytes that begins with `head`.
pub(in crate::netdev) fn checksum(head: &[u8], len: usize) -> Checksum {
    partial(head, len).unwrap_or(Checksum::Complete)
}

fn partial(head: &[u8], len: usize) -> Option<Checksum> {
    let (ether_type, ip) = vlan::skip_tags(head).ok()?;
    let (pseudo, protocol, start, end) = match ether_type {
        EtherType::IPV4 => v4(head, ip)?,
        EtherType::IPV6 => v6(head, ip)?,
        _ => return None,
    };
    let offset = match protocol {
        IpProtocol::TCP => tcp::field::CHECKSUM.start,
        IpProtocol::UDP => udp::field::CHECKSUM.start,
        _ => return None,
    };
    let field = u16::from_be_bytes(*head.get(start + offset..)?.first_chunk()?);
    (end <= len && field == pseudo.fold())
        .then_some(Checksum::Partial { start: start as u16, offset: offset as u16 })
}

/// The pseudo header's sum, the protocol, where the transport header begins, and where the packet ends.
type Found = (Sum, IpProtocol, usize, usize);

fn v4(head: &[u8], ip: usize) -> Option<Found> {
    let view = ipv4::View::new(head.get(ip..)?).ok().filter(|view| !view.is_fragment())?;
    let (protocol, header_len) = (view.protocol(), view.header_len());
    let pseudo = pseudo_v4(view.source(), view.destination(), protocol, view.total_len() - header_len as u16);
    Some((pseudo, protocol, ip + header_len, ip + usize::from(view.total_len())))
}

fn v6(head: &[u8], ip: usize) -> Option<Found> {
    let view = ipv6::View::new(head.get(ip..)?).ok()?;
    let upper = ipv6::walk(view.next_header(), &head[ip + ipv6::HEADER_BYTES..]).ok()?;
    let len =
        usize::from(view.payload_len()).checked_sub(upper.offset).filter(|_| upper.fragment.is_none())?;
    let pseudo = pseudo_v6(view.source(), view.destination(), upper.protocol, len as u32);
    let start = ip + ipv6::HEADER_BYTES + upper.offset;
    Some((pseudo, upper.protocol, start, start + len))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use wire::build::{self, Path};

    use super::*;

    fn path(v6: bool) -> Path {
        let (source, destination) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
        Path {
            source_mac: "02:00:00:00:00:01".parse().unwrap(),
            destination_mac: "02:00:00:00:00:02".parse().unwrap(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn with_pseudo(frame: &mut [u8], is_v6: bool) -> (u16, usize) {
        let found = if is_v6 { v6(frame, 14) } else { v4(frame, 14) }.unwrap();
        let at = found.2 + 6;
        frame[at..at + 2].copy_from_slice(&found.0.fold().to_be_bytes());
        (found.2 as u16, at)
    }

    proptest! {
        #[test]
        fn a_checksum_that_was_left_to_others_is_found(v6: bool, payload in vec(any::<u8>(), 0..200)) {
            let mut frame = build::udp(path(v6), (7, 9), &payload);
            prop_assert_eq!(checksum(&frame, frame.len()), Checksum::Complete);
            let (start, _) = with_pseudo(&mut frame, v6);
            prop_assert_eq!(checksum(&frame, frame.len()), Checksum::Partial { start, offset: 6 });
            prop_assert_eq!(checksum(&frame, frame.len() - 1), Checksum::Complete, "cut off");
        }

        #[test]
        fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..200), len in 0_usize..70_000) {
            if let Checksum::Partial { start, offset } = checksum(&bytes, len) {
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= bytes.len());
            }
        }
    }

    #[test]
    fn a_right_checksum_that_looks_left_to_others_stays_when_it_is_finished() {
        let mut frame = build::udp(path(false), (0, 0), &[0, 0]);
        let (start, at) = with_pseudo(&mut frame, false);
        // The rest is to sum to zero with the pseudo header's sum counted twice: once as itself, once as the field.
        let pseudo = Sum::ZERO.add_bytes(&frame[at..at + 2]);
        let twice = pseudo.add_bytes(&frame[at..at + 2]).add_bytes(&frame[start.into()..at]);
        let payload = twice.checksum().to_be_bytes();
        frame[at + 2..at + 4].copy_from_slice(&payload);
        let right = frame[at..at + 2].to_vec();
        assert_eq!(pseudo.add_bytes(&frame[start.into()..]).checksum(), 0, "the checksum is right");
        let finished = Sum::ZERO.add_bytes(&frame[start.into()..]).checksum_nonzero();
        assert_eq!(finished.to_be_bytes(), right[..]);
    }
}
