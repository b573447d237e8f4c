//! How does an attachment come to be, stay, and go? Events to desired state to plan to act.
//!
//! - [`kernel`] and [`datapath`]: the rim. What is done to the node's kernel and to the switch, as traits.
#![forbid(unsafe_code)]
pub mod datapath;
pub mod kernel;

pub use datapath::Datapath;
pub use kernel::Kernel;
