//! A `millrace switch` process, told what to be as the agent tells it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lab::{Netns, Process, require};
use local_api::switch_v1::switch_client::SwitchClient;
use local_api::switch_v1::{
    ApplyRequest, Counters, InfoRequest, ListPortsRequest, Network, Port, PortState, TapDevice,
    VhostUserDevice, port,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// For everything that must come: emulated machines are slow, and tests run side by side.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Held by each test: the peers poll or are emulated, so that two at a time would starve each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A switch in a directory of its own.
pub(crate) struct Switch {
    process: Process,
    folder: TempDir,
    runtime: Runtime,
    client: SwitchClient<Channel>,
    /// The network namespace that it runs in, if that is not the caller's.
    netns: Option<PathBuf>,
    /// What it was last told to have, to be told again after a restart.
    ports: Vec<Port>,
}

impl Switch {
    /// Starts a switch without ports.
    pub(crate) fn start() -> Self {
        Self::run(None)
    }

    /// The same inside `netns`, which is to live longer.
    #[allow(dead_code, reason = "for some of the tests that share this")]
    pub(crate) fn start_in(netns: &Netns) -> Self {
        Self::run(Some(netns.path()))
    }

    fn run(netns: Option<PathBuf>) -> Self {
        let folder = TempDir::with_prefix("millrace-").unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = {
            let _inside = runtime.enter();
            SwitchClient::new(local_api::uds::channel(&folder.path().join("switch.sock")))
        };
        let process = run(folder.path(), netns.as_deref());
        let mut switch = Self { process, folder, runtime, client, netns, ports: vec![] };
        switch.wait_until_ready();
        switch
    }

    fn wait_until_ready(&mut self) {
        let Self { process, runtime, client, .. } = self;
        let answers = || runtime.block_on(client.info(InfoRequest {})).is_ok();
        process.wait_until("the switch answers", PATIENCE, answers).unwrap();
    }

    /// A path for a socket, short enough for `sun_path`.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the switch have exactly `ports`, all in one network.
    pub(crate) fn apply(&mut self, ports: Vec<Port>) {
        self.ports = ports;
        let network = Network {
            number: 1,
            name: "lab".into(),
            flood_unknown: true,
            mac_age_ms: 300_000,
            mac_limit: 100,
            gateway: None,
            dhcp: None,
            overlay: None,
            localnet: None,
        };
        let request = ApplyRequest {
            from_version: 0,
            to_version: 1,
            put_networks: vec![network],
            put_ports: self.ports.clone(),
            ..ApplyRequest::default()
        };
        let response = self.runtime.block_on(self.client.apply(request)).unwrap().into_inner();
        for port in response.ports {
            assert_eq!(port.error, "", "port {}", port.number);
        }
    }

    /// Kills the switch at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the switch at once (SIGKILL), starts another, and tells it what the first one knew.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.process = run(self.folder.path(), self.netns.as_deref());
        self.wait_until_ready();
        self.apply(self.ports.clone());
    }

    fn list(&mut self) -> (Vec<PortState>, Counters) {
        let answer = self.runtime.block_on(self.client.list_ports(ListPortsRequest {})).unwrap().into_inner();
        (answer.ports, answer.total.unwrap_or_default())
    }

    /// The state of port `number`.
    pub(crate) fn port(&mut self, number: u32) -> PortState {
        let is_it = |state: &PortState| state.port.as_ref().is_some_and(|port| port.number == number);
        self.list().0.into_iter().find(is_it).unwrap()
    }

    /// The counters of port `number`.
    pub(crate) fn counters(&mut self, number: u32) -> Counters {
        self.port(number).counters.unwrap_or_default()
    }

    /// Waits until `ready`, which may ask this switch.
    pub(crate) fn wait_until(&mut self, what: &str, mut ready: impl FnMut(&mut Self) -> bool) {
        #[allow(clippy::disallowed_methods, reason = "a deadline")]
        let start = std::time::Instant::now();
        while !ready(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "not in time: {what}; the switch said:\n{}",
                self.process.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every frame that came in has its end. Asked until a quiet moment.
    pub(crate) fn assert_balance(&mut self) {
        self.wait_until("rx + copies == tx + drops", |switch| {
            let total = switch.list().1;
            total.rx_frames + total.copies == total.tx_frames + total.drops.values().sum::<u64>()
        });
    }
}

fn run(folder: &Path, netns: Option<&Path>) -> Process {
    let program = OsStr::new(env!("CARGO_BIN_EXE_millrace"));
    let args = [program, "switch".as_ref(), "--run-dir".as_ref(), folder.as_os_str()];
    let log = folder.join("switch.log");
    match netns {
        None => Process::start(program, &args[1..], &log).unwrap(),
        Some(netns) => {
            let inside = OsString::from(format!("--net={}", netns.display()));
            let args: Vec<&OsStr> = [inside.as_os_str()].into_iter().chain(args).collect();
            Process::start("nsenter", args, &log).unwrap()
        }
    }
}

/// The address of the station behind port `number`.
pub(crate) fn mac(number: u32) -> String {
    format!("02:00:00:00:0a:{number:02x}")
}

/// A port on `device`.
pub(crate) fn port(number: u32, device: port::Device) -> Port {
    Port {
        number,
        name: format!("port-{number}"),
        network: 1,
        macs: vec![mac(number)],
        mac_limit: 16,
        mtu_bytes: 1500,
        device: Some(device),
        ..Port::default()
    }
}

/// A TAP port whose netdev is `eth0` of `pod`.
pub(crate) fn tap(number: u32, pod: &Netns) -> Port {
    let device =
        TapDevice { netns: pod.path().to_string_lossy().into_owned(), netdev: "eth0".into(), queues: 1 };
    port(number, port::Device::Tap(device))
}

/// Who makes a vhost-user port's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeBy {
    Switch,
    Peer,
}

/// A vhost-user port.
pub(crate) fn vhost_user(number: u32, socket: &Path, made_by: MadeBy) -> Port {
    let device = VhostUserDevice {
        socket_path: socket.to_string_lossy().into_owned(),
        connect: made_by == MadeBy::Peer,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        mode: 0o600,
        queues: 1,
    };
    port(number, port::Device::VhostUser(device))
}

/// A pod of a test, or `None` with the reason said.
pub(crate) fn pod(test: &str) -> Option<Netns> {
    match Netns::new() {
        Ok(pod) => Some(pod),
        Err(error) => {
            let _ = require(test, Err(format!("no network namespace can be made: {error}")));
            None
        }
    }
}
