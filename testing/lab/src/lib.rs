//! Network namespaces, processes, virtual machines and peers for tests and measurements: how is a real part started, and
//! made to leave nothing behind?
#![forbid(unsafe_code)]
mod iperf;
mod netns;
mod ping;
mod process;
mod require;
mod stream;
mod vm;

pub use iperf::iperf3;
pub use netns::Netns;
pub use ping::{PingReport, ping};
pub use process::Process;
pub use require::{REQUIRE_ALL, program, require, root};
pub use stream::{StreamReport, stream};
pub use vm::{Card, CardRole, Vm, VmSpec, vm_ready};
