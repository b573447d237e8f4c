//! How does an attachment come to be, stay, and go? Events to desired state to plan to act.
//!
//! ```text
//! CNI call -> Engine -> Desired (pure index) -> Store (durable) -> Kernel, Datapath, Delegate (the rim)
//! ```
//!
//! - [`kernel`], [`datapath`], [`delegate`]: the rim. What is done to the node's kernel, to its switch and by IPAM plugins,
//!   as traits.
//! - [`record`], [`desired`], [`ipam`]: what is to be, as plain data.
//! - [`store`]: what survives the agent.
//! - [`engine`]: ADD, DEL, GC, and what repairs; `check`: CHECK.
//!
//! **Invariant:** the agent can be killed at any instant; the next one converges from what is stored and observed.
#![forbid(unsafe_code)]
mod check;
pub mod datapath;
pub mod delegate;
pub mod desired;
pub mod engine;
pub mod ipam;
pub mod kernel;
mod locks;
mod program;
pub mod record;
pub mod store;
mod vhost;

pub use datapath::Datapath;
pub use delegate::Delegate;
pub use desired::{AddRequest, Desired, ReserveError};
pub use engine::{AttachError, Engine, Layout, Rim};
pub use kernel::Kernel;
pub use program::ProgramError;
pub use record::Attachment;
pub use store::StoreError;

#[cfg(test)]
mod tests;
