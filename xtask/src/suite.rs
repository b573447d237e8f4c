//! Do all tests pass, and which did not run? Runs them, passes their output on, and counts.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{check, prepare, run, vm};

/// Everything: prepare, check, then every test with real parts.
pub(crate) fn test() -> Result<()> {
    prepare::prepare()?;
    check::lint()?;
    build_product()?;
    let mut tally = run_tests("all tests", &[], &[("MILLRACE_REQUIRE_ALL", "1")])?;
    tally.add(&run_doc_tests()?);
    tally.add(&run_watched()?);
    tally.add(&vm::run_all());
    tally.verdict()
}

/// The tests execute the product's programs, so these are built as a user would build them.
pub(crate) fn build_product() -> Result<()> {
    let packages = ["--package", "millrace", "--package", "millrace-cni"];
    run::run(run::cargo(&["build", "--release", "--quiet"]).args(packages))
}

/// What became of the tests of a run.
#[derive(Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// The runner itself failed: a build error, a crash.
    broken: bool,
    /// `SKIPPED name: why`, `test name ... FAILED`.
    remarks: Vec<String>,
}

impl Tally {
    /// A test passed.
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    /// A test did not run.
    pub(crate) fn skip(&mut self, remark: Option<String>) {
        self.skipped += 1;
        self.remarks.extend(remark);
    }

    /// A test failed.
    pub(crate) fn fail(&mut self, remark: String) {
        self.failed += 1;
        self.remarks.push(remark);
    }

    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.broken |= other.broken;
        self.remarks.extend(other.remarks.iter().cloned());
    }

    /// Reads one line of libtest's output.
    fn line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |word: &str| {
                let end = counts.find(word)?;
                counts[..end].trim_end().rsplit(' ').next()?.parse::<u64>().ok()
            };
            self.passed += count("passed").unwrap_or(0);
            self.failed += count("failed").unwrap_or(0);
            self.skipped += count("ignored").unwrap_or(0);
        } else if let Some(at) = line.find("SKIPPED ") {
            // A test that finds it cannot run says so and returns: libtest counts it as passed, we do not.
            self.passed = self.passed.saturating_sub(1);
            self.skipped += 1;
            self.remarks.push(line[at..].to_owned());
        } else if line.starts_with("test ") && line.ends_with("FAILED") {
            self.remarks.push(line.to_owned());
        }
    }

    /// Prints the summary; an error if any test failed or none ran.
    pub(crate) fn verdict(&self) -> Result<()> {
        println!("\n{}", self.summary());
        self.judge()
    }

    fn summary(&self) -> String {
        let remarks: String = self.remarks.iter().map(|remark| format!("{remark}\n")).collect();
        format!("{remarks}{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }

    fn judge(&self) -> Result<()> {
        if self.broken || self.failed > 0 {
            bail!("tests failed");
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

/// Runs the workspace's tests, `filter` narrowing the targets, and counts.
pub(crate) fn run_tests(title: &str, filter: &[&str], env: &[(&str, &str)]) -> Result<Tally> {
    // The tests of package vm run in the VM lab, and nowhere else.
    let mut args = vec!["test", "--workspace", "--exclude", "vm", "--no-fail-fast"];
    args.extend(if filter.is_empty() { &["--all-targets"] } else { filter });
    // Skips are said on standard output, which libtest would swallow for a test that passes.
    args.extend(["--", "--nocapture"]);
    counted(title, &args, env)
}

fn run_doc_tests() -> Result<Tally> {
    counted("doc tests", &["test", "--workspace", "--doc", "--quiet"], &[])
}

/// The tests of the unsafe islands and the corpus of hostile bytes again, with every access to memory watched.
fn run_watched() -> Result<Tally> {
    let target = run::output("rustc", &["-vV"])?;
    let triple =
        target.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let folder = run::target_folder().join("watched");
    // A target triple of its own keeps build scripts and macros free of the instrumentation.
    let mut args = vec!["test", "--no-fail-fast", "--target", triple, "--target-dir"];
    args.push(folder.to_str().context("a path that is no text")?);
    for package in ["frame", "ports", "guest", "fuzz"] {
        args.extend(["--package", package]);
    }
    args.extend(["--lib", "--test", "corpus", "--test", "vhost_user", "--", "--nocapture"]);
    // AddressSanitizer's runtime comes with the stable compiler; only the flag is called unstable.
    let env = [("RUSTC_BOOTSTRAP", "1"), ("RUSTFLAGS", "-Zsanitizer=address")];
    counted("unsafe code under AddressSanitizer", &args, &env)
}

fn counted(title: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Tally> {
    eprintln!("+ {title}: cargo {}", args.join(" "));
    let mut command = run::cargo(args);
    let mut child = command.envs(env.iter().copied()).stdout(Stdio::piped()).spawn().context("cargo test")?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("reading the tests' output")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.line(line.trim_end());
        }
    }
    tally.broken = !child.wait().context("cargo test")?.success();
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_and_skips_are_counted() {
        let mut tally = Tally::default();
        tally.line("test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally.line("SKIPPED guest_pings: no QEMU here");
        tally.line("test ring::loops ... FAILED");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (11, 1, 3));
        assert_eq!(tally.remarks.len(), 2);
        assert!(tally.summary().ends_with("FAILED\n11 passed, 1 failed, 3 skipped"));
        assert!(tally.judge().is_err());
    }

    #[test]
    fn a_run_without_tests_is_no_success() {
        assert!(Tally::default().judge().is_err());
    }
}
