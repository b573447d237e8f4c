//! Network namespaces, processes, virtual machines and peers for tests and measurements: how is a real part started, and
//! made to leave nothing behind?
#![forbid(unsafe_code)]
mod netns;
mod ping;
mod stream;

pub use netns::Netns;
pub use ping::{PingReport, ping};
pub use stream::{StreamReport, stream};
