//! How is a checksum summed over payload that is only borrowed? In blocks, each read once, straight
//! from the source.

use frame::{Gather, Segment};
use wire::checksum::{BLOCK_BYTES, Sum};

use super::Scratch;

/// Finishes the checksum whose field lies at `start + offset` and that covers everything from `start` on (virtio 1.2
/// §5.1.6.2). Returns a head, in `scratch`, with the field filled in; `None` if the field is not inside the frame's head.
pub(super) fn finish<'s>(
    frame: &Gather<'_>,
    start: u16,
    offset: u16,
    scratch: &'s mut Scratch,
) -> Option<&'s [u8]> {
    let head = scratch.head.get_mut(..frame.head().len())?;
    head.copy_from_slice(frame.head());
    let field = usize::from(start) + usize::from(offset);
    let sum = add_body(Sum::ZERO.add_bytes(head.get(usize::from(start)..)?), frame);
    // The field is part of the sum: it holds the pseudo header's. A result of 0 is sent as 0xffff, which is the same
    // number, because 0 means "none" to UDP.
    head.get_mut(field..field + 2)?.copy_from_slice(&sum.checksum_nonzero().to_be_bytes());
    Some(head)
}

/// Adds the body of `frame` to `sum`.
pub(super) fn add_body(sum: Sum, frame: &Gather<'_>) -> Sum {
    frame.body().fold(sum, add_run)
}

fn add_run(sum: Sum, run: Segment) -> Sum {
    let (blocks, rest) = (run.len() / BLOCK_BYTES, run.len() % BLOCK_BYTES);
    // SAFETY: a run of a gather is readable for its length as long as the gather lives (`Segment::new`), and
    // `(block + 1) * BLOCK_BYTES <= run.len()`. An array of bytes has no alignment. The source may write meanwhile: what
    // is read is then some mix of old and new bytes, each of which is a valid u8.
    let read =
        |block| unsafe { run.base().add(block * BLOCK_BYTES).cast::<[u8; BLOCK_BYTES]>().read_unaligned() };
    let mut last = [0; BLOCK_BYTES];
    // SAFETY: the last `rest` bytes of the run, as readable as the others; `rest < BLOCK_BYTES`; the array is private.
    unsafe { std::ptr::copy_nonoverlapping(run.base().add(blocks * BLOCK_BYTES), last.as_mut_ptr(), rest) };
    sum.add_blocks((0..blocks).map(read), &last[..rest])
}
