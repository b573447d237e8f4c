//! Has Millrace become slower than it was, beside the same peer? `millrace bench regress` measures a few cases quickly and
//! holds their ratios against stored ones.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::options::{Files, Options, Peer, Place, Repeats, Samples};
use crate::report::Report;
use crate::sweep::{self, FlowsOf, SweepArgs};
use crate::vhost::{self, FrameKind, LoadKind, VhostArgs};

/// Enough for ratios that are held against each other with a tolerance of a fifth.
const ROUNDS: usize = 3;
const SAMPLE_MS: u64 = 500;

const EXAMPLES: &str = "\
Examples:
  millrace bench regress --stored testing/bench/ratios.json           fails if a ratio got clearly worse
  millrace bench regress --stored testing/bench/ratios.json --store   stores what is measured now

It needs what `millrace bench vhost` needs, and under five minutes.";

/// What to hold against what.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct RegressArgs {
    /// The stored ratios
    #[arg(long, value_name = "FILE")]
    pub stored: PathBuf,
    /// Stores the measured ratios instead
    #[arg(long)]
    pub store: bool,
    /// How much worse than stored a ratio may be: 0.2 is a fifth
    #[arg(long, default_value_t = 0.2, value_name = "SHARE")]
    pub tolerance: f64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub place: Place,
}

impl RegressArgs {
    /// How the rows are measured: quickly, and for this comparison only.
    fn options(&self) -> Options {
        Options {
            peer: Peer::OvsDpdk,
            samples: Samples { repeats: Repeats { rounds: ROUNDS, quick: false }, sample_ms: SAMPLE_MS },
            place: self.place.clone(),
            files: Files::default(),
            only_peer: false,
        }
    }
}

/// Busy cycles per packet, Millrace over OVS-DPDK, by case.
type Ratios = BTreeMap<String, f64>;

/// Measures and compares. To be called outside of an async runtime.
///
/// # Errors
/// A ratio is worse than stored by more than the tolerance, or was not measured; or measuring failed.
pub fn run(args: &RegressArgs) -> anyhow::Result<()> {
    let options = args.options();
    let mut measured = Ratios::new();
    for load in [LoadKind::Light, LoadKind::Macswap] {
        let frames =
            vec![FrameKind::Plain(64), FrameKind::Plain(512), FrameKind::Plain(1500), FrameKind::Large];
        let args = VhostArgs { frames, load, breakdown: false, options: options.clone() };
        measured.extend(ratios(load.name(), &vhost::report(&args)?));
    }
    for of in [FlowsOf::Connections, FlowsOf::Stations] {
        let args = SweepArgs { flows: vec![10_000], of, options: options.clone() };
        measured.extend(ratios("light", &sweep::report(&args)?));
    }
    if args.store {
        let text = serde_json::to_string_pretty(&measured)?;
        return std::fs::write(&args.stored, text + "\n").with_context(|| cannot("write", &args.stored));
    }
    let text = std::fs::read_to_string(&args.stored).with_context(|| cannot("read", &args.stored))?;
    let stored: Ratios = serde_json::from_str(&text).with_context(|| cannot("understand", &args.stored))?;
    judge(&stored, &measured, args.tolerance)
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}

fn ratios(load: &str, report: &Report) -> Ratios {
    report.cycle_ratios().map(|(case, ratio)| (format!("{load}, {case}"), ratio)).collect()
}

fn judge(stored: &Ratios, measured: &Ratios, tolerance: f64) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut worse = Vec::new();
    writeln!(out, "\n{:<44} {:>8} {:>8}", "Millrace / OVS-DPDK, busy cycles", "stored", "now")?;
    for (case, before) in stored {
        let now = measured.get(case);
        let is_worse = now.is_none_or(|now| *now > before * (1.0 + tolerance));
        let now = now.map_or_else(|| "missing".into(), |now| format!("{now:.3}"));
        writeln!(out, "{case:<44} {before:>8.3} {now:>8}{}", if is_worse { "  worse" } else { "" })?;
        if is_worse {
            worse.push(case.as_str());
        }
    }
    if !worse.is_empty() {
        bail!("worse than stored by more than {:.0} %: {}", 100.0 * tolerance, worse.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: RegressArgs,
    }

    #[test]
    fn args_when_they_would_be_ignored_are_refused() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["regress", "--stored", "a"], words].concat());
        for words in
            [["--rounds", "9"], ["--sample-ms", "9"], ["--json", "a"], ["--chart", "a"], ["--peer", "none"]]
        {
            assert!(parse(&words).is_err(), "{words:?}");
        }
        let args = parse(&["--worker-cpu", "2", "--realtime"]).unwrap().args;
        assert_eq!((args.options().worker_cpu(), args.options().place.realtime), (2, true));
    }

    #[test]
    fn ratios_when_worse_than_tolerated_or_missing_fail() {
        let of =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(case, ratio)| ((*case).to_owned(), *ratio)).collect();
        let stored: Ratios = of(&[("a", 0.5), ("b", 0.6)]);
        assert!(judge(&stored, &of(&[("a", 0.55), ("b", 0.3), ("c", 9.0)]), 0.2).is_ok());
        let error = judge(&stored, &of(&[("a", 0.61), ("b", 0.6)]), 0.2).unwrap_err().to_string();
        assert_eq!(error, "worse than stored by more than 20 %: a");
        assert!(judge(&stored, &of(&[("a", 0.5)]), 0.2).is_err());
    }
}
