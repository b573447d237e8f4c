//! The virtio-net header: what is accepted is true, and what is true survives the way out and in.

use frame::{Checksum, DropReason, Gso, GsoKind, Offload};
use proptest::prelude::*;

use crate::virtio::header::{HEADER_BYTES, Source, decode, encode};

fn offloads() -> impl Strategy<Value = Offload> {
    let partial = (14u16..100, 0u16..40).prop_map(|(start, offset)| Checksum::Partial { start, offset });
    let kind = prop_oneof![
        Just(GsoKind::TcpV4),
        Just(GsoKind::TcpV6),
        Just(GsoKind::UdpFragment),
        Just(GsoKind::UdpSegment)
    ];
    let gso = (kind, 1u16.., any::<bool>(), 0u16..200).prop_map(|(kind, size, ecn, headers_bytes)| {
        let tcp = matches!(kind, GsoKind::TcpV4 | GsoKind::TcpV6);
        Gso { kind, size, ecn: ecn && tcp, headers_bytes }
    });
    prop_oneof![
        Just(Offload::NONE),
        Just(Offload { checksum: Checksum::Valid, ..Offload::NONE }),
        (partial, proptest::option::of(gso)).prop_map(|(checksum, gso)| Offload {
            checksum,
            gso,
            ..Offload::NONE
        }),
    ]
}

proptest! {
    #[test]
    fn a_header_that_was_encoded_decodes_to_the_same_offload(offload in offloads()) {
        prop_assert_eq!(decode(&encode(&offload), 1000, Source::Kernel), Ok(offload));
    }

    #[test]
    fn what_any_header_claims_lies_inside_the_frame(header in any::<[u8; HEADER_BYTES]>(), len in 1usize..70_000) {
        if let Ok(offload) = decode(&header, len, Source::Guest) {
            if let Checksum::Partial { start, offset } = offload.checksum {
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= len);
            }
            if let Some(gso) = offload.gso {
                prop_assert!(gso.size > 0 && usize::from(gso.headers_bytes) <= len);
            }
            prop_assert_ne!(offload.checksum, Checksum::Valid);
        }
    }
}

/// flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
fn header(flags: u8, gso_type: u8, halves: [u16; 4]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = flags;
    header[1] = gso_type;
    for (at, half) in halves.into_iter().enumerate() {
        header[2 + 2 * at..4 + 2 * at].copy_from_slice(&half.to_le_bytes());
    }
    header
}

#[test]
fn checksum_offsets_that_lie_are_bad_offloads() {
    for (start, offset) in [(60, 40), (0xffff, 0xffff), (98, 1), (0, 16), (13, 4)] {
        let lie = header(1, 0, [0, 0, start, offset]);
        assert_eq!(decode(&lie, 100, Source::Guest), Err(DropReason::BadOffload), "{start}+{offset}");
    }
    assert!(decode(&header(1, 0, [0, 0, 34, 16]), 100, Source::Guest).is_ok());
    assert!(decode(&header(1, 0, [0, 0, 82, 16]), 100, Source::Guest).is_ok(), "the very last bytes");
}

#[test]
fn segmentation_that_contradicts_itself_is_a_bad_offload() {
    let lies = [
        ("no size", header(1, 1, [54, 0, 34, 16])),
        ("no partial checksum", header(0, 1, [54, 1448, 34, 16])),
        ("DATA_VALID from a guest is none", header(2, 1, [54, 1448, 34, 16])),
        ("unknown kind", header(1, 2, [54, 1448, 34, 16])),
        ("unknown kind with ECN", header(1, 0x80 | 7, [54, 1448, 34, 16])),
        ("ECN of UDP", header(1, 0x80 | 3, [54, 1448, 34, 16])),
        ("headers longer than the frame", header(1, 1, [2001, 1448, 34, 16])),
    ];
    for (what, lie) in lies {
        assert_eq!(decode(&lie, 2000, Source::Guest), Err(DropReason::BadOffload), "{what}");
    }
}

#[test]
fn a_guest_that_claims_verification_is_not_believed() {
    let claim = header(2, 0, [0; 4]);
    assert_eq!(decode(&claim, 100, Source::Guest), Ok(Offload::NONE));
    assert_eq!(
        decode(&claim, 100, Source::Kernel),
        Ok(Offload { checksum: Checksum::Valid, ..Offload::NONE })
    );
}
