//! Are there huge pages? As many as a benchmark needs, and afterwards as many as before.

use std::fs;

use anyhow::{Context, ensure};

const TOTAL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// Holds the kernel's pool of 2 MiB pages at the size it needs; restores it when dropped.
#[derive(Debug)]
pub(crate) struct HugePages {
    before: Option<u64>,
}

impl HugePages {
    /// Makes `wanted` pages free.
    pub(crate) fn reserve(wanted: u64) -> anyhow::Result<Self> {
        let (total, free) = (read(TOTAL)?, read(FREE)?);
        if free >= wanted {
            return Ok(Self { before: None });
        }
        let guard = Self { before: Some(total) };
        fs::write(TOTAL, (total + wanted - free).to_string())
            .context("cannot reserve huge pages: run as root")?;
        let free = read(FREE)?;
        ensure!(
            free >= wanted,
            "the kernel found memory for {free} of {wanted} huge pages (2 MiB): free some memory"
        );
        Ok(guard)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Nothing is left to do if the kernel refuses to take pages back.
            let _refused = fs::write(TOTAL, before.to_string());
        }
    }
}

fn read(path: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("no huge pages here: {path}"))?;
    text.trim().parse().with_context(|| format!("{path} holds no number"))
}
