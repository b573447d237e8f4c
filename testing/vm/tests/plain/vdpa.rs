//! Does crate `linux` do on the vDPA bus what it says? VDUSE's devices without anybody behind them, and the simulator's.

use lab::Netns;
use linux::Linux;
use reconcile::Kernel;
use reconcile::kernel::{ManagementDevice, NewVdpaDevice, Ownership, VdpaDriver};
use vduse::{Control, Device, DeviceConfig, DeviceId, DeviceName, VqConfig, VqGroups, feature};
use vm::{modprobe, run};
use wire::MacAddr;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const MODULES: &str = "vduse virtio_vdpa virtio_net vhost_vdpa";

fn simulated(name: &str) -> NewVdpaDevice {
    modprobe(MODULES);
    modprobe("vdpa_sim_net");
    let management = ManagementDevice { bus: None, name: "vdpasim_net".into() };
    NewVdpaDevice { name: name.into(), management, mac: Some(MAC), mtu_bytes: Some(1400) }
}

fn of_vduse(name: &str) -> NewVdpaDevice {
    NewVdpaDevice { name: name.into(), management: ManagementDevice::vduse(), mac: None, mtu_bytes: None }
}

/// A device of VDUSE that is ready for the bus, and held open by somebody who will answer nothing.
fn mute(name: &str) -> Device {
    modprobe(MODULES);
    let name = DeviceName::new(name).unwrap();
    let config = DeviceConfig {
        name: name.clone(),
        vendor_id: 0,
        device_id: DeviceId::NET,
        features: feature::VERSION_1 | feature::ACCESS_PLATFORM,
        vq_num: 2,
        vq_align: 4096,
        groups: VqGroups::ONE,
        config: vec![0; 12],
    };
    Control::open().unwrap().create_dev(&config).unwrap();
    let device = Device::open(&name).unwrap();
    (0..2).for_each(|index| device.vq_setup(VqConfig::new(index, 256)).unwrap());
    vduse::sysfs::set_msg_timeout_s(&name, 1).unwrap();
    device
}

#[test]
fn makers_and_devices_are_what_the_vdpa_program_lists() {
    Linux.put_vdpa_device(&simulated("listed")).unwrap();
    let makers = linux::vdpa::makers().unwrap();
    let names: Vec<_> = makers.iter().map(|maker| maker.management.to_string()).collect();
    assert_eq!(names.len(), run("vdpa mgmtdev show").lines().filter(|line| !line.starts_with(' ')).count());
    assert!(names.contains(&"vduse".to_owned()) && makers.iter().all(linux::vdpa::Maker::makes_net));
    let devices = linux::vdpa::devices().unwrap();
    let found = devices.iter().find(|device| device.name == "listed").unwrap();
    assert_eq!((found.class, found.management.name.as_str()), (1, "vdpasim_net"));
    Linux.delete_vdpa_device("listed").unwrap();
    assert_eq!(linux::vdpa::devices().unwrap(), []);
}

#[test]
fn a_device_goes_from_one_driver_to_the_other_and_back() {
    let device = simulated("both");
    for _ in 0..2 {
        Linux.put_vdpa_device(&device).unwrap();
    }
    let pod = Netns::new().unwrap();
    for _ in 0..2 {
        for _ in 0..2 {
            Linux.bind_vdpa_driver("both", VdpaDriver::Vhost).unwrap();
        }
        let found = Linux.vdpa_device("both").unwrap().unwrap();
        assert!(found.serves(VdpaDriver::Vhost) && !found.serves(VdpaDriver::Virtio), "{found:?}");
        let owner = Ownership { uid: 7, gid: 8, mode: 0o640 };
        let path = Linux.own_vhost_vdpa("both", owner).unwrap();
        let shown = run(&format!("stat --format=%u:%g:%a {}", path.display()));
        assert_eq!(shown.trim(), "7:8:640");

        Linux.bind_vdpa_driver("both", VdpaDriver::Virtio).unwrap();
        for _ in 0..2 {
            Linux.adopt_vdpa_netdev("both", &pod.path(), "eth0").unwrap();
        }
        let link = Linux.link(&pod.path(), "eth0").unwrap().unwrap();
        let virtio = Linux.vdpa_device("both").unwrap().unwrap().virtio;
        assert_eq!((link.mac, link.mtu_bytes), (MAC, 1400));
        assert!(virtio.is_some() && virtio == link.parent, "{virtio:?}, {link:?}");
    }
    // Another name in the same pod is a rename, a name that is taken an error that says so.
    Linux.adopt_vdpa_netdev("both", &pod.path(), "net1").unwrap();
    pod.ip("link add taken type veth peer name other").unwrap();
    let error = Linux.adopt_vdpa_netdev("both", &pod.path(), "taken").unwrap_err().to_string();
    assert!(error.contains("call it taken"), "{error}");
    for _ in 0..2 {
        Linux.delete_vdpa_device("both").unwrap();
    }
    assert_eq!(Linux.link(&pod.path(), "net1").unwrap(), None);
    assert_eq!(Linux.vdpa_device("both").unwrap(), None);
}

#[test]
fn a_netdev_whose_name_is_taken_on_both_sides_moves_all_the_same() {
    Linux.put_vdpa_device(&simulated("clash")).unwrap();
    Linux.bind_vdpa_driver("clash", VdpaDriver::Virtio).unwrap();
    let on_node = vm::vdpa_netdev("clash");
    let pod = Netns::new().unwrap();
    // The pod has a device of the name that ours has on the node.
    pod.ip(&format!("link add {on_node} type veth peer name other")).unwrap();
    Linux.adopt_vdpa_netdev("clash", &pod.path(), "net1").unwrap();
    assert_eq!(Linux.link(&pod.path(), "net1").unwrap().unwrap().mac, MAC);
    Linux.delete_vdpa_device("clash").unwrap();
}

#[test]
fn what_cannot_be_says_why_and_what_to_do() {
    let refused = |device: &NewVdpaDevice| Linux.put_vdpa_device(device).unwrap_err().to_string();
    let nobody = ManagementDevice { bus: Some("pci".into()), name: "0000:ff:00.0".into() };
    let error = refused(&NewVdpaDevice { management: nobody, ..simulated("none") });
    assert!(error.contains("by pci/0000:ff:00.0") && error.contains("vdpa mgmtdev show"), "{error}");
    let error = refused(&of_vduse("unborn"));
    assert!(error.contains("see its log"), "{error}");
    let device = mute("mute");
    let error = refused(&NewVdpaDevice { mac: Some(MAC), ..of_vduse("mute") });
    assert!(error.contains("does not take what was asked for"), "{error}");
    drop(device);
    Linux.destroy_vduse("mute").unwrap();
    // The kernel's family is to be found in the node's namespace only.
    let elsewhere = Netns::new().unwrap();
    let error = elsewhere.run(|| Ok(linux::vdpa::makers())).unwrap().unwrap_err().to_string();
    assert!(error.contains("run the agent with the node's network"), "{error}");
}

#[test]
fn a_device_that_nobody_answers_for_is_called_broken_and_can_be_removed() {
    let device = mute("mute");
    Linux.put_vdpa_device(&of_vduse("mute")).unwrap();
    let found = Linux.vdpa_device("mute").unwrap().unwrap();
    assert!(!found.serves(VdpaDriver::Virtio), "{found:?}");
    let pod = Netns::new().unwrap();
    let error = Linux.adopt_vdpa_netdev("mute", &pod.path(), "eth0").unwrap_err().to_string();
    assert!(error.contains("did not answer the kernel in time"), "{error}");
    Linux.delete_vdpa_device("mute").unwrap();
    let error = Linux.destroy_vduse("mute").unwrap_err().to_string();
    assert!(error.contains("still has it open"), "{error}");
    drop(device);
    for _ in 0..2 {
        Linux.destroy_vduse("mute").unwrap();
    }
    // The name is free.
    drop(mute("mute"));
    Linux.destroy_vduse("mute").unwrap();
}
