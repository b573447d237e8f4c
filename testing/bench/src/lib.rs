//! How does Millrace compare with its peers, on this machine, in this run?
//!
//! Absolute figures drift from machine to machine and from minute to minute, so a measurement here is a *ratio* between
//! two *subjects* that one *load* drives in turns. Samples take about a second each and are interleaved; each has a
//! *label*, which says how far apart the worker's core and the load's core were just then ([`probe`]), and only samples
//! of one label are compared.
//!
//! - [`vhost`]: two vhost-user ports, against OVS-DPDK (`millrace bench vhost`).
//! - [`sweep`], [`attack`], [`limit`]: the same with many flows, with a hostile neighbour, without a switch.
//! - [`connections`]: new connections to a service, behind a policy.
//! - [`scale`]: the same, and changes, with many services, policies and identities.
//! - [`pods`], [`latency`]: TCP and small packets between kernel pods; round trips, wake-ups and idleness.
//! - [`chart`]: pictures of the figures, as SVG and PNG.
//!
//! Words: *row*, one line of the table of comparisons; *subject*, what is measured; *sample*, one subject for one second.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

pub mod all;
pub mod attack;
mod bare;
mod case;
pub mod chart;
pub mod connections;
mod copy;
mod cpu;
mod figures;
mod hugepages;
mod interrupt;
mod lab;
pub mod latency;
pub mod limit;
mod machine;
mod millrace;
mod millrace_switch;
mod netns;
pub mod options;
mod ovs;
mod ovs_daemon;
mod page;
pub mod pods;
pub mod probe;
mod process;
mod publish;
pub mod regress;
mod report;
mod rows;
pub mod scale;
mod services;
mod stats;
mod subject;
pub mod sweep;
mod traffic;
pub mod vhost;
