//! How does a frame get from its port to the next? Pure: parse, cache, pipeline, actions.
//!
//! [`Switch::process`] takes the burst of one port and fills [`Outputs`] with who is to send which frame; the worker sends.
//!
//! **Invariant:** no I/O, no clock ([`Now`] is an argument), no log, no allocation per packet after warm-up.
//! **Invariant:** control reaches the datapath only through a versioned [`Program`].
#![forbid(unsafe_code)]
mod actions;
mod cache;
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "nobody lists connections yet, and nobody asks for counts")
)]
mod conntrack;
mod dhcp;
mod explain;
mod flows;
mod gateway;
mod key;
mod outputs;
mod parse;
mod pipeline;
mod policy;
pub mod program;
mod service;
mod stations;
mod switch;
#[cfg(test)]
mod tests;
mod time;
mod tunnel;

pub use cache::CacheSizes;
pub use explain::{Departure, Entrance, Explanation, Step};
pub use flows::FlowView;
pub use outputs::{Egress, Group, Outputs, Undo};
pub use program::Program;
pub use stations::{MAX_STATIONS, Shared, StationView};
pub use switch::{ProcessReport, Switch};
pub use time::Now;
