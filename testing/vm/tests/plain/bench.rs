//! Does `millrace bench pods` measure pods of VDUSE, and leave nothing behind however it ends? Functions only: an emulated
//! machine's figures mean nothing.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vm::{PATIENCE, attempt, modprobe, names, program, run, wait_within};

/// The modules that pods of TAP and of VDUSE need.
const MODULES: &str = "tun vduse virtio_vdpa virtio_net";

/// As short as a measurement can be.
fn bench(words: &str) -> String {
    let program = program("millrace");
    format!("{} bench pods --quick --without-ovs --messages 1500 {words}", program.display())
}

/// The same, started with its progress in `log`.
fn start(words: &str, log: &Path) -> Child {
    let words = bench(words);
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log).unwrap());
    command.spawn().unwrap()
}

fn results(json: &Path) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    report["results"].as_array().unwrap().clone()
}

fn rate(results: &[Value], subject: &str, metric: &str) -> Option<f64> {
    let of_subject = results.iter().filter(|result| result["subject"] == subject);
    of_subject.filter_map(|result| result[metric].as_f64()).next()
}

#[track_caller]
fn assert_nothing_left() {
    assert_eq!(run("vdpa dev show"), "");
    assert_eq!(names("/dev/vduse"), ["control"]);
    let netdevs = names("/sys/class/net");
    assert!(netdevs.iter().all(|name| !name.starts_with("eth")), "{netdevs:?}");
}

#[test]
fn pods_of_every_kind_of_port_carry_tcp_and_small_packets() {
    // In the order in which the other driver is asked first for a new device.
    modprobe("vhost_vdpa");
    modprobe("--remove virtio_vdpa");
    modprobe(MODULES);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("pods.json");
    let said = run(&bench(&format!("--rounds 1 --json {}", json.display())));
    assert!(said.contains("VDUSE has"), "{said}");
    let results = results(&json);
    for subject in ["millrace", "millrace-vduse", "veth-bridge"] {
        for metric in ["gbps", "mpps"] {
            let rate = rate(&results, subject, metric);
            assert!(rate.is_some_and(|rate| rate > 0.0), "{subject}, {metric}: {results:?}");
        }
    }
    assert_nothing_left();
}

#[test]
fn a_failure_halfway_takes_down_what_was_made() {
    modprobe(MODULES);
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    // Fails where the second device is to be put onto the bus.
    let script =
        format!("#!/bin/sh\ncase \"$*\" in 'dev add'*pod1*) exit 7;; esac\nPATH={path} exec vdpa \"$@\"\n");
    let vdpa = folder.path().join("vdpa");
    fs::write(&vdpa, script).unwrap();
    fs::set_permissions(&vdpa, Permissions::from_mode(0o755)).unwrap();
    let error = attempt(&format!("env PATH={}:{path} {}", folder.path().display(), bench(""))).unwrap_err();
    assert!(error.contains("vdpa failed (exit status: 7)"), "{error}");
    assert_nothing_left();
}

#[test]
fn an_interruption_takes_down_devices_whose_switch_is_stopped() {
    modprobe(MODULES);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut child = start("--rounds 2", &log);
    let said = || fs::read_to_string(&log).unwrap();
    // Of three subjects, each of which is started before.
    wait_within(3 * PATIENCE, "a sample of each", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended: {}", said());
        said().contains("round 1 of 2").then_some(())
    });
    assert_eq!(names("/sys/bus/vdpa/devices").len(), 2);
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(said().contains("interrupted"), "{}", said());
    assert_nothing_left();
}

#[test]
fn a_kernel_without_vduse_is_measured_without_it_and_says_why() {
    modprobe(MODULES);
    modprobe("--remove virtio_vdpa vduse");
    let folder = tempfile::tempdir().unwrap();
    let (json, log) = (folder.path().join("pods.json"), folder.path().join("log"));
    let status = start(&format!("--rounds 1 --load udp --json {}", json.display()), &log).wait().unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(status.success() && said.contains("VDUSE ports is left out: module "), "{said}");
    assert_eq!(rate(&results(&json), "millrace-vduse", "mpps"), None);
    assert!(rate(&results(&json), "millrace", "mpps").is_some());
}
