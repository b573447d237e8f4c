//! How does a task start a program?

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The checkout's root folder.
pub(crate) fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map(PathBuf::from).unwrap_or(xtask)
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this task, with `args`.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Says what runs, runs it, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
    eprintln!("+ {line}");
    let status = command.status().with_context(|| format!("{line}: it could not be started"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// What a program says on its standard output.
pub(crate) fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!("{program}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} says what is no text"))
}
