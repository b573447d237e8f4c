//! Who moves the packets? Threads that poll ports, run the switch and flush what it decides: the only users of the
//! datapath's clock.
//!
//! A *worker* is a thread pinned to one CPU. A *turn* is one pass over its receive queues: take a burst, run the switch,
//! send each group of frames, give the burst back. A worker that found nothing for a while *backs off*, and then *sleeps*:
//! it arms its queues and waits in the kernel until one of them has frames, so that an idle node uses no CPU.
//!
//! Which worker polls which receive queue is the *placement*; it follows the load ([`placement`]).
//!
//! Control speaks to the workers through [`Datapath`]: it leaves *commands*, which a worker obeys between two turns. No
//! lock and no allocation is on the path of a packet.
//!
//! **Invariant:** once [`Datapath::remove_port`] has returned, no worker touches the port's device again.
//! **Invariant:** a receive queue that is moved from worker to worker loses no frame, and its flows keep their order.
//! **Invariant:** once nothing moves, rx + copies == tx + drops over all ports that ever were ([`Counters::is_balanced`]).
#![forbid(unsafe_code)]
mod clock;
mod counters;
mod datapath;
mod entry;
mod forward;
mod idle;
mod mailbox;
pub mod placement;
mod start;
mod turn;

pub use counters::{Activity, Counters, Ledger, Mode, WorkerView};
pub use datapath::{AddPortError, Datapath, FlowDump, MAX_FLOWS, MoveError, PortView, QueueView, Removal};
pub use entry::QueueId;
pub use start::{Config, StartError, allowed_cpus};
