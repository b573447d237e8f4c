//! DPDK's own frontend (`net_virtio_user` in dpdk-testpmd): two of its ports, with the queues of ours between them. The
//! frames of its first burst go round for as long as nobody loses them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use frame::Burst;
use lab::{program, require};
use ports::vhost_user::{Role, VhostUserControl, VhostUserSpec};
use ports::{Device, DeviceHandle};

use super::support::{create_spec, forward, wait_for};

/// Frames each way that are proof enough: each of testpmd's 32 has gone round many times.
const ENOUGH: u64 = 2_000;
/// For testpmd's 64 MiB.
const HUGE_PAGES: u64 = 48;
const QUEUE_PAIRS: u16 = 2;

/// testpmd with two vhost-user ports. Killed with the test, however that ends.
struct Testpmd {
    child: Child,
    log: PathBuf,
}

#[derive(Clone, Copy, PartialEq)]
enum Memory {
    Memfd,
    HugePages,
}

impl Testpmd {
    /// testpmd that starts to forward by itself.
    fn start(directory: &Path, server: bool, memory: Memory, queues: u16) -> Self {
        Self::start_with(directory, server, memory, queues, &["--tx-first", "--auto-start"])
    }

    fn start_with(directory: &Path, server: bool, memory: Memory, queues: u16, mode: &[&str]) -> Self {
        if server {
            // Left behind by one that was killed.
            for port in [0, 1] {
                let _ = std::fs::remove_file(directory.join(format!("{port}.sock")));
            }
        }
        let vdev = |port: usize| {
            let socket = directory.join(format!("{port}.sock"));
            let server = u8::from(server);
            format!("--vdev=net_virtio_user{port},path={},server={server},queues={queues}", socket.display())
        };
        let queues = queues.to_string();
        let prefix = format!("--file-prefix={}", directory.file_name().unwrap().to_string_lossy());
        let memory: &[&str] = match memory {
            Memory::Memfd => &["--no-huge", "--iova-mode=va", "-m", "128"],
            Memory::HugePages => &["--in-memory", "--single-file-segments", "-m", "64"],
        };
        let log = directory.join("testpmd.log");
        let output = std::fs::File::create(&log).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "dpdk-testpmd", "--lcores", "0@0,1@1", "--no-pci", &prefix])
            .args(memory)
            .args([vdev(0), vdev(1)])
            .args(["--", "--nb-cores=1", "--forward-mode=io"])
            .args(mode)
            .args(["--total-num-mbufs=4096", "--rxq", &queues, "--txq", &queues])
            .env("XDG_RUNTIME_DIR", directory)
            .env("RUNTIME_DIRECTORY", directory)
            .stdin(Stdio::piped())
            .stderr(output.try_clone().unwrap())
            .stdout(output)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Gives a command to an interactive testpmd.
    fn say(&mut self, command: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            explain(&format!("testpmd said:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default()));
        }
    }
}

/// What a failed test needs to be understood.
#[allow(clippy::print_stderr, reason = "shown with the test's failure")]
fn explain(text: &str) {
    eprintln!("{text}");
}

/// A thread that forwards between two devices, all queues both ways.
struct Patch {
    handles: [Box<dyn DeviceHandle>; 2],
    stop: Arc<AtomicBool>,
    frames: Arc<[AtomicU64; 2]>,
    thread: Option<JoinHandle<()>>,
}

impl Patch {
    fn start([mut left, mut right]: [Device; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let frames: Arc<[AtomicU64; 2]> = Arc::default();
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&frames));
        let thread = std::thread::spawn(move || {
            let mut burst = Burst::new();
            while !stopped.load(Ordering::Relaxed) {
                for queue in 0..left.rx.len() {
                    let there = forward(&mut *left.rx[queue], &*right.tx[queue], &mut burst);
                    let back = forward(&mut *right.rx[queue], &*left.tx[queue], &mut burst);
                    counted[0].fetch_add(there.frames, Ordering::Relaxed);
                    counted[1].fetch_add(back.frames, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        Self { handles: [left.handle, right.handle], stop, frames, thread: Some(thread) }
    }

    /// Waits for [`ENOUGH`] frames each way from now on.
    fn wait_for_frames(&self) {
        let start = self.counts();
        wait_for("frames both ways", || {
            self.counts().iter().zip(start).all(|(now, start)| now - start >= ENOUGH)
        });
    }

    fn counts(&self) -> [u64; 2] {
        [0, 1].map(|way: usize| self.frames[way].load(Ordering::Relaxed))
    }
}

impl Drop for Patch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(JoinHandle::join);
        if std::thread::panicking() {
            let links = self.handles.each_ref().map(|handle| handle.link());
            explain(&format!("frames {:?}, links {links:?}, thread {joined:?}", self.counts()));
        }
    }
}

/// The part "there are huge pages for testpmd".
fn huge_pages() -> Result<(), String> {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free = free.ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    if free >= HUGE_PAGES {
        Ok(())
    } else {
        Err(format!("{free} huge pages of 2 MiB are free, {HUGE_PAGES} are needed"))
    }
}

fn open(control: &Arc<VhostUserControl>, directory: &Path, role: Option<Role>) -> [Device; 2] {
    [0, 1].map(|port| {
        let spec = create_spec(&directory.join(format!("{port}.sock")));
        let role = role.unwrap_or(spec.role);
        control.open(VhostUserSpec { role, queue_pairs: QUEUE_PAIRS, ..spec }).unwrap()
    })
}

fn frames_go_round(test: &str, role: Option<Role>, memory: Memory, queues: u16) {
    if !require(test, program("dpdk-testpmd")) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let control = VhostUserControl::start().unwrap();
    let patch = Patch::start(open(&control, directory.path(), role));
    let mut testpmd = Testpmd::start(directory.path(), role.is_some(), memory, queues);
    patch.wait_for_frames();
    testpmd.kill();
    // Only testpmd was killed: the next one finds the ports as the first one did.
    testpmd = Testpmd::start(directory.path(), role.is_some(), memory, queues);
    patch.wait_for_frames();
    for handle in &patch.handles {
        let link = handle.link();
        assert!(link.up, "{}", link.detail);
        assert!(link.detail.contains(&format!("{queues} queue pair")), "{}", link.detail);
    }
    testpmd.kill();
}

#[test]
fn testpmd_passes_frames_when_the_switch_makes_the_socket() {
    frames_go_round("testpmd_passes_frames_when_the_switch_makes_the_socket", None, Memory::Memfd, 1);
}

#[test]
fn testpmd_passes_frames_when_testpmd_makes_the_socket() {
    let test = "testpmd_passes_frames_when_testpmd_makes_the_socket";
    frames_go_round(test, Some(Role::Connect), Memory::Memfd, 1);
}

#[test]
fn testpmd_passes_frames_with_two_queue_pairs() {
    frames_go_round("testpmd_passes_frames_with_two_queue_pairs", None, Memory::Memfd, 2);
}

#[test]
fn testpmd_passes_frames_from_huge_pages() {
    let test = "testpmd_passes_frames_from_huge_pages";
    if !require(test, huge_pages()) {
        return;
    }
    frames_go_round(test, None, Memory::HugePages, 1);
}

#[test]
fn testpmd_resumes_when_the_switch_was_killed() {
    if !require("testpmd_resumes_when_the_switch_was_killed", program("dpdk-testpmd")) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let control = VhostUserControl::start().unwrap();
    // testpmd must notice the end of a connection by itself, which it does not with --tx-first: commands do that here.
    let mut testpmd = Testpmd::start_with(directory.path(), true, Memory::Memfd, 1, &["--interactive"]);
    for _ in 0..4 {
        let patch = Patch::start(open(&control, directory.path(), Some(Role::Connect)));
        let mut looks = 0;
        wait_for("both links to be up", || {
            looks += 1;
            if looks % 100 == 0 {
                testpmd.say("show port info all");
            }
            patch.handles.iter().all(|handle| handle.link().up)
        });
        testpmd.say("stop");
        testpmd.say("start tx_first");
        patch.wait_for_frames();
    }
}
