//! The CNI executable.

fn main() -> std::process::ExitCode {
    millrace_cni::run(std::env::vars_os(), std::io::stdin().lock())
}
