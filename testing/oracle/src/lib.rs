//! Does the switch do what policies, and services, mean?
//!
//! A [`World`] is what people wrote. [`naive`] answers whether a connection may be, and who says so, from the text alone:
//! a scan for everything, sharing nothing with the compiler but the specs. [`Told`] is what a switch was told of it, and
//! answers from that rule by rule. A [`Bed`] is a real switch with a port for each pod: somebody sends, and the packet
//! arrives or does not, and so does the answer.
//!
//! [`Trial`] takes one world through steps and holds the three against each other after each, for all pairs of pods; a
//! mismatch shows the world, the connection and all answers. `cases` reads those of Kubernetes' own suite, and of tiers;
//! [`enumerate`] makes cases of all shapes of rules; [`random`] makes worlds and steps.
//!
//! [`service`] asks the same of services: where a connection may go, and where it goes.
//!
//! Limits: what a pod sends to itself is nobody's to judge (kubernetes#95879), and is not asked.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "for tests: what does not hold panics")]
mod bed;
mod cases;
pub mod enumerate;
pub mod naive;
pub mod random;
pub mod service;
mod told;
mod trial;
mod world;

pub use bed::Bed;
pub use cases::{Case, cases, tier_cases};
pub use told::Told;
pub use trial::Trial;
pub use world::{Answer, Question, Step, World, standard};
