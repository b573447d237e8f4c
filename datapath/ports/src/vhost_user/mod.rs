//! How does a program or a VM attach its virtio queues to the switch by a socket?
//!
//! The backend side of the vhost-user protocol (QEMU `docs/interop/vhost-user`). A *frontend* (QEMU, a DPDK program)
//! sends its memory as file descriptors, then the addresses and eventfds of its rings; the rings themselves are
//! [`crate::virtio`]'s, and no packet ever crosses the socket.
//!
//! | what happens | where |
//! |---|---|
//! | a socket is made, looked for, removed | `endpoint` |
//! | one thread waits for all sockets and timers of all ports | `control`, [`crate::reactor`] |
//! | a connection comes and goes | `port` |
//! | bytes and descriptors become whole messages, and these become types | `channel`, `message` |
//! | a message changes the session: features, memory, log | `session` |
//! | a ring starts, moves and stops | `vring` |
//! | workers receive and send | `queues` |
//!
//! **States.** A port waits for a frontend or has one. In [`Role::Create`] it listens, and closes whoever comes while it
//! has one. In [`Role::Connect`] it tries to connect after 50 ms, then after pauses that double up to a second. It does
//! either for ever, whatever ended the last connection.
//!
//! **Restarts.** Nothing is remembered from one connection to the next. A ring goes on at its used index, whatever base
//! the frontend gives, because chains are used in order and within the call that took them. A frontend that comes back
//! loses or repeats no chain by that. A switch that was killed inside a burst had not yet shown its chains as used and
//! takes them again: frames of that one burst may arrive twice, none that the guest sent is passed over. There is no
//! need for the protocol's table of chains in flight (INFLIGHT_SHMFD).
//!
//! **Errors.** A frontend that breaks the protocol is cut off; all that it gave is released at once, and
//! [`crate::Link::detail`] says why. A request that is proper but impossible (memory that cannot be mapped, an MTU that
//! is too large) is answered by a failed acknowledgement where the frontend asked for one, and changes nothing then; it
//! cuts the others off. A ring that lies in no memory, or whose indices lie, stops alone.
//!
//! **Invariant:** sockets never block. A peer that sends half a message, or reads no reply, stops nobody else, and holds
//! no more than one message and one reply of the switch's memory.
//! **Invariant:** nothing of a frontend outlives its connection.
//! **Limit:** no IOMMU, no packed rings, no postcopy migration. The vhost crate (0.18) is not used: its handler waits for
//! the rest of a header, and takes a payload that comes in two pieces for an error.
mod channel;
mod control;
mod endpoint;
mod error;
mod features;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod message;
mod port;
mod queues;
mod session;
mod spec;
mod vring;

pub use control::VhostUserControl;
pub use error::VhostUserError;
pub use spec::{MAX_QUEUE_PAIRS, Role, VhostUserSpec};
