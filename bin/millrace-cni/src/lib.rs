//! The CNI executable: stdin to the agent's socket to stdout. No state, no async runtime.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Serves one call of the container runtime: environment and stdin in, stdout and exit code out.
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
