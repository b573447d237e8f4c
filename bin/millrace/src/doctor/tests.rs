//! A node made of files.

use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::findings::{self, Finding, NAMES, Verdict};
use super::node::Node;
use super::{DoctorArgs, check};

/// A node with files of these paths and texts.
fn node(files: &[(&str, &str)]) -> (TempDir, Node) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        put(root.path(), path, text);
    }
    let node = Node::at(root.path());
    (root, node)
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const RELEASE: (&str, &str) = ("/proc/sys/kernel/osrelease", "6.12.5-amd64\n");
const ALL_CAPABILITIES: (&str, &str) = ("/proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n");

fn find(node: &Node, name: &str) -> Finding {
    findings::all(node, Ok(())).into_iter().find(|finding| finding.name == name).unwrap()
}

#[test]
fn every_finding_has_its_name_and_what_does_not_work_a_remedy() {
    let (_root, empty) = node(&[]);
    let found = findings::all(&empty, Err(rustix::io::Errno::AFNOSUPPORT));
    assert_eq!(found.iter().map(|finding| finding.name).collect::<Vec<_>>(), NAMES);
    for finding in &found {
        assert_eq!(finding.verdict == Verdict::Ok, finding.remedy.is_empty(), "{finding:?}");
    }
    let works: Vec<_> = found.iter().filter(|finding| finding.verdict == Verdict::Ok).collect();
    assert!(works.is_empty(), "nothing works on a node without files: {works:?}");
}

#[test]
fn vduse_names_the_first_thing_that_is_missing() {
    let (root, node) = node(&[("/proc/sys/kernel/osrelease", "5.15.0-91-generic")]);
    let remedy = |node: &Node| find(node, "vduse").remedy;
    assert_eq!(remedy(&node), "Linux 6.9 or newer");
    put(root.path(), RELEASE.0, RELEASE.1);
    assert_eq!(find(&node, "vduse").found, "this kernel has no module vdpa");
    let modules = "kernel/drivers/vdpa/vdpa.ko.xz:\nkernel/drivers/virtio/virtio_vdpa.ko: kernel/drivers/vdpa/vdpa.ko.xz\n\
                   kernel/drivers/net/virtio_net.ko:\nkernel/drivers/vdpa/vdpa_user/vduse.ko.zst:\n";
    put(root.path(), "/lib/modules/6.12.5-amd64/modules.dep", modules);
    assert_eq!(remedy(&node), "modprobe vdpa");
    for module in ["vdpa", "vduse", "virtio_vdpa"] {
        std::fs::create_dir_all(root.path().join("sys/module").join(module)).unwrap();
    }
    assert_eq!(remedy(&node), "modprobe virtio_net");
    put(root.path(), "/lib/modules/6.12.5-amd64/modules.builtin", "kernel/drivers/net/virtio-net.ko\n");
    assert_eq!(remedy(&node), "mount the node's /dev");
    put(root.path(), "/dev/vduse/control", "");
    assert_eq!(find(&node, "vduse").verdict, Verdict::Ok);
}

#[test]
fn lacking_capabilities_are_named() {
    let (root, node) = node(&[("/proc/self/status", "CapEff:\t0000000000001000\n")]);
    assert_eq!(find(&node, "privileges").found, "without CAP_IPC_LOCK, CAP_SYS_ADMIN");
    put(root.path(), ALL_CAPABILITIES.0, ALL_CAPABILITIES.1);
    assert_eq!(find(&node, "privileges").verdict, Verdict::Ok);
}

#[test]
fn cards_with_sr_iov_are_listed_with_their_functions() {
    let card = "/sys/bus/pci/devices/0000:3b:00.0";
    let (root, node) = node(&[
        (&format!("{card}/class"), "0x020000\n"),
        (&format!("{card}/sriov_totalvfs"), "8\n"),
        (&format!("{card}/sriov_numvfs"), "0\n"),
        (&format!("{card}/net/ens1f0/address"), ""),
        ("/sys/bus/pci/devices/0000:01:00.0/class", "0x010802\n"),
        ("/sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs", "4\n"),
    ]);
    symlink("../../../bus/pci/drivers/ice", root.path().join(&card[1..]).join("driver")).unwrap();
    let finding = find(&node, "sriov");
    assert_eq!(finding.found, "0000:3b:00.0 ens1f0 (ice): 0 of 8 VFs");
    assert!(finding.verdict == Verdict::Limited && finding.remedy.contains("0000:3b:00.0"), "{finding:?}");
    put(root.path(), &format!("{card}/sriov_numvfs"), "4");
    assert_eq!(find(&node, "sriov").verdict, Verdict::Ok);
}

#[test]
fn huge_pages_switches_vdpa_devices_and_cgroups_are_told_as_they_are() {
    let (root, node) = node(&[
        ("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0"),
        ("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64"),
        ("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "60"),
        ("/sys/class/net/ens1f0/phys_switch_id", "2c9a"),
        ("/sys/class/net/rep0/phys_switch_id", "2c9a\n"),
        ("/sys/class/net/lo/phys_switch_id", ""),
        ("/sys/fs/cgroup/cpuset/tasks", ""),
        ("/sys/module/vdpa/refcnt", "0"),
        ("/sys/bus/vdpa/devices/a/uevent", ""),
        ("/sys/devices/system/cpu/online", "0-7\n"),
        ("/sys/devices/system/cpu/isolated", "2-3\n"),
    ]);
    symlink("../drivers/vhost_vdpa", root.path().join("sys/bus/vdpa/devices/a/driver")).unwrap();
    assert_eq!(find(&node, "hugepages").found, "64 of 2048 KiB (60 free), 0 of 1048576 KiB (0 free)");
    assert_eq!(find(&node, "switchdev").found, "2c9a: ens1f0 rep0");
    assert_eq!(find(&node, "vdpa").found, "a (vhost_vdpa)");
    assert_eq!(find(&node, "cpus").found, "online 0-7, isolated 2-3");
    assert_eq!(find(&node, "cgroups").verdict, Verdict::Limited);
    put(root.path(), "/sys/fs/cgroup/cgroup.controllers", "cpu");
    assert_eq!(find(&node, "cgroups").found, "version 2");
}

#[test]
fn a_need_that_is_not_met_is_an_error_with_its_remedy() {
    let (_root, node) = node(&[RELEASE, ("/dev/net/tun", "")]);
    let found = findings::all(&node, Ok(()));
    let need =
        |names: &[&str]| check(&found, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    need(&[]).unwrap();
    need(&["tap", "kernel", "af-xdp"]).unwrap();
    let error = need(&["tap", "iommu"]).unwrap_err().to_string();
    assert!(error.contains("iommu: no groups") && error.contains("intel_iommu=on"), "{error}");
}

#[test]
fn needs_are_names_of_findings() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: DoctorArgs,
    }
    use clap::Parser;
    assert_eq!(Cli::try_parse_from(["x", "--need", "tap,vduse"]).unwrap().args.need, ["tap", "vduse"]);
    assert!(Cli::try_parse_from(["x", "--need", "wings"]).is_err());
}
