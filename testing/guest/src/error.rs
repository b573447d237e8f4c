//! What can go wrong between a guest and its switch?

use std::io;
use std::path::PathBuf;

/// Why the guest could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The guest's memory could not be made. Huge pages: none are free (see `/proc/sys/vm/nr_hugepages`).
    #[error("cannot make {bytes} bytes of guest memory (huge pages: {huge_pages})")]
    Memory {
        /// Size asked for.
        bytes: usize,
        /// Whether 2 MiB pages were asked for.
        huge_pages: bool,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The socket could not be created, connected to or accepted from.
    #[error("vhost-user socket {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Nobody connected, or answered, in time.
    #[error("no switch at vhost-user socket {path} in time")]
    Timeout {
        /// Where.
        path: PathBuf,
    },
    /// The switch refused a message or hung up. Connect again.
    #[error("vhost-user {request} failed")]
    Protocol {
        /// The request that failed.
        request: &'static str,
        /// Why.
        source: vhost::Error,
    },
    /// The guest is not connected. Connect again.
    #[error("the guest is not connected")]
    Disconnected,
    /// The switch that came back lacks features that the guest's rings are made for. Make a new guest.
    #[error("the switch no longer offers {missing:?}")]
    FeaturesGone {
        /// What it lacks.
        missing: crate::Features,
    },
    /// The switch offers fewer queue pairs than the guest insists on.
    #[error("the switch offers {offered} queue pairs, {wanted} are wanted")]
    QueuePairs {
        /// What the switch has.
        offered: u64,
        /// What was asked for.
        wanted: u16,
    },
    /// The transmit ring has no room; the switch takes nothing, or not fast enough. Try again later.
    #[error("the transmit ring of queue pair {queue} is full")]
    RingFull {
        /// Queue pair.
        queue: usize,
    },
    /// The frame does not fit into the whole ring.
    #[error("a frame of {bytes} bytes cannot be sent through this ring")]
    FrameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The switch wrote nonsense to a ring: a fault of the switch.
    #[error("the switch broke the {ring} ring of queue pair {queue}: {what}")]
    BrokenRing {
        /// `"receive"` or `"transmit"`.
        ring: &'static str,
        /// Queue pair.
        queue: usize,
        /// In words.
        what: String,
    },
    /// Waiting failed.
    #[error("cannot wait for the switch")]
    Wait(#[source] io::Error),
    /// The configuration is impossible.
    #[error("guest configuration: {0}")]
    Config(&'static str),
}
