//! What does a machine need before the tests can run, and is it there? Debian packages by name; nothing else is changed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{self, run};

/// A program that tests start, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("tcpdump", "tcpdump"),
    ("dpdk-testpmd", "dpdk"),
    ("ovs-vsctl", "openvswitch-switch-dpdk"),
    ("busybox", "busybox-static"),
    ("dhclient", "isc-dhcp-client"),
    ("rdisc6", "ndisc6"),
    ("sysctl", "procps"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("modprobe", "kmod"),
    ("setpriv", "util-linux"),
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("make", "make"),
];

/// Free huge pages of 2 MiB that the tests use: DPDK programs that share them with the switch.
const HUGE_PAGES: u64 = 64;
const HUGE_PAGES_FOLDER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Makes the machine fit for every test, as far as it may: what is missing then is said by the tests that need it.
pub(crate) fn prepare() -> Result<()> {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !on_path(program)).map(|(_, p)| *p).collect();
    if !is_root() {
        eprintln!("not root: nothing is prepared; missing packages: {}", missing.join(" "));
        return Ok(());
    }
    if !missing.is_empty() {
        apt(&["update", "--quiet"])?;
        let mut install = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
        install.extend(&missing);
        apt(&install)?;
    }
    huge_pages()?;
    lab()
}

/// Reserves huge pages where too few are free. They stay reserved, as a test machine's.
fn huge_pages() -> Result<()> {
    let read = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("{HUGE_PAGES_FOLDER}/{name}")).ok()?.trim().parse().ok()
    };
    let (Some(free), Some(total)) = (read("free_hugepages"), read("nr_hugepages")) else {
        eprintln!("this kernel has no huge pages of 2 MiB; the tests that need them say so");
        return Ok(());
    };
    if free < HUGE_PAGES {
        let wanted = total + HUGE_PAGES - free;
        std::fs::write(format!("{HUGE_PAGES_FOLDER}/nr_hugepages"), wanted.to_string())
            .context("huge pages")?;
    }
    Ok(())
}

/// The virtual machines of the lab: their kernel and QEMU. Taken as they are where this is not root.
pub(crate) fn lab() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let script = run::root().join("testing/lab/vm/prepare");
    run(&mut Command::new(script))
}

fn apt(args: &[&str]) -> Result<()> {
    run(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
        .context("Debian packages")
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(Path::new).map(Path::to_path_buf);
    std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(program).exists())
}
