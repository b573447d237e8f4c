//! What does Millrace cost beside its peers, in every respect that is measured? `millrace bench all` runs the rows one after
//! the other, each as a program of its own, and writes their page with their pictures.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;

use crate::figures::say;
use crate::interrupt::Interrupt;
use crate::page::{self, Section};

const EXAMPLES: &str = "\
Examples:
  millrace bench all                    every row, under half an hour; writes docs/benchmarks.md and its pictures
  millrace bench all --quick --out /tmp/benchmarks

It needs root, two CPUs that are quiet, about 5 GiB for huge pages, OVS-DPDK and iperf3
(apt-get install openvswitch-switch-dpdk iperf3).";

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct AllArgs {
    /// Where benchmarks.md and the folder benchmarks with its pictures go
    #[arg(long, default_value = "docs", value_name = "DIR")]
    pub out: PathBuf,
    /// Few and short samples, for a first look
    #[arg(long)]
    pub quick: bool,
    /// Only rows whose name begins so; the page then has no others
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
}

/// A row: its name on the page, what `millrace bench` is told, and what the page says before its figures.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) words: &'static str,
}

/// Runs all rows and writes the page. To be called outside of an async runtime.
///
/// # Errors
/// A row could not be measured: the page says so at its place, and the error names it.
pub fn run(args: &AllArgs) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let pictures = args.out.join("benchmarks");
    std::fs::create_dir_all(&pictures)
        .with_context(|| format!("cannot make the directory {}", pictures.display()))?;
    let interrupt = Interrupt::listen()?;
    let start = Instant::now();
    let mut sections = Vec::new();
    for row in page::ROWS {
        if args.only.as_ref().is_some_and(|only| !row.name.starts_with(only.as_str())) {
            continue;
        }
        interrupt.check()?;
        say(&format!("row {} ({:.0} min so far)", row.name, start.elapsed().as_secs_f64() / 60.0));
        sections.push(measure(&program, row, args.quick, &pictures)?);
    }
    interrupt.check()?;
    ensure!(!sections.is_empty(), "no row has such a name");
    let path = args.out.join("benchmarks.md");
    std::fs::write(&path, page::text(&sections)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = std::io::stdout().lock();
    for section in &sections {
        writeln!(out, "{}", section.table.trim_end())?;
    }
    writeln!(out, "\n{}", page::goals(&sections)?)?;
    say(&format!("wrote {} after {:.0} min", path.display(), start.elapsed().as_secs_f64() / 60.0));
    let failed: Vec<&str> =
        sections.iter().filter(|section| section.error.is_some()).map(|section| section.row.name).collect();
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

fn measure(program: &Path, row: &'static Row, quick: bool, pictures: &Path) -> anyhow::Result<Section> {
    let folder = tempfile::Builder::new().prefix("millrace-bench-all").tempdir()?;
    let json = folder.path().join("result.json");
    let mut command = Command::new(program);
    command.arg("bench").args(row.arguments).arg("--json").arg(&json).arg("--chart").arg(folder.path());
    if quick {
        command.arg("--quick");
    }
    // Its progress goes where ours goes.
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run a row")?;
    let error = (!output.status.success()).then(|| format!("`millrace bench` ended with {}", output.status));
    let json = std::fs::read_to_string(&json).ok();
    let json =
        json.as_deref().map(serde_json::from_str).transpose().context("a row's JSON cannot be read")?;
    let mut picture = false;
    for entry in std::fs::read_dir(folder.path())?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "svg") {
            std::fs::copy(entry.path(), pictures.join(row.name).with_extension("svg"))?;
            picture = true;
        }
    }
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Section { row, table, json, picture, error })
}
