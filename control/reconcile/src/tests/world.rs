//! A node whose kernel, switch, IPAM plugin and disk are plain data, with one fuse for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use model::{DeviceDriver, DeviceRequest, KindChoice, MacAddr, Networks, PciAddress, PortKind};
use vswitch::program::{NetworkNo, PolicyNo, PortNo, ServiceNo, ServiceSpec};

use super::fake_cards::{CARD, SWITCHED, THERE, VFS, Vf, pci, representors, there, vfs};
use crate::cards::{Representor, VdpaState};
use crate::datapath::{
    Applied, Datapath, DatapathError, Device, Port, SwitchInfo, Take, Update, VhostUserRole,
};
use crate::delegate::{Delegate, DelegateError, Leased};
use crate::kernel::{
    HostRules, Kernel, KernelError, LinkConfig, LinkState, NewVdpaDevice, NextHop, Ownership, Route,
    VdpaDevice, VdpaDriver,
};
use crate::record::{Address, Delegation};
use crate::store::Store;
use crate::{AddRequest, Engine, Layout, Rim, StoreError};

/// What happens at the step that the fuse is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The agent is killed before the step: it and all later steps do not happen.
    KillBefore,
    /// The agent is killed after the step, before it learns of it.
    KillAfter,
    /// The step alone fails, without effect.
    FailBefore,
    /// The step alone reports a failure, but has its effect.
    FailAfter,
    /// The switch loses its program before the step.
    RestartSwitch,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) netns: BTreeSet<PathBuf>,
    pub(crate) links: BTreeMap<(PathBuf, String), LinkState>,
    pub(crate) dirs: BTreeSet<PathBuf>,
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    pub(crate) mounts: BTreeMap<PathBuf, PathBuf>,
    pub(crate) ports: BTreeMap<PortNo, Port>,
    pub(crate) networks: BTreeSet<NetworkNo>,
    pub(crate) policies: BTreeSet<PolicyNo>,
    pub(crate) services: BTreeMap<ServiceNo, ServiceSpec>,
    /// The last update that was everything.
    pub(crate) everything: Update,
    /// What the node's kernel translates.
    pub(crate) host_rules: Option<HostRules>,
    /// The ways to other nodes that the kernel knows.
    pub(crate) next_hops: BTreeMap<IpAddr, NextHop>,
    pub(crate) leases: BTreeMap<(String, String), IpAddr>,
    pub(crate) vduse: BTreeMap<String, Vduse>,
    pub(crate) vdpa: BTreeMap<String, Vdpa>,
    pub(crate) vfs: BTreeMap<PciAddress, Vf>,
    pub(crate) representors: BTreeMap<PciAddress, Representor>,
    /// The numbers of the representors that ports are open on.
    pub(crate) taken: BTreeMap<PortNo, u32>,
    pub(crate) no_iommu: bool,
    /// Why the kernel has no VDUSE.
    pub(crate) no_vduse: Option<String>,
    pub(crate) switch_away: bool,
    /// Programs that have a file open.
    pub(crate) opened: BTreeSet<PathBuf>,
    pub(crate) serial: usize,
    version: u64,
    instance: u64,
    disk: Vec<u8>,
    fuse: Option<(usize, Blow)>,
    steps: usize,
    dead: bool,
}

/// A device of VDUSE.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vduse {
    /// The switch has it open and answers.
    pub(crate) served: bool,
    /// A message was not answered in time.
    pub(crate) broken: bool,
}

/// A device on the vDPA bus.
#[derive(Debug, Clone)]
pub(crate) struct Vdpa {
    pub(super) driver: VdpaDriver,
    pub(crate) driver_override: Option<String>,
    pub(super) serial: usize,
    /// The function of a card that it is of; none: it is of VDUSE.
    pub(crate) function: Option<PciAddress>,
    pub(crate) mac: MacAddr,
    /// It has no netdev and no file: it was broken when it was bound.
    pub(super) dead: bool,
    /// The namespace its netdev is in, none: the node's; and its name there.
    pub(crate) place: (Option<PathBuf>, String),
}

impl Vdpa {
    pub(crate) fn new(serial: usize, driver: VdpaDriver, dead: bool) -> Self {
        let (place, mac) = ((None, format!("eth{serial}")), MacAddr([2, 0, 0, 7, 0, 1]));
        Self { driver, driver_override: None, serial, function: None, mac, dead, place }
    }

    pub(crate) fn state(&self) -> VdpaState {
        let driver_override = self.driver_override.clone();
        VdpaState { driver: Some(self.driver), driver_override, netdev: None }
    }

    fn view(&self) -> VdpaDevice {
        let made = |driver, made: String| (self.driver == driver && !self.dead).then_some(made);
        VdpaDevice {
            driver: Some(self.driver),
            virtio: made(VdpaDriver::Virtio, format!("virtio{}", self.serial)),
            path: made(VdpaDriver::Vhost, self.path()).map(PathBuf::from),
        }
    }

    fn path(&self) -> String {
        format!("/dev/vhost-vdpa-{}", self.serial)
    }
}

/// A node. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct World(Arc<Mutex<State>>);

const NETWORKS: &str = r#"
networks:
  - name: blue
    subnets:
      - {subnet: 10.1.0.0/29, gateway: 10.1.0.1}
      - {subnet: "fd00:1::/64"}
    routes: [{dst: 0.0.0.0/0}]
    portKind: tap
    mtu: 9000
    vlan: 7
    dns: {nameservers: [10.1.0.53]}
  - name: plain
"#;

impl World {
    /// A node with the network namespaces `/ns/0` to `/ns/63` and a volume for pod `uid-0`.
    pub(crate) fn new() -> Self {
        let world = Self::default();
        let mut state = world.state();
        state.netns = (0..64).map(|n| PathBuf::from(format!("/ns/{n}"))).collect();
        state.dirs.insert(VOLUME.into());
        state.vfs = vfs();
        state.representors = representors();
        state.vdpa.insert(THERE.to_owned(), there());
        drop(state);
        world
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// An agent on this node, as at its start.
    pub(crate) fn agent(&self) -> Result<Engine, StoreError> {
        self.agent_with(NETWORKS)
    }

    pub(crate) fn agent_with(&self, networks: &str) -> Result<Engine, StoreError> {
        self.agent_of("", networks)
    }

    /// The agent of the node of that name.
    pub(crate) fn agent_of(&self, node: &str, networks: &str) -> Result<Engine, StoreError> {
        let disk = self.clone();
        let open = Box::new(move || redb::Builder::new().create_with_backend(Disk(disk.clone())));
        let path = Path::new("/state/agent.redb");
        let rim = Rim {
            kernel: Arc::new(self.clone()),
            datapath: Arc::new(self.clone()),
            delegate: Arc::new(self.clone()),
        };
        let layout = Layout { vhost_dir: "/run/vhost".into(), kubelet_dir: "/kubelet".into() };
        let engine = Engine::with_store(Store::open_with(path, open)?, path, layout, rim)?;
        engine.set_networks(&Networks::parse_all(&[networks], node).unwrap())?;
        engine.converge();
        let _ = engine.watch();
        Ok(engine)
    }

    /// Sets the fuse to the step that comes after `steps` others.
    pub(crate) fn set_fuse(&self, steps: usize, blow: Blow) {
        let mut state = self.state();
        state.fuse = Some((steps, blow));
        state.steps = 0;
    }

    /// Takes the fuse out; true if it had blown.
    pub(crate) fn take_fuse(&self) -> bool {
        let mut state = self.state();
        state.dead = false;
        state.fuse.take().is_none()
    }

    pub(crate) fn restart_switch(&self) {
        self.state().restart_switch();
    }

    /// The pod dies without DEL: its namespace goes, and what is in it, but devices that are not all software come back.
    pub(crate) fn kill_pod(&self, netns: &Path) {
        let mut state = self.state();
        state.netns.remove(netns);
        state.links.retain(|(at, _), _| at != netns);
        for device in state.vdpa.values_mut().filter(|device| device.place.0.as_deref() == Some(netns)) {
            device.place.0 = None;
        }
        for vf in state.vfs.values_mut().filter(|vf| vf.netns.as_deref() == Some(netns)) {
            vf.netns = None;
            vf.state.netdev.as_mut().unwrap().name = "dev7".to_owned();
        }
    }

    /// What is left of attachments anywhere on the node.
    pub(crate) fn remains(&self) -> Vec<String> {
        let state = self.state();
        let mut remains = Vec::new();
        remains.extend(state.links.keys().map(|(netns, name)| format!("link {name} in {}", netns.display())));
        remains
            .extend(state.dirs.iter().filter(|dir| *dir != Path::new(VOLUME)).map(|dir| format!("{dir:?}")));
        remains.extend(state.files.keys().map(|file| format!("{file:?}")));
        remains.extend(state.mounts.keys().map(|target| format!("mount on {target:?}")));
        remains.extend(state.ports.values().map(|port| format!("port {}", port.spec.name)));
        let is_as_before = |(name, device): &(&String, &Vdpa)| {
            *name == THERE && device.state() == there().state() && device.place.0.is_none()
        };
        let vdpa = state.vdpa.iter().filter(|device| !is_as_before(device));
        remains.extend(vdpa.map(|(name, _)| format!("vDPA device {name}")));
        let vfs = vfs();
        let changed = state.vfs.iter().filter(|(address, vf)| vfs.get(address) != Some(vf));
        remains.extend(changed.map(|(address, vf)| format!("VF {address}: {vf:?}")));
        let before = representors();
        let changed = state.representors.iter().filter(|(address, found)| before.get(address) != Some(found));
        remains.extend(changed.map(|(_, found)| format!("{found:?}")));
        remains.extend(state.taken.keys().map(|port| format!("a representor by port {}", port.0)));
        remains.extend(state.vduse.keys().map(|name| format!("VDUSE device {name}")));
        remains.extend(state.leases.keys().map(|lease| format!("lease {lease:?}")));
        remains
    }

    fn act<T, E>(
        &self,
        refused: impl Fn() -> E,
        effect: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.state();
        if state.dead {
            return Err(refused());
        }
        state.steps += 1;
        let blow = match state.fuse {
            Some((at, blow)) if state.steps > at => {
                state.fuse = None;
                Some(blow)
            }
            _ => None,
        };
        state.dead = matches!(blow, Some(Blow::KillBefore | Blow::KillAfter));
        match blow {
            Some(Blow::KillBefore | Blow::FailBefore) => return Err(refused()),
            Some(Blow::RestartSwitch) => state.restart_switch(),
            Some(Blow::KillAfter | Blow::FailAfter) | None => {}
        }
        let done = effect(&mut state);
        if matches!(blow, Some(Blow::KillAfter | Blow::FailAfter)) { Err(refused()) } else { done }
    }

    pub(crate) fn kernel<T>(
        &self,
        doing: &str,
        effect: impl FnOnce(&mut State) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        self.act(
            || KernelError::Refused { doing: doing.to_owned(), reason: "the fuse blew".to_owned() },
            effect,
        )
    }
}

pub(crate) const VOLUME: &str = "/kubelet/pods/uid-0/volumes/kubernetes.io~empty-dir/shared-dir";

impl State {
    fn restart_switch(&mut self) {
        self.instance += 1;
        self.version = 0;
        self.ports.clear();
        self.taken.clear();
        self.networks.clear();
        self.stop_serving();
    }

    /// The switch dies: VDUSE's devices stay, and nobody answers for them.
    pub(crate) fn stop_serving(&mut self) {
        self.vduse.values_mut().for_each(|device| device.served = false);
    }

    /// The kernel asks the switch about a device of VDUSE; true if it answers.
    fn ask(&mut self, name: &str) -> bool {
        if self.vdpa.get(name).is_some_and(|device| device.function.is_some()) {
            return true;
        }
        let Some(device) = self.vduse.get_mut(name) else { return false };
        device.broken |= !device.served;
        !device.broken
    }

    pub(crate) fn remove_vdpa(&mut self, name: &str) {
        let Some(Vdpa { place: (Some(netns), interface), .. }) = self.vdpa.remove(name) else { return };
        self.links.remove(&(netns, interface));
    }

    pub(crate) fn refuse_open(&self, name: &str) -> Result<(), KernelError> {
        let busy = self.vdpa.get(name).is_some_and(|device| self.opened.contains(Path::new(&device.path())));
        if busy { Err(refused("unbind", "a program has it open")) } else { Ok(()) }
    }

    fn open_port(&mut self, port: &Port) -> Result<(), String> {
        match &port.device {
            Device::Tap { netns, netdev, .. } => {
                if !self.netns.contains(netns) {
                    return Err(format!("{} is no network namespace", netns.display()));
                }
                let fresh = LinkState {
                    mac: port.spec.macs[0],
                    mtu_bytes: port.spec.mtu_bytes,
                    ..LinkState::default()
                };
                self.links.entry((netns.clone(), netdev.clone())).or_insert(fresh);
            }
            Device::Vduse { name } => {
                let is_on_bus = self.vdpa.contains_key(name);
                let device = self.vduse.entry(name.clone()).or_default();
                if device.broken && is_on_bus {
                    return Err(format!("VDUSE device {name} is broken, and on the bus"));
                }
                *device = Vduse { served: true, broken: false };
            }
            Device::Netdev { netdev, take: Take::All } => self.take(port, netdev)?,
            // The node's own: nothing is made.
            Device::Netdev { take: Take::Ours { .. }, .. } => {}
            Device::VhostUser { socket, role, .. } => {
                if !self.dirs.contains(socket.parent().unwrap()) {
                    return Err(format!("no directory for {}", socket.display()));
                }
                if matches!(role, VhostUserRole::Listen(_)) {
                    self.files.insert(socket.clone(), Vec::new());
                }
            }
        }
        self.ports.insert(port.spec.number, port.clone());
        Ok(())
    }

    /// Opens a port on a representor; one that is open on it already stays.
    fn take(&mut self, port: &Port, netdev: &str) -> Result<(), String> {
        let number = port.spec.number;
        if self.ports.get(&number).is_some_and(|open| open.device == port.device) {
            return Ok(());
        }
        self.close_port(number);
        let found = self.representors.values().find(|found| found.name == netdev);
        let found = found.ok_or_else(|| format!("there is no interface {netdev:?}"))?;
        assert!(found.up && found.mtu_bytes == port.spec.mtu_bytes, "{found:?} is ready before its port");
        self.taken.insert(number, found.index);
        Ok(())
    }

    fn close_port(&mut self, number: PortNo) {
        let Some(port) = self.ports.remove(&number) else { return };
        match port.device {
            // By its own descriptor: another device of that name in a namespace of that path is not touched.
            Device::Tap { netns, netdev, .. } => {
                let key = (netns, netdev);
                if self.links.get(&key).is_some_and(|link| link.mac == port.spec.macs[0]) {
                    self.links.remove(&key);
                }
            }
            Device::Vduse { name } => {
                if self.vdpa.contains_key(&name) {
                    // The kernel keeps it; nobody answers for it any more.
                    self.vduse.entry(name).or_default().served = false;
                } else {
                    self.vduse.remove(&name);
                }
            }
            Device::Netdev { .. } => drop(self.taken.remove(&number)),
            Device::VhostUser { socket, .. } => drop(self.files.remove(&socket)),
        }
    }
}

impl Datapath for World {
    fn info(&self) -> Result<SwitchInfo, DatapathError> {
        self.act(unreachable, |state| match state.switch_away {
            true => Err(unreachable()),
            false => Ok(SwitchInfo { instance: state.instance.to_string(), program_version: state.version }),
        })
    }

    fn apply(&self, update: &Update) -> Result<Applied, DatapathError> {
        self.act(unreachable, |state| {
            if state.switch_away {
                return Err(unreachable());
            }
            if update.from_version != 0 && update.from_version != state.version {
                return Ok(Applied::Resync);
            }
            assert!(update.to_version > state.version, "versions grow");
            if update.from_version == 0 {
                let named: BTreeSet<_> = update.put_ports.iter().map(|port| port.spec.number).collect();
                for gone in
                    state.ports.keys().copied().filter(|number| !named.contains(number)).collect::<Vec<_>>()
                {
                    state.close_port(gone);
                }
                state.networks.clear();
                state.policies.clear();
                state.services.clear();
                state.everything = update.clone();
            }
            for policy in &update.delete_policies {
                state.policies.remove(policy);
            }
            state.policies.extend(update.put_policies.iter().map(|policy| policy.number));
            state.services.retain(|number, _| !update.delete_services.contains(number));
            state
                .services
                .extend(update.put_services.iter().map(|service| (service.number, service.clone())));
            state.networks.extend(update.put_networks.iter().map(|network| network.number));
            for number in &update.delete_ports {
                state.close_port(*number);
            }
            let mut failed = Vec::new();
            for port in &update.put_ports {
                assert!(state.networks.contains(&port.spec.network), "a port's network is there before it");
                let has_policy = port.spec.policy.is_none_or(|policy| state.policies.contains(&policy));
                assert!(has_policy, "and so is its policy");
                failed.extend(state.open_port(port).err().map(|reason| (port.spec.number, reason)));
            }
            state.version = update.to_version;
            Ok(Applied::Done { instance: state.instance.to_string(), failed })
        })
    }

    fn ports(&self) -> Result<BTreeSet<PortNo>, DatapathError> {
        self.act(unreachable, |state| match state.switch_away {
            true => Err(unreachable()),
            false => Ok(state.ports.keys().copied().collect()),
        })
    }
}

fn unreachable() -> DatapathError {
    DatapathError::Unreachable("the switch is away".to_owned())
}

impl Delegate for World {
    fn add(&self, call: &Delegation) -> Result<Leased, DelegateError> {
        self.act(
            || plugin_failed(call),
            |state| {
                let host = state.leases.len() as u8 + 2;
                let address = *state.leases.entry(lease_key(call)).or_insert(IpAddr::from([192, 0, 2, host]));
                let net = ipnet::IpNet::new(address, 24).unwrap();
                Ok(Leased {
                    addresses: vec![Address { net, gateway: Some(IpAddr::from([192, 0, 2, 1])) }],
                    routes: vec![Route { destination: "0.0.0.0/0".parse().unwrap(), gateway: None }],
                    dns: model::Dns::default(),
                })
            },
        )
    }

    fn del(&self, call: &Delegation) -> Result<(), DelegateError> {
        self.act(
            || plugin_failed(call),
            |state| {
                state.leases.remove(&lease_key(call));
                Ok(())
            },
        )
    }
}

fn lease_key(call: &Delegation) -> (String, String) {
    let var = |name: &str| call.env.iter().find(|(key, _)| key == name).unwrap().1.clone();
    (var("CNI_CONTAINERID"), var("CNI_IFNAME"))
}

fn plugin_failed(call: &Delegation) -> DelegateError {
    DelegateError { plugin: call.plugin.clone(), code: 100, reason: "the fuse blew".to_owned() }
}

impl Kernel for World {
    fn netns_exists(&self, netns: &Path) -> bool {
        self.state().netns.contains(netns)
    }

    fn link(&self, netns: &Path, name: &str) -> Result<Option<LinkState>, KernelError> {
        self.kernel("look", |state| Ok(state.links.get(&(netns.to_owned(), name.to_owned())).cloned()))
    }

    fn configure_link(&self, netns: &Path, config: &LinkConfig) -> Result<(), KernelError> {
        self.kernel("configure", |state| {
            let no_link = || KernelError::NoLink { netns: netns.to_owned(), name: config.name.clone() };
            let link = state.links.get_mut(&(netns.to_owned(), config.name.clone())).ok_or_else(no_link)?;
            *link = LinkState {
                mac: config.mac,
                mtu_bytes: config.mtu_bytes,
                up: true,
                addresses: config.addresses.clone(),
                routes: config.routes.clone(),
                parent: link.parent.take(),
            };
            Ok(())
        })
    }

    fn remove_routes(&self, netns: &Path, name: &str, routes: &[Route]) -> Result<(), KernelError> {
        self.kernel("remove routes", |state| {
            let link = state.links.get_mut(&(netns.to_owned(), name.to_owned()));
            if let Some(link) = link {
                link.routes.retain(|route| !routes.contains(route));
            }
            Ok(())
        })
    }

    fn put_host_rules(&self, rules: Option<&HostRules>) -> Result<(), KernelError> {
        self.kernel("put the node's rules", |state| {
            state.host_rules = rules.cloned();
            Ok(())
        })
    }

    fn next_hops(&self, uplink: &str, ways: &[(IpAddr, IpAddr)]) -> Vec<Result<NextHop, KernelError>> {
        // Only looked at: no step of an operation.
        let look = |(_, to): &(IpAddr, IpAddr)| {
            let found = self.state().next_hops.get(to).cloned();
            found.ok_or_else(|| refused(&format!("find the way to {to} by {uplink}"), "there is none"))
        };
        ways.iter().map(look).collect()
    }

    fn delete_link(&self, netns: &Path, name: &str) -> Result<(), KernelError> {
        self.kernel("delete the link", |state| {
            state.links.remove(&(netns.to_owned(), name.to_owned()));
            Ok(())
        })
    }

    fn make_dir(&self, path: &Path, _: Ownership) -> Result<(), KernelError> {
        self.kernel("make the directory", |state| {
            state.dirs.insert(path.to_owned());
            Ok(())
        })
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.state().dirs.contains(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<(), KernelError> {
        self.kernel("remove the directory", |state| {
            state.files.retain(|file, _| !file.starts_with(path));
            state.dirs.remove(path);
            Ok(())
        })
    }

    fn bind_mount(&self, source: &Path, target: &Path) -> Result<(), KernelError> {
        self.kernel("mount", |state| {
            assert!(state.dirs.contains(source) && state.dirs.contains(target), "{source:?} on {target:?}");
            state.mounts.insert(target.to_owned(), source.to_owned());
            Ok(())
        })
    }

    fn unmount(&self, target: &Path) -> Result<(), KernelError> {
        self.kernel("unmount", |state| {
            state.mounts.remove(target);
            Ok(())
        })
    }

    fn write_file(&self, path: &Path, content: &[u8], _: Ownership) -> Result<(), KernelError> {
        self.kernel("write", |state| {
            state.files.insert(path.to_owned(), content.to_vec());
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> Result<(), KernelError> {
        self.kernel("remove", |state| {
            state.files.remove(path);
            Ok(())
        })
    }

    fn can_vduse(&self, _: VdpaDriver) -> Result<(), String> {
        self.state().no_vduse.clone().map_or(Ok(()), Err)
    }

    fn vdpa_device(&self, name: &str) -> Result<Option<VdpaDevice>, KernelError> {
        self.kernel("look at the bus", |state| Ok(state.vdpa.get(name).map(Vdpa::view)))
    }

    fn put_vdpa_device(&self, device: &NewVdpaDevice) -> Result<(), KernelError> {
        self.kernel("put onto the bus", |state| {
            if state.vdpa.contains_key(&device.name) {
                return Ok(());
            }
            let function = device.management.bus.as_ref().map(|_| pci(&device.management.name));
            if function.is_none() && !state.vduse.contains_key(&device.name) {
                return Err(refused("put onto the bus", "no such VDUSE device"));
            }
            let dead = function.is_none() && !state.ask(&device.name);
            state.serial += 1;
            // The kernel lets the driver that was loaded first have it.
            let mut made = Vdpa { function, ..Vdpa::new(state.serial, VdpaDriver::Virtio, dead) };
            made.mac = device.mac.unwrap_or(made.mac);
            state.vdpa.insert(device.name.clone(), made);
            Ok(())
        })
    }

    fn delete_vdpa_device(&self, name: &str) -> Result<(), KernelError> {
        self.kernel("take off the bus", |state| {
            state.refuse_open(name)?;
            state.ask(name);
            state.remove_vdpa(name);
            Ok(())
        })
    }

    fn bind_vdpa_driver(&self, name: &str, driver: VdpaDriver) -> Result<(), KernelError> {
        self.kernel("bind", |state| {
            state.refuse_open(name)?;
            let now = state.vdpa.get(name).cloned().ok_or_else(|| refused("bind", "it is not on the bus"))?;
            if now.driver != driver {
                let dead = !state.ask(name);
                state.remove_vdpa(name);
                state.serial += 1;
                let mut made = Vdpa::new(state.serial, driver, dead);
                (made.function, made.mac) = (now.function, now.mac);
                made.driver_override = Some(driver.as_str().to_owned());
                state.vdpa.insert(name.to_owned(), made);
            }
            Ok(())
        })
    }

    fn adopt_vdpa_netdev(&self, name: &str, netns: &Path, interface: &str) -> Result<(), KernelError> {
        self.kernel("adopt", |state| {
            if !state.netns.contains(netns) {
                return Err(KernelError::NoNetns(netns.to_owned()));
            }
            let key = (netns.to_owned(), interface.to_owned());
            let taken = state.links.contains_key(&key);
            let device = state.vdpa.get_mut(name).ok_or_else(|| refused("adopt", "it is not on the bus"))?;
            let parent = device.view().virtio.ok_or_else(|| refused("adopt", "it has no netdev"))?;
            let place = (Some(netns.to_owned()), interface.to_owned());
            if device.place == place {
                return Ok(());
            }
            if taken {
                return Err(refused("adopt", "there is one of that name"));
            }
            device.place = place;
            state.links.insert(key, LinkState { parent: Some(parent), ..LinkState::default() });
            Ok(())
        })
    }

    fn own_vhost_vdpa(&self, name: &str, _: Ownership) -> Result<PathBuf, KernelError> {
        self.kernel("own", |state| {
            let path = state.vdpa.get(name).and_then(|device| device.view().path);
            path.ok_or_else(|| refused("own", "it has no file"))
        })
    }

    fn is_vduse_broken(&self, name: &str) -> Result<bool, KernelError> {
        self.kernel("look at VDUSE", |state| {
            Ok(state.vduse.get(name).is_some_and(|device| device.broken && !device.served))
        })
    }

    fn destroy_vduse(&self, name: &str) -> Result<(), KernelError> {
        self.kernel("destroy", |state| {
            let served = state.vduse.get(name).is_some_and(|device| device.served);
            if served || state.vdpa.contains_key(name) {
                return Err(refused("destroy", "it is in use"));
            }
            state.vduse.remove(name);
            Ok(())
        })
    }
}

pub(crate) fn refused(doing: &str, reason: &str) -> KernelError {
    KernelError::Refused { doing: doing.to_owned(), reason: reason.to_owned() }
}

/// The disk under the store: what was written stays when the agent is killed.
#[derive(Debug)]
struct Disk(World);

impl Disk {
    fn act<T>(&self, effect: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.0.act(|| io::Error::from(io::ErrorKind::StorageFull), effect)
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().disk.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.state();
        let from = offset as usize;
        let bytes = state.disk.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.act(|state| {
            state.disk.resize(len as usize, 0);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.act(|_| Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act(|state| {
            state.disk[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        })
    }
}

/// A request of container `c<n>` in `/ns/<n>`, for interface eth0 of network blue.
pub(crate) fn request(n: usize) -> AddRequest {
    AddRequest {
        id: model::AttachmentId {
            container: format!("c{n}").parse().unwrap(),
            interface: "eth0".parse().unwrap(),
        },
        config: "conf".parse().unwrap(),
        network: "blue".parse().unwrap(),
        kind: None,
        netns: format!("/ns/{n}").into(),
        pod: None,
        device: None,
        mac: None,
        addresses: Vec::new(),
        dns: None,
        device_info_file: None,
        delegation: None,
    }
}

/// The same for a vhost-user interface of a pod with a volume.
pub(crate) fn vhost_request(n: usize) -> AddRequest {
    let pod = model::PodRef {
        namespace: "default".into(),
        name: format!("pod-{n}"),
        uid: Some(format!("uid-{n}").parse().unwrap()),
    };
    AddRequest {
        kind: Some(KindChoice::Only(PortKind::VhostUser)),
        pod: Some(pod),
        device_info_file: Some("/devinfo/cni/x".into()),
        ..request(n)
    }
}

/// The same for a netdev of VDUSE.
pub(crate) fn vduse_request(n: usize) -> AddRequest {
    AddRequest { kind: Some(KindChoice::Only(PortKind::Vduse)), ..request(n) }
}

/// The same for a vhost-vdpa file of a pod with a volume.
pub(crate) fn vdpa_vhost_request(n: usize) -> AddRequest {
    AddRequest { kind: Some(KindChoice::Only(PortKind::VdpaVhost)), ..vhost_request(n) }
}

/// The same for a device of a card that nothing is asked of.
pub(crate) fn device_request(n: usize, function: &str, driver: Option<DeviceDriver>) -> AddRequest {
    let settings = serde_json::from_value(serde_json::json!({})).unwrap();
    let device = DeviceRequest { function: pci(function), driver, mtu: None, settings };
    AddRequest { kind: Some(KindChoice::Auto), device: Some(device), ..vhost_request(n) }
}

/// The same for the netdev of a virtual function, with settings.
pub(crate) fn sriov_request(n: usize) -> AddRequest {
    let mut request = device_request(n, VFS[n % 2], None);
    let settings = serde_json::json!({"vlan": 5, "trust": "on", "spoofchk": "off"});
    request.device.as_mut().unwrap().settings = serde_json::from_value(settings).unwrap();
    request
}

/// The same for a virtual function by vfio.
pub(crate) fn vfio_request(n: usize) -> AddRequest {
    device_request(n, VFS[n % 2], Some(DeviceDriver::VfioPci))
}

/// The same for one that vfio has already.
pub(crate) fn left_on_vfio_request(n: usize) -> AddRequest {
    device_request(n, VFS[2], None)
}

/// The same for the netdev of a vDPA device that is to be made.
pub(crate) fn vdpa_netdev_request(n: usize) -> AddRequest {
    AddRequest {
        network: "plain".parse().unwrap(),
        ..device_request(n, CARD, Some(DeviceDriver::VirtioVdpa))
    }
}

/// The same for the file of a vDPA device that is there.
pub(crate) fn vdpa_file_request(n: usize) -> AddRequest {
    AddRequest { kind: Some(KindChoice::Only(PortKind::Vdpa)), ..device_request(n, VFS[3], None) }
}

/// The same for its netdev, which another driver has to make.
pub(crate) fn vdpa_rebound_request(n: usize) -> AddRequest {
    device_request(n, VFS[3], Some(DeviceDriver::VirtioVdpa))
}

/// The same for the netdev of a virtual function of a card that is a switch, in a network of the switch.
pub(crate) fn switched_request(n: usize) -> AddRequest {
    device_request(n, SWITCHED[n % 2], None)
}

/// The same by vfio.
pub(crate) fn switched_vfio_request(n: usize) -> AddRequest {
    device_request(n, SWITCHED[n % 2], Some(DeviceDriver::VfioPci))
}

/// The same for the file of a vDPA device that is to be made.
pub(crate) fn switched_vdpa_request(n: usize) -> AddRequest {
    device_request(n, SWITCHED[2], Some(DeviceDriver::VhostVdpa))
}

/// The same with a delegated IPAM plugin.
pub(crate) fn delegated_request(n: usize) -> AddRequest {
    let env = [("CNI_CONTAINERID", format!("c{n}")), ("CNI_IFNAME", "eth0".into())];
    let delegation = Delegation {
        plugin: "host-local".into(),
        env: env.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        config: b"{}".to_vec(),
    };
    AddRequest { delegation: Some(delegation), ..request(n) }
}
