//! Is the tree fit to commit? Format, lints, tidy rules, unit tests: under five minutes.

use anyhow::Result;

use crate::run::{cargo, run};
use crate::{suite, tidy};

/// Formats are checked, not applied: `cargo fmt` applies them.
pub(crate) fn check() -> Result<()> {
    lint()?;
    suite::run_tests("unit tests", &["--lib", "--bins"], &[])?.verdict()
}

/// The part of [`check`] that runs no test.
pub(crate) fn lint() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    tidy::tidy()?;
    run(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}
