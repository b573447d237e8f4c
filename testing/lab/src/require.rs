//! Can this test run here? If not, it says so by name, and a run that must be complete fails.

use std::path::{Path, PathBuf};

/// Set to 1 where every test must run: a test that cannot is a failure there.
pub const REQUIRE_ALL: &str = "MILLRACE_REQUIRE_ALL";

/// True if `test` may go on. Otherwise prints `SKIPPED test: why`, which the task runner counts.
///
/// # Panics
/// If the test cannot run and [`REQUIRE_ALL`] is set.
#[must_use]
#[allow(clippy::print_stdout, reason = "the task runner reads it there")]
pub fn require(test: &str, part: Result<(), String>) -> bool {
    let Err(why) = part else { return true };
    assert!(std::env::var(REQUIRE_ALL).as_deref() != Ok("1"), "{test} cannot run here: {why}");
    println!("SKIPPED {test}: {why}");
    false
}

/// The part "this program is installed".
///
/// # Errors
/// It is not; the text names the Debian package's command to look for.
pub fn program(name: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(name).exists());
    if found {
        Ok(())
    } else {
        Err(format!("the program {name} is not installed (cargo xtask prepare installs it)"))
    }
}

/// The part "this process is root".
///
/// # Errors
/// It is not.
pub fn root() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("it needs root".into()) }
}

/// The checkout's root folder.
pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
