//! How is a pod made for a measurement, and a program started in it?

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, ensure};
use lab::Netns;
use std::time::Duration;

/// The pods' addresses.
pub(crate) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 79, 0, 1), Ipv4Addr::new(10, 79, 0, 2)];
/// The pods' netdev.
pub(crate) const NETDEV: &str = "eth0";
/// Echo requests that show that a path works, and let a switch learn it.
const HELLOS: u32 = 3;
const HELLO_PATIENCE: Duration = Duration::from_secs(1);
/// How often the first of them may be lost while a switch comes to itself.
const ATTEMPTS: usize = 10;

/// A namespace without IPv6, whose announcements would be traffic of their own.
pub(crate) fn pod() -> anyhow::Result<Netns> {
    let pod = Netns::new().context("a network namespace for a pod cannot be made: run as root")?;
    pod.run(|| {
        for which in ["all", "default"] {
            // Absent where the kernel has no IPv6.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
        }
        Ok(())
    })?;
    Ok(pod)
}

/// Gives the pods' netdevs their addresses and sets them up.
pub(crate) fn configure(pods: &[Netns; 2]) -> anyhow::Result<()> {
    for (pod, address) in pods.iter().zip(ADDRESSES) {
        pod.ip(&format!("addr add {address}/24 dev {NETDEV}"))?;
        pod.ip(&format!("link set {NETDEV} up"))?;
    }
    Ok(())
}

/// Waits until the pods reach each other.
pub(crate) fn await_path(pods: &[Netns; 2]) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS {
        if lab::ping(&pods[0], ADDRESSES[1], HELLOS, HELLO_PATIENCE)?.lost() == 0 {
            return Ok(());
        }
    }
    ensure!(
        false,
        "the pods do not reach each other: does a firewall stand between namespaces of this machine?"
    );
    Ok(())
}

/// `program` inside `pod`, ended with the thread that starts it.
pub(crate) fn command(pod: &Netns, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "nsenter"]);
    command.arg(format!("--net={}", pod.path().display())).arg(program);
    // Ctrl-C is for the benchmark, which ends its programs itself.
    command.process_group(0);
    command
}
