//! Do pods reach each other through ports of the kind `vduse`? The whole datapath in this process, the kernel's own
//! drivers and DPDK's at its other ends.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lab::{Netns, Process, iperf3, ping};
use ports::tap::{self, TapSpec};
use ports::vduse::{VduseControl, VduseSpec};
use ports::vhost_user::{Role, VhostUserControl, VhostUserSpec};
use vm::{PATIENCE, attempt, modprobe, names, netdev, read, run, wait_for, write};
use vswitch::Program;
use vswitch::program::{NetworkNo, NetworkSpec, PortNo, PortSpec, ProgramSpec, VlanMode};
use wire::MacAddr;
use worker::{Config, Datapath, Removal};

const MTU_BYTES: u16 = 1500;

fn mac(number: u8) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, number])
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// A switch with up to three ports on one network.
struct Switch {
    datapath: Datapath,
    vduse: VduseControl,
}

/// All that may forward: ports 1 to 3.
fn program() -> Arc<Program> {
    let network = NetworkSpec {
        number: NetworkNo(1),
        name: "lab".into(),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 64,
        gateway: None,
        dhcp: None,
        overlay: None,
    };
    let port = |number: u8| {
        let spec = PortSpec {
            number: PortNo(number.into()),
            name: format!("port{number}"),
            network: network.number,
            vlan: VlanMode::Access(None),
            macs: vec![mac(number)],
            ips: vec![address(number).into()],
            port_security: true,
            mac_limit: 4,
            isolated: false,
            mtu_bytes: MTU_BYTES.into(),
            policy: None,
        };
        (spec.number, spec)
    };
    let ports = (1..=3).map(port).collect();
    let spec = ProgramSpec {
        version: 1,
        networks: BTreeMap::from([(network.number, network.clone())]),
        ports,
        ..ProgramSpec::default()
    };
    Program::build(spec).unwrap()
}

impl Switch {
    /// With VDUSE ports of these numbers, which it opens before it forwards, as after a restart.
    fn start<const N: usize>(ports: [u8; N]) -> Self {
        modprobe("vduse virtio_vdpa virtio_net tun");
        let datapath = Datapath::start(&Config::on(vec![0])).unwrap();
        let switch = Self { datapath, vduse: VduseControl::start().unwrap() };
        ports.into_iter().for_each(|number| switch.open(number));
        switch.datapath.set_program(program());
        switch
    }

    /// Opens port `number` on the device of its name.
    fn open(&self, number: u8) {
        let spec = VduseSpec { name: name(number), mac: Some(mac(number)), mtu_bytes: MTU_BYTES };
        self.datapath.add_port(PortNo(number.into()), self.vduse.open(&spec).unwrap()).unwrap();
    }

    fn link(&self, number: u8) -> ports::Link {
        self.datapath.link(PortNo(number.into())).unwrap()
    }

    /// Removes port `number` for good.
    fn remove(&self, number: u8) {
        assert!(self.datapath.remove_port(PortNo(number.into()), Removal::Retire));
        assert!(!Path::new("/dev/vduse").join(name(number)).exists(), "the device outlives its port");
    }

    /// At rest, each frame has left by a port or for a reason.
    fn assert_balance(&self) {
        wait_for("every frame to have a fate", || self.datapath.counters().total.is_balanced().then_some(()));
    }
}

fn name(number: u8) -> String {
    format!("port{number}")
}

/// Puts the device of a port onto the bus, and the netdev that comes of it into a namespace of its own.
fn pod(number: u8) -> Netns {
    let device = name(number);
    // Not vhost_vdpa, if that was loaded first.
    write("/sys/bus/vdpa/drivers_autoprobe", "0");
    run(&format!("vdpa dev add name {device} mgmtdev vduse"));
    let folder = Path::new("/sys/bus/vdpa/devices").join(&device);
    write(folder.join("driver_override"), "virtio_vdpa");
    write("/sys/bus/vdpa/drivers_probe", &device);
    write("/sys/bus/vdpa/drivers_autoprobe", "1");
    let virtio =
        wait_for("a virtio device", || names(&folder).into_iter().find(|entry| entry.starts_with("virtio")));
    let netns = Netns::new().unwrap();
    run(&format!("ip link set {} netns {} name eth0", netdev(folder.join(virtio)), netns.path().display()));
    configure(&netns, number);
    netns
}

fn configure(netns: &Netns, number: u8) {
    netns.ip(&format!("addr add {}/24 dev eth0", address(number))).unwrap();
    netns.ip("link set eth0 up").unwrap();
}

/// Takes the device off the bus, and the port out of the switch.
fn remove(switch: &Switch, number: u8) {
    run(&format!("vdpa dev del {}", name(number)));
    switch.remove(number);
}

/// Pings until there is an answer: a program that is there may not work yet.
#[track_caller]
fn await_echo(from: &Netns, to: u8) {
    let once = || (ping(from, address(to), 1, Duration::from_secs(2)).unwrap().lost() == 0).then_some(());
    wait_for("an echo", once);
}

#[track_caller]
fn assert_reaches(from: &Netns, to: u8) {
    let report = ping(from, address(to), 5, PATIENCE).unwrap();
    assert_eq!(report.lost(), 0, "{report:?}");
}

fn testpmd(device: &str, folder: &Path) -> Process {
    let args = format!(
        "XDG_RUNTIME_DIR={folder} RUNTIME_DIRECTORY={folder} dpdk-testpmd --lcores=0@0,1@1 --no-pci --no-huge \
         --iova-mode=va -m128 --file-prefix=lab --vdev=net_virtio_user0,{device} -- \
         --nb-cores=1 --forward-mode=icmpecho --total-num-mbufs=4096 --auto-start",
        folder = folder.display()
    );
    Process::start("env", args.split_whitespace(), &folder.join("testpmd.log")).unwrap()
}

#[test]
fn netdevs_of_two_vduse_ports_ping_and_carry_tcp() {
    let switch = Switch::start([1, 2]);
    let pods = [1, 2].map(pod);
    assert_reaches(&pods[0], 2);
    assert_reaches(&pods[1], 1);
    let gbps = iperf3(&pods[0], &pods[1], address(2).into(), 16 << 10, Duration::from_secs(2)).unwrap();
    assert!(gbps > 0.0);
    let link = switch.link(1);
    assert!(link.up && link.detail.contains("HOST_TSO4"), "{link:?}");
    let shown = pods[0].ip("link show eth0").unwrap();
    assert!(shown.contains(&format!("link/ether {}", mac(1))) && shown.contains("mtu 1500"), "{shown}");
    let driver = pods[0].command("ethtool", "-i eth0").unwrap();
    assert!(driver.contains("driver: virtio_net") && driver.contains("bus-info: port1"), "{driver}");
    let shown = run("vdpa dev show port1");
    assert!(shown.contains("mgmtdev vduse") && shown.contains("type network"), "{shown}");
    // Segments cross whole: far fewer frames than the bytes fill.
    let counters = switch.datapath.counters().ports[&PortNo(1)];
    assert!(counters.rx_bytes > 2 * u64::from(MTU_BYTES) * counters.rx_frames, "{counters:?}");
    switch.assert_balance();
    [1, 2].into_iter().for_each(|number| remove(&switch, number));
}

#[test]
fn netdevs_of_a_vduse_port_and_a_tap_reach_each_other() {
    let switch = Switch::start([1]);
    let vduse = pod(1);
    let tap = Netns::new().unwrap();
    let spec = TapSpec {
        netns: Some(tap.path()),
        mac: Some(mac(2)),
        mtu_bytes: MTU_BYTES.into(),
        ..TapSpec::named("eth0")
    };
    switch.datapath.add_port(PortNo(2), tap::open(&spec).unwrap()).unwrap();
    configure(&tap, 2);
    assert_reaches(&vduse, 2);
    assert_reaches(&tap, 1);
    for (from, to, number) in [(&vduse, &tap, 2), (&tap, &vduse, 1)] {
        iperf3(from, to, address(number).into(), 16 << 10, Duration::from_secs(1)).unwrap();
    }
    switch.assert_balance();
    remove(&switch, 1);
}

#[test]
fn a_vduse_netdev_pings_a_dpdk_program_behind_a_vhost_user_port() {
    let switch = Switch::start([1]);
    let pod = pod(1);
    let folder = tempfile::tempdir().unwrap();
    let socket_path = folder.path().join("socket");
    let spec = VhostUserSpec {
        socket_path: socket_path.clone(),
        role: Role::Create { uid: 0, gid: 0, mode: 0o600 },
        queue_pairs: 1,
        mac: Some(mac(3)),
        mtu_bytes: MTU_BYTES,
    };
    let vhost: Arc<VhostUserControl> = VhostUserControl::start().unwrap();
    switch.datapath.add_port(PortNo(3), vhost.open(spec).unwrap()).unwrap();
    let device = format!("path={},mac={}", socket_path.display(), mac(3));
    let mut testpmd = testpmd(&device, folder.path());
    testpmd.wait_until("the port is up", PATIENCE, || switch.link(3).up).unwrap();
    pod.ip(&format!("neigh replace {} lladdr {} dev eth0 nud permanent", address(3), mac(3))).unwrap();
    await_echo(&pod, 3);
    assert_reaches(&pod, 3);
    remove(&switch, 1);
}

#[test]
fn a_dpdk_program_drives_a_vduse_port_by_vhost_vdpa_and_is_pinged() {
    let switch = Switch::start([1, 3]);
    modprobe("vhost_vdpa");
    let pod = pod(1);
    write("/sys/bus/vdpa/drivers_autoprobe", "0");
    run("vdpa dev add name port3 mgmtdev vduse");
    write("/sys/bus/vdpa/devices/port3/driver_override", "vhost_vdpa");
    write("/sys/bus/vdpa/drivers_probe", "port3");
    write("/sys/bus/vdpa/drivers_autoprobe", "1");
    let node = wait_for("a vhost-vdpa device", || {
        names("/sys/bus/vdpa/devices/port3").into_iter().find(|entry| entry.starts_with("vhost-vdpa-"))
    });
    let folder = tempfile::tempdir().unwrap();
    let mut testpmd = testpmd(&format!("path=/dev/{node},mac={}", mac(3)), folder.path());
    testpmd.wait_until("the port is up", PATIENCE, || switch.link(3).up).unwrap();
    pod.ip(&format!("neigh replace {} lladdr {} dev eth0 nud permanent", address(3), mac(3))).unwrap();
    await_echo(&pod, 3);
    assert_reaches(&pod, 3);
    drop(testpmd);
    wait_for("the port notices", || (!switch.link(3).up).then_some(()));
    [1, 3].into_iter().for_each(|number| remove(&switch, number));
}

#[test]
fn a_vduse_port_when_closed_and_opened_again_loses_no_ping_and_no_connection() {
    let first = Switch::start([1, 2]);
    let pods = [1, 2].map(pod);
    assert_reaches(&pods[0], 2);
    // As a kill leaves it: descriptors closed, devices and netdevs there.
    let reopen = |mut switch: Switch| {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(500));
            drop(switch);
            std::thread::sleep(Duration::from_millis(300));
            switch = Switch::start([1, 2]);
        }
        switch
    };
    let second = std::thread::scope(|scope| {
        let pings = scope.spawn(|| ping(&pods[0], address(2), 500, PATIENCE).unwrap());
        let switch = reopen(first);
        assert_eq!(pings.join().unwrap().lost(), 0);
        switch
    });
    let last = std::thread::scope(|scope| {
        let stream = scope
            .spawn(|| iperf3(&pods[1], &pods[0], address(1).into(), 4096, Duration::from_secs(4)).unwrap());
        let switch = reopen(second);
        assert!(stream.join().unwrap() > 0.0);
        switch
    });
    [1, 2].into_iter().for_each(|number| remove(&last, number));
}

#[test]
fn a_broken_device_says_so_and_its_name_is_opened_anew() {
    let switch = Switch::start([1]);
    let pod = pod(1);
    drop(switch);
    // Nobody answers the reset: the kernel gives the device up.
    write("/sys/class/vduse/port1/msg_timeout", "1");
    run("vdpa dev del port1");
    drop(pod);
    let switch = Switch::start([1]);
    assert!(attempt("vdpa dev show port1").is_err());
    let link = switch.link(1);
    assert!(!link.up && link.detail.contains("no driver"), "{link:?}");
    let pods = self::pod(1);
    assert!(wait_for("the port is up", || switch.link(1).up.then_some(true)));
    drop(pods);
    remove(&switch, 1);
    assert_eq!(read("/sys/module/vduse/refcnt"), "0");
}
