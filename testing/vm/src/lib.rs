//! Tests that run in a guest of the VM lab, because they need kernel modules or devices that a host has not: what do
//! they share?
//!
//! Each target under `tests` is a shape of hardware and one machine of `cargo xtask vm`, in which each test has a process
//! of its own. What a test makes in the kernel it removes, for the next one runs in the same guest. Every helper here
//! fails outside the lab, before it touches the machine.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a test waits with a deadline")]

pub mod node;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a guest may take for what a machine does at once: emulation is slow, and the host may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The folder in which a test may leave files for whoever looks into its failure: the host's `target/vm/SHAPE`.
pub const SHARE: &str = "/run/lab";

/// The kernel's parameter that only the lab's guests have; its value is the shape.
const PARAMETER: &str = "millrace.lab=";

/// The shape of this guest's hardware.
///
/// # Panics
/// Outside the lab: the calling test by name, and the command that runs it.
pub fn shape() -> String {
    let parameters = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let shape = parameters.split_whitespace().find_map(|word| word.strip_prefix(PARAMETER));
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let Some(shape) = shape else { panic!("{test} runs only in the lab's VM: cargo xtask vm {test}") };
    shape.to_owned()
}

/// Loads kernel modules, named as `modprobe` takes them.
///
/// # Panics
/// If one cannot be loaded.
#[track_caller]
pub fn modprobe(modules: &str) {
    run(&format!("modprobe --all {modules}"));
}

/// Runs `program WORDS` to its end, and what it printed.
///
/// # Panics
/// If it fails, with the command and its words.
#[track_caller]
pub fn run(words: &str) -> String {
    match attempt(words) {
        Ok(said) => said,
        Err(error) => panic!("{error}"),
    }
}

/// Runs `program WORDS` to its end, and what it printed.
///
/// # Errors
/// The command and its words, if it cannot be started or fails.
pub fn attempt(words: &str) -> Result<String, String> {
    shape();
    let mut parts = words.split_whitespace();
    let mut command = Command::new(parts.next().unwrap_or_default());
    let output = command.args(parts).output().map_err(|error| format!("{words}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{words}: {}\n{said}{}", output.status, errors.trim_end()))
}

/// Writes `text` to a file of the kernel (sysfs, procfs, debugfs).
///
/// # Panics
/// If the kernel refuses it.
#[track_caller]
pub fn write(path: impl AsRef<Path>, text: &str) {
    shape();
    let path = path.as_ref();
    // Not by a closure, whose panic would name this line and not the test's.
    if let Err(error) = std::fs::write(path, text) {
        panic!("{text:?} > {}: {error}", path.display());
    }
}

/// Reads a file of the kernel, without the newline at its end.
///
/// # Panics
/// If it cannot be read.
#[track_caller]
pub fn read(path: impl AsRef<Path>) -> String {
    shape();
    let path = path.as_ref();
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The names in a folder, sorted; none where it is missing.
pub fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Asks until there is an answer, and returns it.
///
/// # Panics
/// If there is none within [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, ask)
}

/// The same for what takes its time.
///
/// # Panics
/// If there is no answer within `patience`.
#[track_caller]
pub fn wait_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    shape();
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience, "{what}: not within {} s", patience.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The network device that a driver makes for `device`, a folder of sysfs: waits until it is there.
///
/// # Panics
/// If none comes.
#[track_caller]
pub fn netdev(device: impl AsRef<Path>) -> String {
    let folder = device.as_ref().join("net");
    wait_for(&format!("a network device in {}", folder.display()), || names(&folder).into_iter().next())
}

/// The network device that the kernel's driver makes for a device of the vDPA bus, whose parent is no PCI device: waits
/// until it is there.
///
/// # Panics
/// If none comes.
#[track_caller]
pub fn vdpa_netdev(device: &str) -> String {
    let folder = Path::new("/sys/bus/vdpa/devices").join(device);
    let virtio = wait_for(&format!("a virtio device of {device}"), || {
        names(&folder).into_iter().find(|name| name.starts_with("virtio"))
    });
    netdev(folder.join(virtio))
}

/// A release build of a program of the house: `millrace`, `millrace-cni`.
///
/// # Panics
/// If the task runner, which builds them, did not name it.
pub fn program(name: &str) -> PathBuf {
    shape();
    // Cargo's own name for it, in the tests of the package that has the program.
    let variable = format!("CARGO_BIN_EXE_{name}");
    std::env::var_os(&variable).unwrap_or_else(|| panic!("{variable} is not set")).into()
}
