//! The CNI executable.

fn main() -> std::process::ExitCode {
    millrace_cni::main()
}
