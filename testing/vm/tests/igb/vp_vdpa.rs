//! Do functions of cards make vDPA devices, do these become netdevs of pods and files of programs, and go again?

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use lab::Netns;
use linux::Linux;
use linux::sriov::{PciAddress, bind_driver, can_vhost, vdpa_maker};
use linux::vdpa;
use reconcile::Kernel;
use reconcile::kernel::{NewVdpaDevice, Ownership, VdpaDriver};
use vm::{modprobe, names, netdev, read, run, wait_for};

use crate::card::assert_reaches;

const VDPA: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const PLAIN: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);

/// The two network cards of virtio 1.0, which are on one wire.
pub(crate) fn cards() -> [PciAddress; 2] {
    modprobe("vp_vdpa virtio_vdpa vhost_vdpa virtio_net");
    let folder = Path::new("/sys/bus/pci/devices");
    let is_card = |name: &String| {
        let id = |file| read(folder.join(name).join(file));
        id("vendor") == "0x1af4" && id("device") == "0x1041"
    };
    let cards: Vec<_> = names(folder).into_iter().filter(is_card).map(|name| name.parse().unwrap()).collect();
    cards.try_into().unwrap()
}

/// The netdev that virtio-pci's driver makes of a card.
pub(crate) fn own_netdev(card: PciAddress) -> String {
    let folder = PathBuf::from(format!("/sys/bus/pci/devices/{card}"));
    let is_virtio = |name: &String| name.starts_with("virtio");
    netdev(folder.join(wait_for("its virtio device", || names(&folder).into_iter().find(is_virtio))))
}

/// A card that vp-vdpa has; virtio-pci gets it back.
pub(crate) struct Given(pub(crate) PciAddress);

impl Drop for Given {
    fn drop(&mut self) {
        let _ = bind_driver(self.0, "virtio-pci");
    }
}

pub(crate) fn in_use(netns: &Netns, name: &str, ip: Ipv4Addr) {
    netns.ip(&format!("addr add {ip}/24 dev {name}")).unwrap();
    netns.ip(&format!("link set {name} up")).unwrap();
}

#[test]
fn a_vdpa_device_of_a_card_is_a_pods_netdev_then_a_file_then_a_netdev_again() {
    let [card, other] = cards();
    let (pod, peer) = (Netns::new().unwrap(), Netns::new().unwrap());
    run(&format!("ip link set {} netns {} name eth0", own_netdev(other), peer.path().display()));
    in_use(&peer, "eth0", PLAIN);

    let error = vdpa_maker(card).unwrap_err().to_string();
    assert!(error.contains("its driver is virtio-pci") && error.contains("vp-vdpa"), "{error}");
    bind_driver(card, "vp-vdpa").unwrap();
    let given = Given(card);
    let maker = vdpa_maker(card).unwrap();
    let device = NewVdpaDevice {
        name: format!("vdpa:{card}"),
        management: maker.management,
        mac: None,
        mtu_bytes: None,
    };
    for _ in 0..2 {
        Linux.put_vdpa_device(&device).unwrap();
    }
    let listed = vdpa::devices().unwrap();
    assert!(
        listed.iter().any(|one| one.name == device.name && one.management == device.management),
        "{listed:?}"
    );

    for round in 0..2 {
        Linux.bind_vdpa_driver(&device.name, VdpaDriver::Virtio).unwrap();
        Linux.adopt_vdpa_netdev(&device.name, &pod.path(), "net1").unwrap();
        Linux.adopt_vdpa_netdev(&device.name, &pod.path(), "net1").unwrap();
        let virtio = Linux.vdpa_device(&device.name).unwrap().unwrap().virtio.unwrap();
        let link = Linux.link(&pod.path(), "net1").unwrap().unwrap();
        assert_eq!(link.parent, Some(virtio), "round {round}");
        in_use(&pod, "net1", VDPA);
        assert_reaches(&pod, PLAIN);

        Linux.bind_vdpa_driver(&device.name, VdpaDriver::Vhost).unwrap();
        assert!(pod.ip("link show dev net1").is_err());
        let owner = Ownership { uid: 0, gid: 0, mode: 0o600 };
        let file = Linux.own_vhost_vdpa(&device.name, owner).unwrap();
        assert!(file.starts_with("/dev"), "{}", file.display());
        can_vhost(&file).unwrap();
        // A program that has it open keeps nobody from asking, and keeps the driver.
        let program = std::fs::File::open(&file).unwrap();
        can_vhost(&file).unwrap();
        let error = Linux.bind_vdpa_driver(&device.name, VdpaDriver::Virtio).unwrap_err().to_string();
        assert!(error.contains("a program has"), "{error}");
        drop(program);
    }
    Linux.delete_vdpa_device(&device.name).unwrap();
    Linux.delete_vdpa_device(&device.name).unwrap();
    assert_eq!(names("/sys/bus/vdpa/devices"), Vec::<String>::new());
    drop(given);
    own_netdev(card);
}
