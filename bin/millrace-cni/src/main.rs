//! The CNI executable: what the container runtime runs for each attachment.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    millrace_cni::run(std::env::vars_os(), std::io::stdin().lock())
}
