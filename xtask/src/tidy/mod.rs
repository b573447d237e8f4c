//! Which written rules hold? Each rule returns what breaks it; all are reported, then the task fails.
mod directions;
mod files;
mod pages;

use anyhow::{Result, bail};

/// Checks every rule.
pub(crate) fn tidy() -> Result<()> {
    let mut broken = directions::broken()?;
    broken.extend(files::broken()?);
    broken.extend(pages::broken()?);
    if broken.is_empty() {
        eprintln!("tidy: every rule holds");
        return Ok(());
    }
    for line in &broken {
        eprintln!("tidy: {line}");
    }
    bail!("{} tidy rule(s) broken", broken.len());
}
