//! A program that runs beside a test: killed with it, however it ends, and asked for its words when something is wrong.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output appended to `log`. The kernel kills it when the calling *thread* ends, so that
    /// nothing outlives a test that was killed itself.
    ///
    /// # Errors
    /// It, or util-linux's `setpriv`, cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> io::Result<Process> {
        let name = Path::new(program.as_ref()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let output = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
        // An input that stays open and empty: some programs end with theirs.
        command.stdin(Stdio::piped()).stderr(output.try_clone()?).stdout(output);
        Ok(Process { child: command.spawn()?, name, log: log.to_owned() })
    }

    /// Everything it, and those before it with the same log, have said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `ready`.
    ///
    /// # Errors
    /// The program ended or `patience` did, with what it was to do and what it said.
    pub fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> io::Result<()> {
        #[allow(clippy::disallowed_methods, reason = "a deadline")]
        let start = Instant::now();
        loop {
            // Asked first, so that what it did at its end counts.
            let ended = self.child.try_wait()?;
            if ready() {
                return Ok(());
            }
            if ended.is_some() || start.elapsed() > patience {
                let why = ended.map_or("time ran out".to_owned(), |status| format!("it ended with {status}"));
                let said = self.said();
                return Err(io::Error::other(format!(
                    "{}: {why} before {what}; it said:\n{said}",
                    self.name
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
