//! Open vSwitch as another node: its user-space datapath, with tunnels of its own (not the kernel's) and one pod.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::{Netns, Process, program};
use tempfile::TempDir;

/// Time for its processes to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The part "Open vSwitch is installed".
pub(crate) fn ready() -> Result<(), String> {
    ["ovs-vsctl", "ovs-vswitchd", "ovsdb-server", "ovsdb-tool"].into_iter().try_for_each(program)?;
    if Path::new(SCHEMA).exists() { Ok(()) } else { Err(format!("{SCHEMA} is missing")) }
}

/// A tunnel as it is told to make it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geneve<'a> {
    pub(crate) remote: &'a str,
    pub(crate) vni: u32,
    /// The outer UDP checksum.
    pub(crate) checksum: bool,
}

/// A running Open vSwitch in a host's namespace, ended when it is dropped.
pub(crate) struct Ovs<'a> {
    // In this order: the switch ends before its database, and the folder goes last.
    switch: Process,
    _database: Process,
    host: &'a Netns,
    folder: TempDir,
}

impl<'a> Ovs<'a> {
    /// Takes `eth0` of `host` with its addresses, as a bridge in front of which tunnels end.
    pub(crate) fn start(host: &'a Netns, addresses: &[&str]) -> Self {
        let folder = TempDir::with_prefix("ovs-").unwrap();
        let database = start_database(folder.path());
        let log = folder.path().join("ovs-vswitchd.log");
        let inside = format!("--net={}", host.path().display());
        let mut args = vec![inside, "env".into()];
        args.extend(environment(folder.path()));
        let (socket, control) = (folder.path().join("db.sock"), folder.path().join("ctl"));
        args.extend(["ovs-vswitchd".into(), format!("unix:{}", socket.display())]);
        args.push(format!("--unixctl={}", control.display()));
        let switch = Process::start("nsenter", args, &log).unwrap();
        let mut ovs = Ovs { switch, _database: database, host, folder };
        ovs.switch.wait_until("it answers", PATIENCE, || control.exists()).unwrap();
        ovs.take_underlay(addresses);
        ovs.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev");
        ovs
    }

    /// The bridge keeps the device's station, so that nobody needs to learn another.
    fn take_underlay(&mut self, addresses: &[&str]) {
        let station = self.host.command("cat", "/sys/class/net/eth0/address").unwrap();
        self.host.ip("address flush dev eth0").unwrap();
        self.vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev other-config:hwaddr=\"{}\" -- add-port br-phy eth0",
            station.trim()
        ));
        for address in addresses {
            let words = if address.contains(':') { "nodad" } else { "" };
            self.host.ip(&format!("address add {address} dev br-phy {words}")).unwrap();
        }
        self.host.ip("link set br-phy up").unwrap();
    }

    /// A pod of its own: a TAP netdev, `eth0` in `pod`.
    pub(crate) fn add_pod(&self, pod: &Netns) {
        self.vsctl("add-port br-int pod -- set interface pod type=tap");
        self.host.ip(&format!("link set pod netns {} name eth0", pod.path().display())).unwrap();
    }

    /// Makes its tunnel be this one.
    pub(crate) fn set_tunnel(&self, tunnel: Geneve<'_>) {
        let Geneve { remote, vni, checksum } = tunnel;
        self.vsctl(&format!(
            "--may-exist add-port br-int tun -- set interface tun type=geneve options:remote_ip=\"{remote}\" \
             options:key={vni} options:csum={checksum}"
        ));
    }

    /// Tells its database, and waits until the switch has done it.
    fn vsctl(&self, words: &str) {
        vsctl(self.folder.path(), words);
    }
}

fn environment(folder: &Path) -> impl Iterator<Item = String> {
    ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"]
        .into_iter()
        .map(move |name| format!("{name}={}", folder.display()))
}

fn start_database(folder: &Path) -> Process {
    let (file, socket) = (folder.join("conf.db"), folder.join("db.sock"));
    run(Command::new("ovsdb-tool").arg("create").arg(&file).arg(SCHEMA));
    let mut args = environment(folder).collect::<Vec<_>>();
    args.extend(["ovsdb-server".into(), file.display().to_string()]);
    args.push(format!("--remote=punix:{}", socket.display()));
    args.push(format!("--unixctl={}", folder.join("db.ctl").display()));
    let mut database = Process::start("env", args, &folder.join("ovsdb-server.log")).unwrap();
    database.wait_until("it has its socket", PATIENCE, || socket.exists()).unwrap();
    vsctl(folder, "--no-wait init");
    database
}

fn vsctl(folder: &Path, words: &str) {
    let mut command = Command::new("env");
    command.args(environment(folder)).args(["ovs-vsctl", "--timeout=60"]);
    command.arg(format!("--db=unix:{}", folder.join("db.sock").display())).args(words.split_whitespace());
    run(&mut command);
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
