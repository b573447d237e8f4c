//! Does the guest have what the tests of this shape build on?

use std::path::{Path, PathBuf};

use vm::{modprobe, names, netdev, read, run, write};

/// The PCI devices that a driver has.
fn driven_by(driver: &str) -> Vec<PathBuf> {
    let folder = Path::new("/sys/bus/pci/drivers").join(driver);
    names(&folder).iter().filter(|name| name.contains(':')).map(|name| folder.join(name)).collect()
}

#[test]
fn igb_when_asked_for_virtual_functions_has_them_with_netdevs_and_iommu_groups() {
    modprobe("igb igbvf");
    let card = driven_by("igb").into_iter().next().unwrap();
    write(card.join("sriov_numvfs"), "2");
    let functions = [card.join("virtfn0"), card.join("virtfn1")];
    assert_ne!(netdev(&functions[0]), netdev(&functions[1]));
    let groups = functions.map(|function| function.join("iommu_group").canonicalize().unwrap());
    assert_ne!(groups[0], groups[1]);
    write(card.join("sriov_numvfs"), "0");
}

#[test]
fn vfio_when_loaded_has_its_device() {
    modprobe("vfio-pci");
    assert!(Path::new("/dev/vfio/vfio").exists());
}

#[test]
fn a_virtio_card_when_vp_vdpa_drives_it_is_a_vdpa_device_with_a_netdev() {
    modprobe("vp_vdpa virtio_vdpa virtio_net");
    // A PCI network card of virtio 1.0: device 0x1041.
    let is_card = |path: &PathBuf| read(path.join("device")) == "0x1041";
    let card = driven_by("virtio-pci").into_iter().find(is_card).unwrap().canonicalize().unwrap();
    let address = card.file_name().unwrap().to_str().unwrap();
    let give_to = |driver: &str| {
        write(card.join("driver/unbind"), address);
        write(card.join("driver_override"), driver);
        write("/sys/bus/pci/drivers_probe", address);
    };
    give_to("vp-vdpa");
    run(&format!("vdpa dev add name vp0 mgmtdev pci/{address}"));
    // The device of the bus hangs under its PCI device, and the virtio device under that.
    let virtio =
        vm::wait_for("a virtio device", || names(&card).into_iter().find(|n| n.starts_with("virtio")));
    netdev(card.join(virtio));
    run("vdpa dev del vp0");
    give_to("virtio-pci");
}
