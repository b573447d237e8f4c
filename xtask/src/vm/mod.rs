//! Do the tests pass that need kernel modules and devices which no host has? One machine of QEMU for each shape of hardware,
//! booted from the host's own files, and in it the tests one by one.
//!
//! The guest says when a test begins and how it ends (`testing/vm/guest`). A test whose guest dies or falls silent has
//! failed. After a failure the tests behind it get a new guest. QEMU ends with this program, however that ends.
mod machine;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Deserialize;

use crate::prepare;
use crate::run::{self, cargo, root, target_folder};
use crate::suite::Tally;
use machine::Machine;
pub(crate) use machine::Shape;

/// How long one test may take: emulated, on a busy machine, with a kernel's own timeout of 30 s in it.
const TEST_LIMIT: Duration = Duration::from_secs(120);
/// How much later than the guest's own watchdog ours looks: a guest that says nothing more is gone.
const GRACE: Duration = Duration::from_secs(30);
/// Boots without a test after which there will be none: a guest that starves on a busy host may need a second.
const BOOTS: u32 = 2;
/// How long all tests of a machine may take.
const SHAPE_LIMIT: Duration = Duration::from_secs(600);

/// Runs the tests of one shape, or of all, whose name contains `filter`.
pub(crate) fn vm(shape: Option<Shape>, filter: Option<&str>) -> Result<()> {
    prepare::lab()?;
    let shapes = shape.map_or_else(|| Shape::value_variants().to_vec(), |shape| vec![shape]);
    run_tests(&shapes, filter)?.verdict()
}

/// Runs the tests of every shape. A lab that cannot be used has failed.
pub(crate) fn run_all() -> Tally {
    run_tests(Shape::value_variants(), None).unwrap_or_else(|error| {
        let mut tally = Tally::default();
        tally.fail(format!("VM lab: {error:#}"));
        tally
    })
}

/// A shell in a guest, on this terminal; `exit` ends the guest.
pub(crate) fn shell(shape: Shape) -> Result<()> {
    prepare::lab()?;
    let machine = Machine::new(shape)?;
    // A terminal of its own, for job control; then the machine's reset, which ends QEMU.
    machine.write_command("setsid --ctty --wait bash -i\necho b > /proc/sysrq-trigger\n")?;
    eprintln!("+ VM lab, {}: a shell, whose exit ends the guest", shape.name());
    let status = machine.qemu().status().context("setpriv, which starts QEMU")?;
    ensure!(status.success(), "QEMU: {status}; {}", machine.last_words());
    Ok(())
}

fn run_tests(shapes: &[Shape], filter: Option<&str>) -> Result<Tally> {
    let binaries = build_tests()?;
    let mut tally = Tally::default();
    for shape in shapes {
        let binary = binaries.iter().find(|binary| binary.name == shape.name());
        let binary = binary.with_context(|| format!("package vm has no test target {}", shape.name()))?;
        let tests = list(&binary.path, filter)?;
        if !tests.is_empty() {
            let mut session = Session {
                machine: Machine::new(*shape)?,
                binary: &binary.path,
                pending: tests,
                tally: Tally::default(),
                is_talkative: filter.is_some(),
                deadline: now() + SHAPE_LIMIT,
            };
            session.run()?;
            tally.add(&session.tally);
        }
    }
    Ok(tally)
}

/// A test target, built.
struct Binary {
    name: String,
    path: PathBuf,
}

fn build_tests() -> Result<Vec<Binary>> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        kind: Vec<String>,
        name: String,
    }
    let mut build = cargo(&["test", "--quiet", "--package", "vm", "--tests", "--no-run"]);
    let output =
        build.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit()).output();
    let output = output.context("cargo")?;
    if !output.status.success() {
        bail!("the tests of package vm cannot be built");
    }
    let mut binaries = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Message = serde_json::from_slice(line).context("cargo's messages")?;
        if let (Some(path), Some(target)) = (message.executable, message.target)
            && target.kind == ["test"]
        {
            binaries.push(Binary { name: target.name, path });
        }
    }
    Ok(binaries)
}

/// The names of the tests that contain `filter`.
fn list(binary: &Path, filter: Option<&str>) -> Result<VecDeque<String>> {
    let mut args = vec!["--list", "--format", "terse"];
    args.extend(filter);
    let listed = run::output(&binary.display().to_string(), &args)?;
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// The tests of one machine, on their way through one guest or more.
struct Session<'a> {
    machine: Machine,
    binary: &'a Path,
    pending: VecDeque<String>,
    tally: Tally,
    /// Passes on what tests say as they say it, not only where they fail.
    is_talkative: bool,
    deadline: Instant,
}

/// A test that runs in the guest.
struct Running {
    name: String,
    since: Instant,
    said: Vec<String>,
}

impl Session<'_> {
    fn run(&mut self) -> Result<()> {
        eprintln!("+ VM lab, {}: {} tests", self.machine.shape.name(), self.pending.len());
        let mut fruitless_boots = 0;
        while !self.pending.is_empty() {
            let before = self.pending.len();
            self.boot()?;
            fruitless_boots = if self.pending.len() == before { fruitless_boots + 1 } else { 0 };
            if now() > self.deadline {
                let seconds = SHAPE_LIMIT.as_secs();
                self.give_up(&format!("the {seconds} s that the tests of this machine may take are over"));
            } else if fruitless_boots == BOOTS {
                self.give_up("the guest did not come to its next test");
            }
        }
        Ok(())
    }

    /// One guest, from its boot to its end.
    fn boot(&mut self) -> Result<()> {
        self.machine.write_command(&self.command()?)?;
        let mut qemu = self.machine.qemu();
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(self.machine.log())?);
        let mut guest = Guest(qemu.spawn().context("setpriv, which starts QEMU")?);
        let lines = guest.lines();
        let mut running: Option<Running> = None;
        let why = loop {
            let limit = running.as_ref().map_or_else(now, |test| test.since) + TEST_LIMIT + GRACE;
            let left = limit.min(self.deadline).saturating_duration_since(now());
            match lines.recv_timeout(left) {
                Ok(line) => self.hear(line, &mut running),
                Err(RecvTimeoutError::Timeout) => break "the guest says nothing more",
                Err(RecvTimeoutError::Disconnected) => break "the guest died",
            }
        };
        if let Some(test) = running {
            self.failed(&test, &format!("{why}; {}", self.machine.last_words()));
        }
        Ok(())
    }

    /// What the guest runs: the tests that are pending, with this process's wishes for them.
    fn command(&self) -> Result<String> {
        let is_wish = |name: &str| ["RUST_", "MILLRACE_"].iter().any(|prefix| name.starts_with(prefix));
        let wishes = std::env::vars().filter(|(name, _)| is_wish(name));
        let release = std::path::absolute(target_folder().join("release"))?;
        let programs = ["millrace", "millrace-cni"]
            .map(|name| (format!("CARGO_BIN_EXE_{name}"), release.join(name).display().to_string()));
        let required = ("MILLRACE_REQUIRE_ALL".to_owned(), "1".to_owned());
        let environment = wishes.chain(programs).chain([required]);
        let package = root().join("testing/vm");
        let mut words: Vec<String> = environment.map(|(name, value)| format!("{name}={value}")).collect();
        words.push(package.join("guest").display().to_string());
        words.push(TEST_LIMIT.as_secs().to_string());
        words.push(self.binary.display().to_string());
        words.extend(self.pending.iter().cloned());
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        Ok(format!("cd {}\nexec env {}\n", quote(&package.display().to_string()), words.join(" ")))
    }

    /// Takes a line of the guest's.
    fn hear(&mut self, line: String, running: &mut Option<Running>) {
        if let Some(test) = line.strip_prefix("lab: begins ") {
            print!("test {test} ... {}", if self.is_talkative { "\n" } else { "" });
            let _ = std::io::stdout().flush();
            *running = Some(Running { name: test.to_owned(), since: now(), said: Vec::new() });
        } else if let Some(how) = line.strip_prefix("lab: ends ") {
            if let Some(test) = running.take() {
                self.ended(&test, how);
            }
        } else {
            if (self.is_talkative || running.is_none()) && !line.is_empty() {
                println!("{line}");
            }
            if let Some(test) = running {
                test.said.push(line);
            }
        }
    }

    fn ended(&mut self, test: &Running, how: &str) {
        match outcome(how, &test.said) {
            Outcome::Passed => {
                println!("ok ({:.1} s)", test.since.elapsed().as_secs_f32());
                self.pending.pop_front();
                self.tally.pass();
            }
            Outcome::Skipped(why) => {
                println!("ignored");
                self.pending.pop_front();
                self.tally.skip(why);
            }
            Outcome::Failed(why) => self.failed(test, &why),
        }
    }

    fn failed(&mut self, test: &Running, why: &str) {
        if !self.is_talkative {
            println!("\n{}", test.said.join("\n"));
        }
        println!("{why}\ntest {} ... FAILED", test.name);
        self.pending.pop_front();
        self.fail(&test.name, "");
    }

    /// Fails every test that has not run.
    fn give_up(&mut self, why: &str) {
        println!("{why}; {}", self.machine.last_words());
        for test in std::mem::take(&mut self.pending) {
            self.fail(&test, &format!(": {why}"));
        }
    }

    fn fail(&mut self, test: &str, why: &str) {
        self.tally.fail(format!("test {test} (VM lab, {}) ... FAILED{why}", self.machine.shape.name()));
    }
}

/// What became of a test that ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped(Option<String>),
    Failed(String),
}

/// The outcome of a test by how its process ended and what libtest and it said: a filter that matches nothing ends well.
fn outcome(how: &str, said: &[String]) -> Outcome {
    let line = |word: &str| said.iter().find_map(|line| line.find(word).map(|at| line[at..].to_owned()));
    if how != "status 0" {
        return Outcome::Failed(format!("it ended with {how}"));
    }
    match (line("SKIPPED "), line("1 ignored"), line("1 passed")) {
        (Some(why), _, _) => Outcome::Skipped(Some(why)),
        (None, Some(_), _) => Outcome::Skipped(None),
        (None, None, Some(_)) => Outcome::Passed,
        (None, None, None) => Outcome::Failed("it did not run".into()),
    }
}

/// A running QEMU; killed when it is dropped.
struct Guest(Child);

impl Guest {
    /// What the guest says, line by line, until its end.
    fn lines(&mut self) -> Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        if let Some(stdout) = self.0.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                        break;
                    }
                }
            });
        }
        receiver
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A word for bash.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[allow(clippy::disallowed_methods, reason = "deadlines")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::{Outcome, outcome, quote};

    #[test]
    fn a_test_has_passed_only_where_libtest_says_so() {
        let said = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let passed = said("running 1 test\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!(outcome("status 0", &passed), Outcome::Passed);
        assert_eq!(outcome("status 134", &passed), Outcome::Failed("it ended with status 134".into()));
        let none = said("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out");
        assert_eq!(outcome("status 0", &none), Outcome::Failed("it did not run".into()));
        let ignored = said("test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured");
        assert_eq!(outcome("status 0", &ignored), Outcome::Skipped(None));
        let skipped = said("test a ... SKIPPED a: no card\ntest result: ok. 1 passed; 0 failed");
        assert_eq!(outcome("status 0", &skipped), Outcome::Skipped(Some("SKIPPED a: no card".into())));
    }

    #[test]
    fn words_reach_bash_as_they_are() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
