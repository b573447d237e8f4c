//! A program that runs beside the benchmark, and never longer than it.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The highest priority of an ordinary process.
const NICE: &str = "-20";
/// How long a program may take to end when asked.
const GRACE: Duration = Duration::from_secs(3);

/// A program in the background. It is ended when this value is dropped, and killed when the benchmark is killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program` on CPU `cpu` (it may move itself), with its output in a file of `folder`. To be called by a
    /// thread that lives as long as the benchmark: the kernel ends the program with the thread.
    pub(crate) fn start(
        program: &Path,
        cpu: usize,
        folder: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // setpriv: the kernel ends the program with its parent, however that ends. nice: what else runs on the machine
        // is kept away from what is measured, as far as that goes without a real-time class.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nice", "-n", NICE, "taskset", "--cpu-list", &cpu.to_string()]);
        command.arg(program);
        configure(&mut command);
        // Ctrl-C is for the benchmark, which ends its programs itself.
        command.process_group(0).stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("cannot run setpriv (Debian package util-linux)")?;
        Ok(Self { child, name, log })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error, with the end of its output, if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let output = self.log();
            let lines: Vec<&str> = output.lines().rev().take(15).collect();
            let tail: Vec<&str> = lines.into_iter().rev().collect();
            bail!("{} ended early ({status}):\n{}", self.name, tail.join("\n"));
        }
        Ok(())
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Gives it a line of input.
    pub(crate) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut().context("the program reads no input")?;
        writeln!(input, "{line}").with_context(|| format!("{} takes no input", self.name))
    }

    /// Stops it (SIGSTOP) so that it uses no CPU.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // A program that has ended is found by `check`.
            let _ended = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.resume();
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Where the kernel groups processes by session for scheduling, a nice value counts within the session only; this is the
/// session's own.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// Gives this process, and the session it runs in, the priority of the programs that it measures. The session gets its
/// own back when dropped.
#[derive(Debug)]
pub(crate) struct Priority {
    session_before: Option<String>,
}

impl Priority {
    pub(crate) fn raise() -> anyhow::Result<Self> {
        rustix::process::setpriority_process(None, NICE.parse()?)
            .context("cannot raise the priority: run as root")?;
        // "/autogroup-10 nice 0"; absent where the kernel does not group.
        let text = std::fs::read_to_string(AUTOGROUP).unwrap_or_default();
        let before = text.trim().rsplit_once(' ').map(|(_, nice)| nice.to_owned());
        let session_before = before.filter(|_| std::fs::write(AUTOGROUP, NICE).is_ok());
        Ok(Self { session_before })
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = &self.session_before {
            let _refused = std::fs::write(AUTOGROUP, before);
        }
    }
}

/// Gives thread `thread` a real-time class, so that nothing ordinary runs on its CPU; takes it away again when dropped.
#[derive(Debug)]
pub(crate) struct RealTime(u32);

impl RealTime {
    pub(crate) fn grant(thread: u32) -> anyhow::Result<Self> {
        output(Command::new("chrt").args(["--fifo", "--pid", "1", &thread.to_string()]))?;
        Ok(Self(thread))
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        // A thread that has ended needs no other class.
        let _ended = output(Command::new("chrt").args(["--other", "--pid", "0", &self.0.to_string()]));
    }
}

/// Runs a short program to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(text)
}
