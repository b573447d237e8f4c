//! Do programs get virtual functions by vfio, and does the node get them back as they were?

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use lab::Process;
use linux::sriov::{Restored, VfConfig, restore};
use serde_json::json;
use vm::{PATIENCE, SHARE, modprobe, run, write};

use crate::card::{Card, Pod, assert_reaches};

const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const PROGRAM: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PROGRAM_MAC: &str = "02:00:00:00:02:02";

fn config(json: serde_json::Value) -> VfConfig {
    serde_json::from_value(json).unwrap()
}

/// A DPDK program that answers every ping, on the function of this address.
fn testpmd(address: &str) -> Process {
    let words = format!(
        "-l 0-1 --in-memory -m 128 --iova-mode=va --file-prefix=vf -a {address} -- --forward-mode=icmpecho --auto-start \
         --no-lsc-interrupt --total-num-mbufs=2048"
    );
    let log = Path::new(SHARE).join("testpmd.log");
    let mut program = Process::start("dpdk-testpmd", words.split_whitespace(), &log).unwrap();
    let said = log.clone();
    let is_up =
        move || std::fs::read_to_string(&said).is_ok_and(|said| said.contains("Checking link statuses"));
    program.wait_until("its port is up", PATIENCE, is_up).unwrap();
    program
}

#[test]
fn a_dpdk_program_answers_a_netdev_and_its_function_comes_back_as_it_was() {
    modprobe("vfio-pci");
    let card = Card::new();
    let shown = card.shown();
    let (kernel, program) = (Pod::new(card.vf(0)), Pod::new(card.vf(1)));
    kernel.attach(KERNEL);
    program.vf.configure(&config(json!({"mac": PROGRAM_MAC}))).unwrap();
    let group = program.vf.bind_vfio().unwrap();
    assert_eq!(program.vf.bind_vfio().unwrap(), group);
    assert!(group.exists() && group.starts_with("/dev/vfio"), "{}", group.display());
    let mut testpmd = testpmd(&program.vf.address.to_string());
    kernel.netns().ip(&format!("neigh add {PROGRAM} lladdr {PROGRAM_MAC} dev eth0")).unwrap();
    assert_reaches(kernel.netns(), PROGRAM);
    // As long as it runs, it is not robbed, and stays under its settings.
    let during = card.shown();
    let done = program.del();
    assert!(
        done.errors.len() == 1 && done.errors[0].to_string().contains(&group.display().to_string()),
        "{done:?}"
    );
    assert!(done.errors[0].to_string().contains("fuser"), "{done:?}");
    assert!(program.vf.state().is_err());
    assert_eq!(card.shown(), during);
    testpmd.kill();
    program.assert_comes_back();
    kernel.assert_comes_back();
    assert_eq!(card.shown(), shown);
    // The kernel's driver works on it again.
    kernel.attach(KERNEL);
    program.attach(PROGRAM);
    assert_reaches(kernel.netns(), PROGRAM);
    program.assert_comes_back();
    kernel.assert_comes_back();
}

#[test]
fn vfio_when_it_is_not_loaded_names_the_command_and_changes_nothing() {
    let card = Card::new();
    let pod = Pod::new(card.vf(0));
    let _ = vm::attempt("modprobe --remove vfio-pci");
    let error = pod.vf.bind_vfio().unwrap_err().to_string();
    assert!(error.contains("modprobe vfio-pci"), "{error}");
    assert_eq!(pod.vf.state().unwrap(), pod.before);
}

#[test]
fn a_function_that_vfio_had_before_goes_back_to_vfio() {
    modprobe("vfio-pci");
    let card = Card::new();
    let first = Pod::new(card.vf(0));
    let group = first.vf.bind_vfio().unwrap();
    let second = Pod::new(card.vf(0));
    assert_eq!((second.before.driver.as_deref(), &second.before.netdev), (Some("vfio-pci"), &None));
    second.vf.configure(&config(json!({"vlan": 7}))).unwrap();
    assert_eq!(second.vf.bind_vfio().unwrap(), group);
    let error = second.vf.give_netdev(&second.place()).unwrap_err().to_string();
    assert!(error.contains("vfio-pci has it"), "{error}");
    second.assert_comes_back();
    // A driver may have come in between.
    let address = second.vf.address.to_string();
    write(card.function(0).join("driver/unbind"), &address);
    write(card.function(0).join("driver_override"), "\n");
    write("/sys/bus/pci/drivers/igbvf/bind", &address);
    second.assert_comes_back();
    first.assert_comes_back();
}

#[test]
fn functions_that_come_back_at_the_same_time_get_each_its_own_name() {
    modprobe("vfio-pci");
    let card = Card::new();
    let shown = card.shown();
    let pods = [Pod::new(card.vf(0)), Pod::new(card.vf(1))];
    // Their driver gives the first name that is free to the first that comes.
    for order in [[0, 1], [1, 0], [1, 0]] {
        pods.iter().for_each(|pod| drop(pod.vf.bind_vfio().unwrap()));
        std::thread::scope(|scope| {
            for pod in order {
                let pod = &pods[pod];
                scope.spawn(|| assert_eq!(pod.del(), Restored::default()));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        pods.iter().for_each(Pod::assert_comes_back);
        assert_eq!(card.shown(), shown);
    }
}

#[test]
fn a_function_that_is_removed_while_vfio_has_it_needs_nothing() {
    modprobe("vfio-pci");
    let card = Card::new();
    let pod = Pod::new(card.vf(1));
    pod.vf.bind_vfio().unwrap();
    card.remove_functions();
    let done = restore(pod.vf.address, &pod.before, None);
    assert!(done.errors.is_empty() && done.notes.len() == 1, "{done:?}");
    assert_eq!(run("ls /dev/vfio").trim(), "vfio");
}
