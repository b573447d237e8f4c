//! How does an attachment come to be, stay, and go? Events to desired state to plan to act.
//!
//! ```text
//! CNI call -> Engine -> Desired (pure index) -> Store (durable) -> Kernel, Datapath, Delegate (the rim)
//! ```
//!
//! - [`kernel`], [`cards`], [`datapath`], [`delegate`]: the rim. What is done to the node's kernel, to its network cards, to its
//!   switch and by IPAM plugins, as traits.
//! - [`record`], [`desired`], [`ipam`]: what is to be, as plain data; `choice`: of which kind it is.
//! - [`store`]: what survives the agent. `underlay`: the other nodes, and the ways to them. `policies`,
//!   `services`: what objects mean for the switch.
//! - [`engine`]: ADD, DEL, GC; `parts`: what each kind of attachment has; `handover`: devices of cards; `representor`:
//!   their ports, where the card is a switch; `check`: CHECK;
//!   `repair`: what went away is made again.
//!
//! **Invariant:** the agent can be killed at any instant; the next one converges from what is stored and observed.
#![forbid(unsafe_code)]
pub mod cards;
mod check;
mod choice;
pub mod datapath;
pub mod delegate;
pub mod desired;
pub mod engine;
mod handover;
mod host;
pub mod ipam;
pub mod kernel;
mod locks;
mod parts;
mod policies;
mod program;
pub mod record;
mod repair;
mod representor;
mod services;
pub mod store;
mod underlay;
mod vhost;

pub use cards::Cards;
pub use choice::Chosen;
pub use datapath::Datapath;
pub use delegate::Delegate;
pub use desired::{AddRequest, Desired, ReserveError};
pub use engine::{AttachError, Engine, Layout, Rim};
pub use kernel::Kernel;
pub use program::ProgramError;
pub use record::Attachment;
pub use store::StoreError;
pub use underlay::NodeView;

#[cfg(test)]
mod tests;
