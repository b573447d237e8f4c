//! How does Millrace compare with its peers, on this machine, in this run?
//!
//! Absolute figures drift from machine to machine and from minute to minute, so a measurement here is a *ratio* between
//! two *subjects* that one *load* drives in turns. Samples take about a second each and are interleaved; each has a
//! *label*, which says how far apart the worker's core and the load's core were just then ([`probe`]), and only samples
//! of one label are compared.
//!
//! - [`vhost`]: two vhost-user ports, against OVS-DPDK (`millrace bench vhost`).
//! - [`chart`]: pictures of the figures, as SVG and PNG.
//!
//! Words: *row*, one line of the table of comparisons; *subject*, what is measured; *sample*, one subject for one second.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

pub mod chart;
mod hugepages;
mod interrupt;
mod machine;
mod millrace;
mod ovs;
pub mod probe;
mod process;
mod report;
mod stats;
mod subject;
mod traffic;
pub mod vhost;
