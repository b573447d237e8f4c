//! Does the guest have what the tests of this shape build on?

use std::path::Path;

use vm::{modprobe, names, read, run, vdpa_netdev, write};

#[test]
fn vduse_when_loaded_has_its_control_device() {
    modprobe("vduse");
    assert!(Path::new("/dev/vduse/control").exists());
}

#[test]
fn vdpa_management_devices_are_those_of_vduse_and_the_simulator() {
    modprobe("vduse vdpa_sim_net");
    let devices = run("vdpa mgmtdev show");
    assert!(devices.contains("vduse:") && devices.contains("vdpasim_net:"), "{devices}");
}

#[test]
fn a_simulated_vdpa_device_when_virtio_vdpa_drives_it_has_a_netdev() {
    modprobe("vdpa_sim_net virtio_vdpa virtio_net");
    run("vdpa dev add name sim0 mgmtdev vdpasim_net mac 02:00:00:00:00:07");
    let name = vdpa_netdev("sim0");
    assert_eq!(read(format!("/sys/class/net/{name}/address")), "02:00:00:00:00:07");
    run("vdpa dev del sim0");
}

#[test]
fn netdevsim_in_switchdev_mode_has_representors_that_offload_flower_rules() {
    modprobe("netdevsim");
    write("/sys/bus/netdevsim/new_device", "1 1");
    let device = Path::new("/sys/bus/netdevsim/devices/netdevsim1");
    write(device.join("sriov_numvfs"), "2");
    run("devlink dev eswitch set netdevsim/netdevsim1 mode switchdev");
    let port_name = |netdev: &String| read(format!("/sys/class/net/{netdev}/phys_port_name"));
    let representor = |port: &str| names(device.join("net")).into_iter().find(|name| port_name(name) == port);
    let (first, second) = (representor("pf0vf0").unwrap(), representor("pf0vf1").unwrap());
    let switch = |netdev: &str| read(format!("/sys/class/net/{netdev}/phys_switch_id"));
    assert_eq!(switch(&first), switch(&second));
    run(&format!("tc qdisc add dev {first} clsact"));
    run(&format!(
        "tc filter add dev {first} ingress protocol ip flower skip_sw dst_ip 192.0.2.1 action drop"
    ));
    let rules = run(&format!("tc filter show dev {first} ingress"));
    assert!(rules.contains("in_hw"), "{rules}");
    write("/sys/bus/netdevsim/del_device", "1");
}

#[test]
fn vfio_without_an_iommu_when_asked_for_works() {
    modprobe("vfio");
    write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y");
}

#[test]
fn huge_pages_are_free_and_mounted() {
    let free: u32 = read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").parse().unwrap();
    assert!(free >= 128, "{free}");
    assert!(read("/proc/mounts").lines().any(|line| line.contains(" hugetlbfs ")));
}

#[test]
fn the_product_when_started_in_the_guest_says_its_version() {
    let said = run(&format!("{} --version", vm::program("millrace").display()));
    assert!(said.starts_with("millrace "), "{said}");
}
