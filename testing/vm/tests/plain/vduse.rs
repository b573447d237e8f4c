//! Does the crate `vduse` mean what the kernel means? Devices come, work, survive their process, break, and go.
mod card;
mod ring;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ::vduse::{
    Access, ApiVersion, ConfigProblem, Control, Device, DeviceConfig, DeviceId, DeviceName, Error, IovaRange,
    MAX_NAME_BYTES, ProtocolFeatures, QueueProblem, RegionProblem, RequestKind, Response, Status, Umem,
    UmemProblem, VqConfig, VqGroups, VqState, feature, sysfs,
};
use rustix::process::{Pid, Signal};
use vm::{attempt, modprobe, names, netdev, read, run, wait_for, write};

use card::{Card, Features, MAC, NET_FEATURES, RING_SIZE, RX, TX, create, destroy, name, net};
use ring::{Memory, Ring};

/// All that a test of this file builds on.
fn load() {
    modprobe("vduse virtio_vdpa virtio_net");
}

fn add(device: &str) {
    run(&format!("vdpa dev add name {device} mgmtdev vduse"));
}

/// Takes the device off the bus, and destroys it. Its card must be at work, to answer that it is reset.
fn remove(card: Card, device: &str) {
    run(&format!("vdpa dev del {device}"));
    card.end();
    destroy(device);
}

/// The virtio device that stands for `device` on its bus.
fn virtio_of(device: &str) -> Option<String> {
    names(Path::new("/sys/bus/vdpa/devices").join(device)).into_iter().find(|name| name.starts_with("virtio"))
}

/// The netdev that the kernel's driver made of `device`.
fn netdev_of(device: &str) -> String {
    let virtio = wait_for("a virtio device", || virtio_of(device));
    netdev(Path::new("/sys/bus/vdpa/devices").join(device).join(virtio))
}

/// Gives the netdev an address, and the card, which speaks no ARP, its own.
fn configure(netdev: &str) {
    run(&format!("ip addr add 192.0.2.1/24 dev {netdev}"));
    run(&format!("ip link set {netdev} up"));
    run(&format!("ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev {netdev} nud permanent"));
}

fn ping() -> Result<String, String> {
    attempt("ping -c 1 -W 10 192.0.2.2")
}

#[test]
fn a_device_when_created_is_listed_opened_by_one_and_destroyed_when_it_is_closed() {
    load();
    let control = Control::open().unwrap();
    assert_eq!(control.api_version(), ApiVersion::V0);
    assert!(matches!(control.destroy_dev(&name("one")), Err(Error::NotFound(_))));
    assert!(matches!(Device::open(&name("one")), Err(Error::NotFound(_))));
    control.create_dev(&net("one")).unwrap();
    assert_eq!(sysfs::list().unwrap(), [name("one")]);
    assert!(matches!(control.create_dev(&net("one")), Err(Error::Exists(_))));
    let device = Device::open(&name("one")).unwrap();
    assert!(matches!(Device::open(&name("one")), Err(Error::InUse(_))));
    assert!(matches!(control.destroy_dev(&name("one")), Err(Error::Busy(_))));
    assert!(device.try_read_request().unwrap().is_none() && !device.is_broken().unwrap());
    drop(device);
    // Another control device does as well.
    destroy("one");
    assert!(sysfs::list().unwrap().is_empty());
}

/// Set for a process that may not administer networks.
const UNPRIVILEGED: &str = "VDUSE_TEST_UNPRIVILEGED";

#[test]
fn what_is_missing_for_a_net_device_is_named() {
    if std::env::var_os(UNPRIVILEGED).is_some() {
        let refused = Control::open().unwrap().create_dev(&net("unprivileged"));
        return assert!(matches!(refused, Err(Error::NotNetAdmin)), "{refused:?}");
    }
    modprobe("--remove vduse");
    assert!(matches!(Control::open(), Err(Error::NoModule)));
    assert!(sysfs::list().unwrap().is_empty());
    load();
    let test = std::thread::current().name().unwrap().to_owned();
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
        .arg(std::env::current_exe().unwrap());
    let output = command.args([test.as_str(), "--exact"]).env(UNPRIVILEGED, "1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_descriptor_of_a_device_when_handed_over_is_known_by_its_name() {
    load();
    let device = create("handed");
    let same = Device::from_fd(device.into()).unwrap();
    assert_eq!(same.name(), &name("handed"));
    same.vq_get_info(RX).unwrap();
    let control = std::fs::File::open("/dev/vduse/control").unwrap();
    assert!(matches!(Device::from_fd(control.into()), Err(Error::NotADevice)));
    drop(same);
    destroy("handed");
}

#[test]
fn every_name_that_the_crate_takes_is_taken_by_the_kernel() {
    load();
    let control = Control::open().unwrap();
    let long = "x".repeat(MAX_NAME_BYTES);
    for text in [long.as_str(), "a", "a.b", "-", "ü", "..a", "a!b", "%d", "vduse"] {
        let config = net(text);
        control.create_dev(&config).unwrap();
        assert_eq!(sysfs::list().unwrap(), [DeviceName::new(text).unwrap()]);
        drop(Device::open(&config.name).unwrap());
        assert_eq!(sysfs::msg_timeout_s(&config.name).unwrap(), 30);
        control.destroy_dev(&config.name).unwrap();
    }
}

#[test]
fn a_configuration_when_refused_says_why() {
    load();
    let control = Control::open().unwrap();
    let features = net("bad").features;
    let block = DeviceConfig { device_id: DeviceId::BLOCK, ..net("bad") };
    let cases = [
        (
            DeviceConfig { features: features ^ feature::ACCESS_PLATFORM, ..net("bad") },
            ConfigProblem::AccessPlatform,
        ),
        (DeviceConfig { features: features ^ feature::VERSION_1, ..net("bad") }, ConfigProblem::Version1),
        (DeviceConfig { features: features | feature::NET_CTRL_VQ, ..net("bad") }, ConfigProblem::CtrlVq),
        (DeviceConfig { features: features | feature::BLK_CONFIG_WCE, ..block }, ConfigProblem::ConfigWce),
        (DeviceConfig { vq_align: 3000, ..net("bad") }, ConfigProblem::VqAlign(3000)),
        (DeviceConfig { vq_align: 8192, ..net("bad") }, ConfigProblem::VqAlign(8192)),
        (DeviceConfig { config: vec![0; 4097], ..net("bad") }, ConfigProblem::ConfigSize(4097)),
        (DeviceConfig { device_id: DeviceId(4), ..net("bad") }, ConfigProblem::DeviceId(DeviceId(4))),
    ];
    for (config, expected) in cases {
        match control.create_dev(&config) {
            Err(Error::Config { problem, .. }) => assert_eq!(problem, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
    // What is allowed to the last bit.
    for config in [DeviceConfig { vq_align: 4, config: vec![0; 4096], ..net("good") }, net("good")] {
        control.create_dev(&config).unwrap();
        control.destroy_dev(&config.name).unwrap();
    }
}

#[test]
fn a_device_before_it_has_a_driver_refuses_by_name_what_it_cannot_do() {
    load();
    let device = create("early");
    let queue = |result: Result<(), Error>| match result {
        Err(Error::Queue { index, problem }) => (index, problem),
        other => panic!("{other:?}"),
    };
    assert_eq!(queue(device.vq_setup(VqConfig::new(2, 16))), (2, QueueProblem::Setup));
    assert_eq!(
        queue(device.vq_setup(VqConfig { group: 1, ..VqConfig::new(RX, 16) })),
        (RX, QueueProblem::Setup)
    );
    assert_eq!(queue(device.vq_get_info(u32::MAX).map(drop)), (u32::MAX, QueueProblem::NoSuchQueue));
    let null = std::fs::File::open("/dev/null").unwrap();
    let null = std::os::fd::AsFd::as_fd(&null);
    assert_eq!(queue(device.vq_setup_kickfd(RX, Some(null))), (RX, QueueProblem::Kickfd));
    assert_eq!(queue(device.vq_setup_kickfd(7, None)), (7, QueueProblem::Kickfd));
    assert_eq!(queue(device.inject_vq_irq(RX)), (RX, QueueProblem::Interrupt));
    assert!(matches!(device.inject_config_irq(), Err(Error::NotDriverOk)));
    assert!(matches!(device.iotlb_get_fd(IovaRange::ALL, 0), Err(Error::NoRegion(IovaRange::ALL, 0))));
    assert!(matches!(device.iotlb_get_info(IovaRange::ALL, 0), Err(Error::NoRegion(..))));
    assert!(matches!(device.iotlb_get_info(IovaRange::ALL, 9), Err(Error::NoRegion(_, 9))));
    assert!(matches!(device.iotlb_get_fd(IovaRange::ALL, 1), Err(Error::Unsupported { .. })));
    let umem = Umem::anonymous(1 << 20).unwrap();
    assert!(matches!(device.reg_umem(&umem, 0, 0), Err(Error::Umem(UmemProblem::Invalid))));
    assert!(matches!(device.dereg_umem(0, 1 << 20, 0), Err(Error::Umem(UmemProblem::NotRegistered))));
    for (offset, bytes) in [(0, 0), (12, 1), (13, 0), (11, 2), (u32::MAX, 1)] {
        let result = device.set_config(offset, &vec![0; bytes]);
        assert!(matches!(result, Err(Error::ConfigSpace { .. })), "{offset} {bytes}: {result:?}");
    }
    device.set_config(11, &[0]).unwrap();
    let info = device.vq_get_info(TX).unwrap();
    assert_eq!((info.size, info.desc_addr, info.ready), (0, 0, false));
    assert_eq!(info.state(0), VqState::Split { avail_index: 0 });
    assert_eq!(device.features().unwrap(), 0);
    drop(device);
    destroy("early");
}

#[test]
fn settings_when_written_are_read_back_and_wrong_ones_are_refused_by_name() {
    load();
    let device = create("knobs");
    let name = device.name();
    assert_eq!(
        (sysfs::msg_timeout_s(name).unwrap(), sysfs::bounce_size_bytes(name).unwrap()),
        (30, 64 << 20)
    );
    sysfs::set_msg_timeout_s(name, 7).unwrap();
    sysfs::set_bounce_size_bytes(name, (2 << 20) + 1).unwrap();
    assert_eq!((sysfs::msg_timeout_s(name).unwrap(), sysfs::bounce_size_bytes(name).unwrap()), (7, 2 << 20));
    for wrong in [0, *sysfs::BOUNCE_SIZE_BYTES.start() - 1, *sysfs::BOUNCE_SIZE_BYTES.end() + 1] {
        assert!(matches!(sysfs::set_bounce_size_bytes(name, wrong), Err(Error::Setting { .. })), "{wrong}");
    }
    assert!(sysfs::irq_affinity(name, RX).unwrap().starts_with(&[0]));
    sysfs::set_irq_affinity(name, RX, &[0]).unwrap();
    assert_eq!(sysfs::irq_affinity(name, RX).unwrap(), [0]);
    assert!(matches!(sysfs::set_irq_affinity(name, RX, &[]), Err(Error::Setting { .. })));
    assert!(matches!(sysfs::irq_affinity(name, 2), Err(Error::Unsupported { .. })));
    let card = Card::start(device, Features::Accept);
    add("knobs");
    let late = sysfs::set_bounce_size_bytes(card.device().name(), 1 << 20);
    assert!(matches!(late, Err(Error::Setting { .. })), "{late:?}");
    remove(card, "knobs");
}

#[test]
fn a_net_device_on_the_bus_becomes_a_netdev_whose_pings_are_answered() {
    load();
    let card = Card::start(create("echo"), Features::Accept);
    add("echo");
    let netdev = netdev_of("echo");
    let running = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
    assert_eq!(running.bits(), 0x0f);
    wait_for("status 0x0f", || (card.status() == Some(running)).then_some(()));
    let features = card.device().features().unwrap();
    assert_eq!(features, feature::VERSION_1 | feature::ACCESS_PLATFORM | NET_FEATURES);
    let mut rings = Vec::new();
    for index in [RX, TX] {
        let info = card.device().vq_get_info(index).unwrap();
        assert_eq!((info.index, info.size, info.ready), (index, RING_SIZE.into(), true));
        assert!(
            info.desc_addr != 0 && info.driver_addr > info.desc_addr && info.device_addr > info.driver_addr
        );
        assert_eq!(info.state(features), VqState::Split { avail_index: 0 });
        let ring = card.device().iotlb_get_fd(IovaRange::with_len(info.desc_addr, 16).unwrap(), 0).unwrap();
        assert_eq!((ring.offset, ring.access), (ring.range.start(), Access::ReadWrite));
        let ring = ring.map().unwrap();
        ring.populate().unwrap();
        rings.push(ring);
    }
    assert_eq!(
        read(format!("/sys/class/net/{netdev}/address")),
        MAC.map(|byte| format!("{byte:02x}")).join(":")
    );
    // The bounce buffer comes with the first packet's buffer.
    let bounce = IovaRange::with_len(0, 64 << 20).unwrap();
    assert!(matches!(card.device().iotlb_get_fd(bounce, 0), Err(Error::NoRegion(..))));
    configure(&netdev);
    ping().unwrap_or_else(|error| panic!("{error}; the card: {:?}", card.seen().error));
    assert!(card.seen().kicks > 0 && card.seen().pings == 1);
    let info = card.device().iotlb_get_info(bounce, 0).unwrap();
    assert_eq!((info.range, info.takes_umem), (bounce, true));
    let entry = card.device().iotlb_get_fd(IovaRange::with_len(1 << 20, 1).unwrap(), 0).unwrap();
    assert_eq!((entry.range, entry.offset), (bounce, 0));
    // Most of its pages have never held a packet.
    let sparse = entry.map().unwrap().populate();
    assert!(matches!(sparse, Err(Error::Region(RegionProblem::Populate(_)))), "{sparse:?}");
    // No other address space, which is said in different ways.
    assert!(matches!(card.device().iotlb_get_fd(bounce, 1), Err(Error::Unsupported { .. })));
    assert!(matches!(card.device().iotlb_get_info(bounce, 1), Err(Error::NoRegion(_, 1))));
    // The ring's buffers were taken: more pings than it has entries.
    run(&format!("ping -q -c {} -i 0.002 -w 60 192.0.2.2", RING_SIZE * 2));
    assert!(card.seen().pings > RING_SIZE.into());
    remove(card, "echo");
    // Their pages stay, although the driver has given them back.
    for ring in rings {
        let mut bytes = vec![0; ring.len()];
        assert!(ring.read(ring.range().start(), &mut bytes));
    }
}

#[test]
fn a_configuration_change_when_injected_reaches_the_driver() {
    load();
    let card = Card::start(create("link"), Features::Accept);
    add("link");
    let netdev = netdev_of("link");
    configure(&netdev);
    let carrier = |wanted: &str| {
        let path = format!("/sys/class/net/{netdev}/carrier");
        wait_for("the carrier", || (std::fs::read_to_string(&path).ok()?.trim() == wanted).then_some(()));
    };
    carrier("1");
    const STATUS: u32 = 6;
    card.device().set_config(STATUS, &0u16.to_le_bytes()).unwrap();
    card.device().inject_config_irq().unwrap();
    carrier("0");
    card.device().set_config(STATUS, &1u16.to_le_bytes()).unwrap();
    card.device().inject_config_irq().unwrap();
    carrier("1");
    remove(card, "link");
}

#[test]
fn features_when_refused_keep_the_driver_away() {
    load();
    let card = Card::start(create("picky"), Features::Refuse);
    add("picky");
    let failed = |request: &RequestKind| matches!(request, RequestKind::SetStatus(status) if status.contains(Status::FAILED));
    wait_for("the driver to give up", || card.seen().requests.iter().any(failed).then_some(()));
    let requests = card.seen().requests.clone();
    let driver_ok = |request: &RequestKind| matches!(request, RequestKind::SetStatus(status) if status.contains(Status::DRIVER_OK));
    assert!(!requests.iter().any(driver_ok), "{requests:?}");
    assert!(
        !names(format!("/sys/bus/vdpa/devices/picky/{}", virtio_of("picky").unwrap()))
            .contains(&"net".into())
    );
    remove(card, "picky");
}

#[test]
fn memory_of_ours_when_registered_takes_the_packets() {
    load();
    const BYTES: usize = 4 << 20;
    let device = create("umem");
    sysfs::set_bounce_size_bytes(device.name(), BYTES as u32).unwrap();
    let card = Card::start(device, Features::Accept);
    add("umem");
    configure(&netdev_of("umem"));
    ping().unwrap();
    let wrong = card.register(Umem::anonymous(BYTES / 2).unwrap());
    assert!(matches!(wrong, Err(Error::Umem(UmemProblem::Invalid))), "{wrong:?}");
    card.register(Umem::anonymous(BYTES).unwrap()).unwrap();
    let second = card.device().reg_umem(&Umem::anonymous(BYTES).unwrap(), 0, 0);
    assert!(matches!(second, Err(Error::Umem(UmemProblem::Exists))), "{second:?}");
    ping().unwrap();
    card.deregister().unwrap();
    ping().unwrap();
    assert_eq!(card.seen().pings, 3);
    // Dropped while it is registered: closing the device gives the pages back.
    card.register(Umem::anonymous(BYTES).unwrap()).unwrap();
    remove(card, "umem");
}

/// Set for a process that is started to be killed: the name of the device that it serves.
const SERVED: &str = "VDUSE_TEST_SERVES";

/// Another process, which serves `device` until it is killed.
fn other_process(device: &str) -> Child {
    let test = std::thread::current().name().unwrap().to_owned();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test.as_str(), "--exact", "--nocapture"]).env(SERVED, device).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// In the other process: serves the device, and never returns.
fn serve_if_told() {
    if let Ok(device) = std::env::var(SERVED) {
        let device = wait_for("the device", || Device::open(&name(&device)).ok());
        let _card = Card::start(device, Features::Accept);
        loop {
            std::thread::park();
        }
    }
}

#[test]
fn a_device_whose_process_is_killed_goes_on_in_the_next_one() {
    serve_if_told();
    load();
    drop(create("phoenix"));
    let mut other = other_process("phoenix");
    add("phoenix");
    let netdev = netdev_of("phoenix");
    configure(&netdev);
    ping().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();

    // A packet that is sent, and kicked for, while nobody listens.
    let mut command = Command::new("ping");
    let mut waiting =
        command.args(["-c", "1", "-W", "25", "192.0.2.2"]).stdout(Stdio::null()).spawn().unwrap();
    let device = Device::open(&name("phoenix")).unwrap();
    assert_eq!(device.features().unwrap(), feature::VERSION_1 | feature::ACCESS_PLATFORM | NET_FEATURES);
    let info = device.vq_get_info(TX).unwrap();
    assert!(info.ready && info.size == u32::from(RING_SIZE) && info.desc_addr != 0, "{info:?}");
    // Where it began, not where it is.
    assert_eq!(info.state(0), VqState::Split { avail_index: 0 });
    let mut memory = Memory::default();
    let ring = Ring::new(&device, &mut memory, TX);
    assert!(ring.done() > 0);
    wait_for("a packet", || ring.has_more(&device, &mut memory).then_some(()));
    let card = Card::start(device, Features::Accept);
    assert!(waiting.wait().unwrap().success(), "the packet of the meantime was lost");
    ping().unwrap();
    assert!(card.seen().pings >= 2);
    remove(card, "phoenix");
}

#[test]
fn a_request_left_unanswered_is_asked_again_of_the_next_process() {
    load();
    let device = create("again");
    let adding = std::thread::spawn(|| add("again"));
    let request = device.read_request().unwrap();
    assert_eq!(request.kind(), RequestKind::SetStatus(Status::empty()));
    let id = request.id();
    drop((request, device));
    let device = Device::open(&name("again")).unwrap();
    let request = device.read_request().unwrap();
    assert_eq!((request.id(), request.kind()), (id, RequestKind::SetStatus(Status::empty())));
    // The wrong kind of response fails the request, and the driver with it, but nobody waits.
    let wrong = device.respond(request, Response::VqState(VqState::Split { avail_index: 0 }));
    assert!(matches!(wrong, Err(Error::WrongResponse(it)) if it == id), "{wrong:?}");
    let card = Card::start(device, Features::Accept);
    adding.join().unwrap();
    remove(card, "again");
}

#[test]
fn a_device_that_does_not_answer_in_time_is_broken_until_it_is_created_anew() {
    load();
    let device = create("wedged");
    sysfs::set_msg_timeout_s(device.name(), 1).unwrap();
    let adding = std::thread::spawn(|| attempt("vdpa dev add name wedged mgmtdev vduse"));
    let request = device.read_request().unwrap();
    let device = Arc::new(device);
    // Ends although nothing comes to read any more.
    let reader = {
        let device = device.clone();
        std::thread::spawn(move || device.read_request().map(|request| request.kind()))
    };
    assert!(matches!(reader.join().unwrap(), Err(Error::Broken(_))));
    assert!(device.is_broken().unwrap());
    assert!(matches!(device.respond(request, Response::Ok), Err(Error::Broken(_))));
    assert!(matches!(device.try_read_request(), Err(Error::Broken(_))));
    assert!(matches!(device.features(), Err(Error::Broken(_))));
    assert!(matches!(device.vq_get_info(RX), Err(Error::Broken(_))));
    assert!(matches!(device.inject_vq_irq(RX), Err(Error::Broken(_))));
    assert!(matches!(device.iotlb_get_fd(IovaRange::ALL, 0), Err(Error::Broken(_))));
    // Without a driver, and without an error.
    adding.join().unwrap().unwrap();
    assert!(names("/sys/bus/vdpa/devices").contains(&"wedged".into()));
    drop(device);
    // Broken for the next one too.
    assert!(Device::open(&name("wedged")).unwrap().is_broken().unwrap());
    run("vdpa dev del wedged");
    destroy("wedged");

    let card = Card::start(create("wedged"), Features::Accept);
    add("wedged");
    configure(&netdev_of("wedged"));
    ping().unwrap();
    remove(card, "wedged");
}

#[test]
fn a_request_whose_cause_was_killed_is_gone_and_the_device_goes_on() {
    load();
    let device = create("killed");
    let mut adding =
        Command::new("vdpa").args(["dev", "add", "name", "killed", "mgmtdev", "vduse"]).spawn().unwrap();
    let request = device.read_request().unwrap();
    adding.kill().unwrap();
    adding.wait().unwrap();
    let id = request.id();
    let late = device.respond(request, Response::Ok);
    assert!(matches!(late, Err(Error::RequestGone(it)) if it == id), "{late:?}");
    assert!(!device.is_broken().unwrap());
    let card = Card::start(device, Features::Accept);
    remove(card, "killed");
}

/// Takes the device from its netdev and offers it to programs: the file through which one can drive it.
fn offer(device: &str) -> String {
    modprobe("vhost_vdpa");
    let folder = Path::new("/sys/bus/vdpa/devices").join(device);
    write(folder.join("driver/unbind"), device);
    write(folder.join("driver_override"), "vhost_vdpa");
    write("/sys/bus/vdpa/drivers_probe", device);
    let file = wait_for("a file of vhost_vdpa", || {
        names(&folder).into_iter().find(|name| name.starts_with("vhost-vdpa-"))
    });
    format!("/dev/{file}")
}

/// A program that drives the device behind `file` of vhost_vdpa, sends one burst, and looks for more.
fn testpmd(file: &str) -> Child {
    let mut command = Command::new("dpdk-testpmd");
    command.args(["--lcores=0@0,1@1", "--no-pci", "--no-telemetry", "--in-memory", "-m", "64"]);
    // What vhost_vdpa needs of DPDK: its addresses, in few files.
    command.args(["--iova-mode=va", "--single-file-segments"]);
    command.arg(format!("--vdev=net_virtio_user0,path={file}"));
    command.args([
        "--",
        "--auto-start",
        "--tx-first",
        "--no-mlockall",
        "--total-num-mbufs=2048",
        "--stats-period=9",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_program_that_drives_the_device_through_vhost_vdpa_shares_memory_of_its_own() {
    const BURST: usize = 32;
    let test = "a_program_that_drives_the_device_through_vhost_vdpa_shares_memory_of_its_own";
    if !lab::require(test, lab::program("dpdk-testpmd")) {
        return;
    }
    load();
    let card = Card::start(create("shared"), Features::Accept);
    add("shared");
    netdev_of("shared");
    let file = offer("shared");
    let before = card.seen().requests.len();
    let mut testpmd = testpmd(&file);
    wait_for("packets of the program", || {
        assert_eq!(testpmd.try_wait().unwrap(), None);
        (card.seen().packets >= BURST).then_some(())
    });
    let info = card.device().vq_get_info(TX).unwrap();
    let entry = card.device().iotlb_get_fd(IovaRange::with_len(info.desc_addr, 16).unwrap(), 0).unwrap();
    // Huge pages, at the program's own addresses, from somewhere in its file.
    assert!(entry.range.bytes().unwrap() >= 2 << 20 && entry.offset != entry.range.start(), "{entry:?}");
    entry.map().unwrap().populate().unwrap();
    let info = card.device().iotlb_get_info(entry.range, 0).unwrap();
    assert_eq!((info.range, info.takes_umem), (entry.range, false));

    rustix::process::kill_process(Pid::from_child(&testpmd), Signal::TERM).unwrap();
    assert!(testpmd.wait().unwrap().success());
    wait_for("the reset", || (card.status() == Some(Status::empty())).then_some(()));
    let requests = card.seen().requests[before..].to_vec();
    let everything = RequestKind::UpdateIotlb { range: IovaRange::ALL, asid: 0 };
    for wanted in [everything, RequestKind::GetVqState { index: RX }, RequestKind::GetVqState { index: TX }] {
        assert!(requests.contains(&wanted), "{wanted:?} is not in {requests:?}");
    }
    remove(card, "shared");
}

#[test]
fn a_newer_interface_is_used_where_it_is_and_named_where_it_is_not() {
    load();
    // Features that are not chosen change nothing.
    let control = Control::open().unwrap();
    match control.protocol_features() {
        Ok(known) => {
            assert!(known.contains(ProtocolFeatures::QUEUE_READY));
            control.set_protocol_features(ProtocolFeatures::QUEUE_READY).unwrap();
        }
        Err(error) => assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
    }
    let unknown = control.set_protocol_features(ProtocolFeatures::from_bits_retain(1 << 63));
    assert!(matches!(unknown, Err(Error::Unsupported { .. })), "{unknown:?}");
    let two = VqGroups { groups: 2, address_spaces: 2 };
    let grouped = control.create_dev(&DeviceConfig { groups: two, ..net("v0") });
    assert!(matches!(grouped, Err(Error::Unsupported { .. })), "{grouped:?}");
    let control = match Control::open_with(ApiVersion::V1) {
        Err(error) => return assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
        Ok(control) => control,
    };
    version_1(&control, two);
}

/// A device with a group and an address space for each direction, and its driver.
fn version_1(control: &Control, two: VqGroups) {
    let none = VqGroups { groups: 1, address_spaces: 0 };
    let refused = control.create_dev(&DeviceConfig { groups: none, ..net("v1") });
    assert!(matches!(refused, Err(Error::Config { problem: ConfigProblem::Groups(_), .. })), "{refused:?}");
    let more =
        control.set_protocol_features(ProtocolFeatures::QUEUE_READY | ProtocolFeatures::SUSPEND).is_ok();
    control.create_dev(&DeviceConfig { groups: two, ..net("v1") }).unwrap();
    let device = Device::open(&name("v1")).unwrap();
    device.vq_setup(VqConfig::new(RX, RING_SIZE)).unwrap();
    let outside = device.vq_setup(VqConfig { group: 2, ..VqConfig::new(TX, RING_SIZE) });
    assert!(matches!(outside, Err(Error::Queue { problem: QueueProblem::Setup, .. })), "{outside:?}");
    device.vq_setup(VqConfig { group: 1, ..VqConfig::new(TX, RING_SIZE) }).unwrap();
    let card = Card::start(device, Features::Accept);
    add("v1");
    configure(&netdev_of("v1"));
    ping().unwrap();
    let ready = |request: &RequestKind| matches!(request, RequestKind::SetVqReady { ready: true, .. });
    assert_eq!(card.seen().requests.iter().any(ready), more);
    // A kernel driver has one address space only; the second is there, and empty.
    let bounce = card.device().iotlb_get_info(IovaRange::with_len(0, 1).unwrap(), 0).unwrap();
    assert_eq!(bounce.range.bytes(), Some(32 << 20));
    assert!(matches!(card.device().iotlb_get_fd(IovaRange::ALL, 1), Err(Error::NoRegion(_, 1))));
    assert!(matches!(card.device().iotlb_get_fd(IovaRange::ALL, 2), Err(Error::NoRegion(_, 2))));
    // Only vhost_vdpa has the commands for these.
    drive_through(&offer("v1"));
    let requests = card.seen().requests.clone();
    assert!(requests.contains(&RequestKind::SetVqGroupAsid { group: 1, asid: 1 }), "{requests:?}");
    assert_eq!(requests.contains(&RequestKind::Suspend), more, "{requests:?}");
    remove(card, "v1");
}

/// Moves the second group to the second address space, sets the status to DRIVER_OK, and suspends the device, with the ioctls
/// of include/uapi/linux/vhost.h; without rings.
fn drive_through(file: &str) {
    let script = r#"
        open(my $file, "+<", $ARGV[0]) or die "open: $!";
        sub call { my ($number, $arg) = @_; ioctl($file, $number, $arg) or die sprintf("%x: %s", $number, $!) }
        call(0xaf01, 0);                          # VHOST_SET_OWNER
        call(0x4008af7c, pack("LL", 1, 1));       # VHOST_VDPA_SET_GROUP_ASID
        for my $status (1, 3) { call(0x4001af72, pack("C", $status)) }  # VHOST_VDPA_SET_STATUS
        call(0x4008af00, pack("Q", 3 << 32));     # VHOST_SET_FEATURES
        for my $status (11, 15) { call(0x4001af72, pack("C", $status)) }
        ioctl($file, 0xaf7d, 0);                  # VHOST_VDPA_SUSPEND, which not all kernels have
    "#;
    let output = Command::new("perl").args(["-e", script, file]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
