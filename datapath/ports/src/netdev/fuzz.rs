//! Do bytes of frames, and of what the kernel says beside them, ever lead outside of themselves?

use frame::{Burst, Checksum, Gso, GsoKind, HEAD_BYTES, Offload};

use super::Take;
use super::intake::{Intake, room};
use super::packet::{CONTROL_BYTES, Control, tag};
use super::xdp::unfinished_checksum;
use crate::offload::{Capabilities, Scratch, soften};

/// A length of ancillary data, then a frame whose first bytes are that data as well.
pub fn run(bytes: &[u8]) {
    let Some((len, frame)) = bytes.split_first() else { return };
    let mut control = Control([0; CONTROL_BYTES]);
    let known = frame.len().min(CONTROL_BYTES);
    control.0[..known].copy_from_slice(&frame[..known]);
    assert!(tag(&control, (*len).into()).is_none() || usize::from(*len) <= CONTROL_BYTES);
    let head = &frame[..frame.len().min(HEAD_BYTES)];
    if let Checksum::Partial { start, offset } = unfinished_checksum(head, frame.len()) {
        assert!(usize::from(start) + usize::from(offset) + 2 <= head.len());
    }
}

/// Two bytes of a length: 0 for a train whose datagrams' length the next two bytes are, else that of the first of two frames.
/// They are put together if they can be, and come out of their tunnel and are cut as any large frame is.
pub fn tunnel(bytes: &[u8]) {
    let Some(([a, b, c, d], bytes)) = bytes.split_first_chunk() else { return };
    let (first, size) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
    let gso = Gso { kind: GsoKind::UdpSegment, size, ecn: false, headers_bytes: 0 };
    let train = Offload { checksum: Checksum::Valid, gso: Some(gso), outer_bytes: 0 };
    let (first, second) = bytes.split_at(bytes.len().min(first.into()));
    let offload = if first.is_empty() { train } else { Offload::NONE };
    let take = Take::Only { udp_ports: vec![wire::geneve::PORT], vlans: Vec::new() };
    let (mut room, mut burst) = (room(&take), Burst::new());
    let mut turn = |burst: &mut Burst| (0..burst.len()).for_each(|index| assert_sound(burst, index));
    let mut intake = Intake::new(room.as_mut(), &mut burst, &mut turn);
    for frame in [first, second] {
        intake.take(frame, offload);
    }
    let report = intake.end();
    assert!(report.frames + report.drops.total() > 0);
}

/// What was put together here has true headers, so that it can be cut again.
fn assert_sound(burst: &mut Burst, index: usize) {
    let outer = burst.offload(index).outer_bytes;
    if outer == 0 {
        return;
    }
    burst.shrink_front(index, outer.into()).expect("a frame is inside");
    burst.refill(index);
    let (frame, offload) = (burst.gather(index), burst.offload(index));
    let mut pieces = 0;
    let mut emit = |_: frame::Gather<'_>, _| {
        pieces += 1;
        std::ops::ControlFlow::Continue(())
    };
    let cut = soften(&frame, offload, &Capabilities::NONE, &mut Scratch::default(), &mut emit);
    assert!(cut.is_ok() && pieces > 1, "{pieces} of what was more than one: {cut:?}");
}
