//! Do bytes of frames, and of what the kernel says beside them, ever lead outside of themselves?

use frame::{Checksum, HEAD_BYTES};

use super::packet::{CONTROL_BYTES, Control, tag};
use super::xdp::unfinished_checksum;

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
