//! How is the project checked, tested and measured? One command for each question; `cargo xtask help` lists them.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks on its standard streams"
)]
mod check;
mod prepare;
mod run;
mod suite;
mod tidy;
mod vm;

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Millrace's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, clippy, tidy rules and unit tests: what to run before every commit.
    Check,
    /// The written rules that no lint knows: dependency directions, file sizes, docs, unsafe islands.
    Tidy,
    /// Everything: prepares the machine, then check, then every test with real parts. The one test command.
    Test,
    /// The tests that need kernel modules or devices of a virtual machine (VDUSE, vDPA, SR-IOV, switchdev).
    Vm {
        /// One machine alone
        #[arg(long)]
        shape: Option<vm::Shape>,
        /// A shell in the guest instead
        #[arg(long, conflicts_with = "filter")]
        shell: bool,
        /// The product's programs as they were built before; the tests are built in any case
        #[arg(long)]
        no_build: bool,
        /// A part of the tests' names; what these say is passed on
        filter: Option<String>,
    },
    /// Installs what the tests need (Debian packages by name, huge pages); `test` does it by itself.
    Prepare,
    /// Looks for inputs that a parser cannot bear (libFuzzer); a crash becomes a file of the corpus.
    Fuzz {
        /// cni, headers, offload, packet, ring or vhost_user
        target: String,
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Measures: everything after it goes to `millrace bench`. Alone with `--quick`: fails if Millrace became slower.
    Bench {
        /// Arguments of `millrace bench`, or `--quick`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match task(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task(task: Task) -> Result<()> {
    std::env::set_current_dir(run::root())?;
    match task {
        Task::Check => check::check(),
        Task::Tidy => tidy::tidy(),
        Task::Test => suite::test(),
        Task::Vm { shape, shell: true, .. } => vm::shell(shape.unwrap_or(vm::Shape::Plain)),
        Task::Vm { shape, no_build, filter, .. } => {
            if !no_build {
                suite::build_product()?;
            }
            vm::vm(shape, filter.as_deref())
        }
        Task::Prepare => prepare::prepare(),
        Task::Fuzz { target, seconds } => {
            run::run(Command::new("testing/fuzz/run").arg(target).arg(seconds.to_string()))
        }
        Task::Bench { args } => bench(&args),
    }
}

fn bench(args: &[String]) -> Result<()> {
    let mut command = run::cargo(&["run", "--release", "--quiet", "--package", "millrace", "--", "bench"]);
    // Ratios to the peer, as they were when somebody stored them.
    let regress = ["regress", "--stored", "testing/bench/ratios.json"].map(String::from);
    run::run(command.args(if args == ["--quick"] { &regress } else { args }))
}
