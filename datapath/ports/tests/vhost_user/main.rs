//! Does a vhost-user port keep its promises to any frontend: a proper one, a broken one, one that is killed?
#![allow(missing_docs, reason = "tests")]
mod hostile;
mod lifecycle;
mod qemu;
mod support;
mod testpmd;
