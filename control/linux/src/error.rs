//! What can go wrong between us and the kernel, said so that a person can act on it?

use std::io;
use std::path::PathBuf;

/// Why the kernel did not do what was asked. Every message names the object and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// The path of a network namespace cannot be opened: the pod is gone, or the path is wrong.
    #[error("network namespace {path}: {source}: is the pod still running?", path = path.display())]
    NetnsMissing {
        /// The path asked for.
        path: PathBuf,
        /// What open said.
        source: io::Error,
    },
    /// The path exists, but no network namespace is mounted there.
    #[error("{path} is no network namespace: nothing of type nsfs is mounted there", path = path.display())]
    NotANetns {
        /// The path asked for.
        path: PathBuf,
    },
    /// The namespace exists but cannot be entered, nearly always for want of a capability.
    #[error("cannot enter network namespace {path}: {source}: CAP_SYS_ADMIN is needed", path = path.display())]
    Enter {
        /// The namespace.
        path: PathBuf,
        /// What setns, or the start of the thread that calls it, said.
        source: io::Error,
    },
    /// The namespace holds no device of the name.
    #[error("network namespace {netns} has no device {device:?}", netns = netns.display())]
    NoDevice {
        /// The namespace.
        netns: PathBuf,
        /// The name asked for.
        device: String,
    },
    /// The kernel refused one change.
    #[error("network namespace {netns}, device {device:?}: cannot {action}: {reason}", netns = netns.display())]
    Refused {
        /// The namespace.
        netns: PathBuf,
        /// The device.
        device: String,
        /// What was asked for, in words.
        action: String,
        /// What the kernel said.
        reason: String,
    },
    /// A file, directory or mount could not be changed.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// What was asked for, in words.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
