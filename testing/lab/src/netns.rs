//! A network namespace that lives as long as its owner: no name, no mount, nothing to clean up after a kill.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A private network namespace with its loopback up, held by a descriptor of this process.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// A new, empty namespace.
    ///
    /// # Errors
    /// The kernel's: needs CAP_SYS_ADMIN in the user namespace (root, or a user namespace of one's own).
    pub fn new() -> io::Result<Netns> {
        let file = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let netns = Netns { file };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// A path under which other processes of this machine can open the namespace, as long as this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Runs `work` on a thread inside the namespace. A process it starts stays inside.
    ///
    /// # Errors
    /// Those of entering, and of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// Runs `ip WORDS` (iproute2) inside the namespace and returns what it printed.
    ///
    /// # Errors
    /// With the command and what it said, if it fails.
    pub fn ip(&self, words: &str) -> io::Result<String> {
        self.command("ip", words)
    }

    /// Runs `program WORDS` inside the namespace to its end and returns what it printed.
    ///
    /// # Errors
    /// With the command and what it said, if it fails.
    pub fn command(&self, program: &str, words: &str) -> io::Result<String> {
        let mut command = Command::new(program);
        command.args(words.split_whitespace());
        let output = self.run(move || command.output())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program} {words}: {} ({})", said.trim(), output.status)))
    }
}

/// A thread's namespaces are its own, so what changes them runs on a thread that ends with it.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = scope.spawn(work);
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
