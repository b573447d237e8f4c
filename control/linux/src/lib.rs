//! How does the intent reach the Linux kernel? Network namespaces, netdevs, addresses, routes, bind mounts and files.
//!
//! [`Linux`] implements the `Kernel` trait of `reconcile`. It keeps no state: every call observes first, every change is
//! idempotent, every error names the namespace or path, the device, and what to do about it.
//!
//! **Invariant:** no thread but a short-lived one of its own ever enters a pod's namespace.
#![forbid(unsafe_code)]
mod device;
mod error;
mod netns;

pub use error::LinuxError;
