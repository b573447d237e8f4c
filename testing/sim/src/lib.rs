//! Does the switch do what a switch does, whatever happens to it, in any order?
//!
//! A [`World`] has real switches (as many as a datapath has workers, over one table of stations), ports that are plain
//! queues, and a clock that only [`Step`]s move. A [`Reference`] is the same learning switch written as naively as
//! possible: no caches, no generations, no derived tables, a scan over a list for everything. A scenario is a list of
//! steps; after each, both must have sent the same bytes by the same ports, dropped the same frames for the same reasons
//! and know the same stations, and the ledger must be balanced.
//!
//! [`Nodes`] are two such worlds, joined by their uplinks, against two references that a wire for each network joins.
//!
//! Limits: frames come whole and go whole (segmentation is the ports' matter), and workers take turns.
#![forbid(unsafe_code)]
mod message;
mod nodes;
mod reference;
mod step;
mod world;

pub use message::{Claim, Message, Tag};
pub use nodes::Nodes;
pub use reference::Reference;
pub use step::{Step, scenario};
pub use world::{Outcome, World};
