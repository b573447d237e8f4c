//! What are the nouns of the intent, and what makes each of them legal? No I/O, no Kubernetes.
#![forbid(unsafe_code)]

pub use wire::MacAddr;
