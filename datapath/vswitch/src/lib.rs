//! How does a frame get from its port to the next? Pure: parse, cache, pipeline, actions.
//!
//! [`Switch::process`] takes the burst of one port and fills [`Outputs`] with who is to send which frame; the worker sends.
//!
//! **Invariant:** no I/O, no clock ([`Now`] is an argument), no log, no allocation per packet after warm-up.
//! **Invariant:** control reaches the datapath only through a versioned [`Program`].
#![forbid(unsafe_code)]
mod explain;
mod outputs;
pub mod program;
mod stations;
mod switch;
mod time;

pub use explain::{Explanation, Step};
pub use outputs::{Egress, Group, Outputs};
pub use program::Program;
pub use stations::{Shared, StationView};
pub use switch::{FlowView, ProcessReport, Switch};
pub use time::Now;
