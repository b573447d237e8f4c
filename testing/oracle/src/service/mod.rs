//! Where may a connection to a service go, and does the switch take it there?
//!
//! [`naive`] answers from the services as they are written: a scan for everything. A [`Trial`] takes services through
//! [`Step`]s, on several clusters of switches at once, in which the same pods are on other nodes; after each, the first and
//! the later packets of connections arrive where they may, everywhere at the same endpoint, and their answers come back
//! from whom the client asked.
//!
//! Limits: what becomes of a connection whose service's address is nobody's any more is not asked.

mod cluster;
pub mod naive;
mod packet;
mod random;
mod trial;

use std::collections::BTreeMap;

use vswitch::program::{ServiceNo, ServiceSpec};

pub use cluster::Pod;
pub use random::{Step, endpoints, frontends, step};
pub use trial::Trial;

/// All services, by number.
pub type Services = BTreeMap<ServiceNo, ServiceSpec>;
