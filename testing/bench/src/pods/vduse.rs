//! Millrace between two pods by VDUSE: the kernel's own virtio driver makes their netdevs, on devices that the switch is.
//!
//! A port first makes its device in the kernel; `vdpa dev add` then puts that onto the vDPA bus, where the driver finds it
//! and makes a netdev, which moves into its pod. Nothing of this ends with a process, so it is taken down in the reverse
//! order, however far it came: off the bus while the switch still answers the kernel's questions (one that waits for an
//! answer for 30 s breaks its device, so a stopped switch goes on first), then the switch, then the devices.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::Netns;
use local_api::switch_v1 as api;
use serde_json::Value;
use vduse::{Control, DeviceName, Error};

use super::contender::{Contender, Link, Parts};
use super::millrace::port;
use crate::figures::say;
use crate::millrace_switch::SwitchProcess;
use crate::netns::{self, NETDEV};
use crate::process::output;

/// Devices of the vDPA bus.
const BUS: &str = "/sys/bus/vdpa/devices";
const PROBE: &str = "/sys/bus/vdpa/drivers_probe";
/// The driver that makes netdevs.
const DRIVER: &str = "virtio_vdpa";
/// How long a driver may take for a netdev.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why pods cannot be connected so on this machine, if they cannot. Nothing is changed.
pub(super) fn missing(program: &Path) -> Option<String> {
    let said = output(Command::new(program).args(["doctor", "--output", "json"]));
    match said.and_then(|findings| lacking(&findings)) {
        Ok(None) => vdpa(&["mgmtdev", "show"]).err().map(|error| format!("{error:#} (it is of iproute2)")),
        Ok(lacking) => lacking,
        Err(error) => Some(format!("`millrace doctor` says nothing of it: {error:#}")),
    }
}

/// What `millrace doctor` finds lacking, and what it says is to be done.
fn lacking(findings: &str) -> anyhow::Result<Option<String>> {
    let findings: Vec<Value> = serde_json::from_str(findings)?;
    let vduse = findings.iter().find(|finding| finding["name"] == "vduse").context("no finding `vduse`")?;
    let word = |key: &str| vduse[key].as_str().with_context(|| format!("no {key}"));
    Ok((word("verdict")? == "missing").then_some(format!("{} ({})", word("found")?, word("remedy")?)))
}

/// Starts `program switch` with its worker on `worker_cpu`, and connects two new pods by it.
pub(super) fn start(program: &Path, worker_cpu: usize, other_cpu: usize) -> anyhow::Result<Link> {
    // First, so that they go last.
    let pods = [netns::pod()?, netns::pod()?];
    let mut vduse = VduseSwitch {
        on_bus: Vec::new(),
        switch: SwitchProcess::start(program, worker_cpu, other_cpu)?,
        made: [Made(name(0)?), Made(name(1)?)],
    };
    let device = |made: &Made| api::port::Device::Vduse(api::VduseDevice { name: made.0.to_string() });
    let ports = vduse.made.iter().enumerate().map(|(index, made)| port(index, device(made))).collect();
    vduse.switch.add_ports(ports)?;
    for (Made(name), pod) in vduse.made.iter().zip(&pods) {
        vduse.on_bus.push(OnBus(name.clone()));
        vdpa(&["dev", "add", "name", name.as_str(), "mgmtdev", "vduse"])?;
        drive(name)?;
        hand_over(name, pod)?;
    }
    netns::configure(&pods)?;
    Ok(Link::new(Contender::MillraceVduse, vduse.switch.version(), Parts::MillraceVduse(vduse), pods))
}

/// A name that nobody else's device has: one that a killed benchmark left is not taken for ours.
fn name(index: usize) -> anyhow::Result<DeviceName> {
    Ok(DeviceName::new(format!("millrace-bench{}-pod{index}", std::process::id()))?)
}

/// Has the driver of netdevs take the device: where vhost_vdpa was loaded before it, that has taken it already.
fn drive(name: &DeviceName) -> anyhow::Result<()> {
    let device = Path::new(BUS).join(name.as_str());
    let driver = fs::read_link(device.join("driver")).ok();
    if driver.as_deref().and_then(Path::file_name).is_some_and(|driver| driver == DRIVER) {
        return Ok(());
    }
    let write = |file: &Path, text: &str| {
        fs::write(file, text).with_context(|| format!("{text} > {}", file.display()))
    };
    write(&device.join("driver_override"), DRIVER)?;
    if driver.is_some() {
        write(&device.join("driver/unbind"), name.as_str())?;
    }
    write(Path::new(PROBE), name.as_str())
}

/// Moves the netdev of device `name` into `pod`.
fn hand_over(name: &DeviceName, pod: &Netns) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let pod = pod.path().display().to_string();
    loop {
        if let Some(netdev) = netdev(&Path::new(BUS).join(name.as_str())) {
            let moved =
                output(Command::new("ip").args(["link", "set", &netdev, "netns", &pod, "name", NETDEV]));
            // The node may be giving it another name: then it is looked for again.
            match moved {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
        }
        ensure!(Instant::now() < deadline, "no driver makes a netdev of VDUSE device {name} in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The netdev of a device of the vDPA bus, whose folder of sysfs is `device`.
fn netdev(device: &Path) -> Option<String> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let virtio = names(device).into_iter().find(|name| name.starts_with("virtio"))?;
    names(&device.join(virtio).join("net")).into_iter().next()
}

/// Runs iproute2's `vdpa`. Ctrl-C is for the benchmark, which takes its devices down itself.
fn vdpa(words: &[&str]) -> anyhow::Result<String> {
    output(Command::new("vdpa").args(words).process_group(0))
}

/// A `millrace switch` and its devices.
#[derive(Debug)]
pub(crate) struct VduseSwitch {
    // In this order they go.
    on_bus: Vec<OnBus>,
    switch: SwitchProcess,
    made: [Made; 2],
}

impl VduseSwitch {
    pub(super) fn switch(&self) -> &SwitchProcess {
        &self.switch
    }

    pub(super) fn switch_mut(&mut self) -> &mut SwitchProcess {
        &mut self.switch
    }
}

impl Drop for VduseSwitch {
    fn drop(&mut self) {
        self.switch.process().resume();
        if self.switch.check().is_err() {
            // Nobody answers: the kernel need not wait.
            for Made(name) in &self.made {
                let _gone = vduse::sysfs::set_msg_timeout_s(name, 1);
            }
        }
    }
}

/// A device that may be on the vDPA bus, taken off when it is dropped, and its netdev with it.
#[derive(Debug)]
struct OnBus(DeviceName);

impl Drop for OnBus {
    fn drop(&mut self) {
        if Path::new(BUS).join(self.0.as_str()).exists()
            && let Err(error) = vdpa(&["dev", "del", self.0.as_str()])
        {
            say(&format!("{} stays on the vDPA bus: {error:#}", self.0));
        }
    }
}

/// A device that a port may have made, destroyed when it is dropped.
#[derive(Debug)]
struct Made(DeviceName);

impl Drop for Made {
    fn drop(&mut self) {
        match Control::open().and_then(|control| control.destroy_dev(&self.0)) {
            Ok(()) | Err(Error::NotFound(_)) => {}
            Err(error) => say(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lacking_when_doctor_misses_something_says_what_to_do() {
        let findings = |verdict: &str| {
            format!(
                r#"[{{"name": "tap"}}, {{"name": "vduse", "verdict": "{verdict}", "found": "module vduse is not loaded",
                "purpose": "netdevs", "remedy": "modprobe vduse"}}]"#
            )
        };
        let said = lacking(&findings("missing")).unwrap();
        assert_eq!(said.as_deref(), Some("module vduse is not loaded (modprobe vduse)"));
        assert_eq!(lacking(&findings("ok")).unwrap(), None);
        assert!(lacking("[]").is_err() && lacking("").is_err());
    }

    #[test]
    fn missing_when_the_program_cannot_be_asked_says_so() {
        assert!(missing(Path::new("/nowhere/millrace")).unwrap().contains("says nothing of it"));
    }

    #[test]
    fn netdev_when_the_driver_has_made_it_is_found() {
        let device = tempfile::tempdir().unwrap();
        assert_eq!(netdev(device.path()), None);
        fs::create_dir_all(device.path().join("power")).unwrap();
        fs::create_dir_all(device.path().join("virtio7")).unwrap();
        assert_eq!(netdev(device.path()), None);
        fs::create_dir_all(device.path().join("virtio7/net/eth3")).unwrap();
        assert_eq!(netdev(device.path()).as_deref(), Some("eth3"));
    }

    #[test]
    fn names_of_the_two_devices_differ() {
        assert_ne!(name(0).unwrap(), name(1).unwrap());
    }
}
