//! The one program of Millrace: what does a person, or the container runtime, ask of it?
//!
//! Two subcommands are processes: `switch`, the datapath, and `agent`, the control. The others speak to those two over
//! their sockets. Called as `millrace-cni` it is the CNI plugin.
#![forbid(unsafe_code)]
mod agent;
mod cli;
mod client;
mod demo;
mod doctor;
mod get;
mod logging;
mod output;
mod run_dir;
mod said;
mod switch;
mod top;
mod trace;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    if name.as_deref().map(Path::new).and_then(Path::file_name) == Some(OsStr::new("millrace-cni")) {
        return millrace_cni::run(std::env::vars_os(), std::io::stdin().lock());
    }
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
