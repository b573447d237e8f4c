//! Packet memory and its ownership: what is a frame while the switch holds it?
//!
//! A frame is a *head*, a private copy of its first bytes with headroom for tags and encapsulation, and a *body*,
//! segments of memory borrowed from the port it came from. Only the head is classified and edited, so a guest that
//! changes its memory after the check changes nothing that was checked. A body is valid for one [`Burst`] and never
//! outlives it: the receiving port fills the burst, lends it to the switch, and takes its memory back.
//!
//! Words: *burst*, the frames of one receive; *segment*, one contiguous run of body bytes; *gather*, the bytes of one
//! frame in the order in which they are sent.
//!
//! **Invariant:** a frame has one owner and leaves by transmit or by a [`DropReason`].
//! **Invariant:** this crate reads no clock, does no I/O and knows no protocol.
mod burst;
mod drop;
mod gather;
mod offload;

pub use burst::{
    BURST_FRAMES, Burst, HEAD_BYTES, HEADROOM_BYTES, MAX_FRAME_BYTES, MAX_REPLACED_BYTES, MAX_SEGMENTS,
    PEEK_BYTES, PushError,
};
pub use drop::{DropCounts, DropReason};
pub use gather::{BodyRuns, Gather, Segment};
pub use offload::{Checksum, Gso, GsoKind, Offload};
