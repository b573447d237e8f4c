//! Does any sequence of bytes from outside make Millrace panic, hang, or break its own rules?
//!
//! A *target* is a plain function of bytes that panics when something is wrong. `cargo test` replays every file of
//! `testing/fuzz/corpus/TARGET` and some random bytes; `testing/fuzz/run TARGET SECONDS` searches for new ones with
//! libFuzzer and puts what it finds, made small, into the corpus: a crash thus becomes a test by being committed.
#![forbid(unsafe_code)]
mod headers;
mod input;
mod offload;
mod packet;
mod ring;

/// A function that reads bytes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is also its corpus's folder.
    pub name: &'static str,
    /// Reads the bytes; panics if they break something.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "cni", run: local_api::cni::fuzz },
    Target { name: "headers", run: headers::run },
    Target { name: "netdev", run: ports::netdev::fuzz::run },
    Target { name: "offload", run: offload::run },
    Target { name: "packet", run: packet::run },
    Target { name: "ring", run: ring::run },
    Target { name: "tunnel", run: ports::netdev::fuzz::tunnel },
    Target { name: "vhost_user", run: ports::vhost_user::fuzz::messages },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
