//! Who attaches, detaches and repairs? The one owner of the node's attachments.
//!
//! ADD goes: choose the kind -> reserve (stored) -> IPAM plugin, if delegated (stored) -> directory -> port -> vDPA device ->
//! netdev, or files and mount -> ready (stored) -> answer. A device of a card is looked at before that (stored, to be brought
//! back as it was) and configured; it has a port only where its card is a switch, on its representor; then it is given to the
//! pod. Each step is idempotent. DEL undoes them in the reverse order, whatever was done of them, and forgets the attachment
//! only when all is undone. So the record says at any instant what may exist, and an agent that
//! finds a half-made one undoes it.
//!
//! Calls are synchronous and may come from many threads: those of one container wait for each other.
//!
//! **Invariant:** an attachment's record is stored before anything is made for it, and removed after everything is gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{AttachmentId, DeviceRequest, NetworkName, Networks, VhostSocket};
use vswitch::program::PortNo;

use crate::datapath::DatapathError;
use crate::delegate::DelegateError;
use crate::desired::{AddRequest, Desired, Known, Places, ReserveError};
use crate::host::Keeper;
use crate::kernel::{KernelError, Route};
use crate::locks::{Guard, Locks};
use crate::program::{self, ProgramError, Programmer, Synced};
use crate::record::{Address, Attachment, State, VhostFiles};
use crate::store::{Op, Snapshot, Store, StoreError};
use crate::underlay::{self, NodeView, Reached};
use crate::{Datapath, Delegate, Kernel, choice, handover, parts, vhost};

/// The rim: what the engine acts on.
#[derive(Clone)]
pub struct Rim {
    /// The node's kernel.
    pub kernel: Arc<dyn Kernel>,
    /// The node's switch.
    pub datapath: Arc<dyn Datapath>,
    /// IPAM plugins.
    pub delegate: Arc<dyn Delegate>,
}

/// Where things are on the node.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The directory of all containers' vhost-user directories.
    pub vhost_dir: PathBuf,
    /// The kubelet's directory.
    pub kubelet_dir: PathBuf,
}

/// Why an attachment was not made, or not undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The pod's network namespace is not there: nothing was made, nothing needs cleaning up.
    #[error("{0} is not a network namespace: the container is gone, or CNI_NETNS is wrong")]
    NoSandbox(PathBuf),
    /// The pod has such an interface already.
    #[error("{0} exists already: choose another interface name, or remove it first")]
    Exists(AttachmentId),
    /// What is asked for cannot be.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The IPAM plugin.
    #[error(transparent)]
    Delegate(#[from] DelegateError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The switch.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The one owner of the node's attachments.
pub struct Engine {
    rim: Rim,
    layout: Layout,
    locks: Locks,
    // Taken before `intent` where both are needed, and held while the switch is spoken to, so that versions are in order.
    program: Mutex<Programmer>,
    intent: Mutex<Intent>,
    host: Mutex<Keeper>,
}

/// What is desired, in memory and on disk: one changes with the other.
struct Intent {
    desired: Desired,
    store: Store,
}

impl Intent {
    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        self.store.commit(ops)?;
        self.desired.take_over(ops);
        Ok(())
    }
}

impl Engine {
    /// The engine of what is stored in `state_file`. Call [`Engine::set_networks`], then [`Engine::converge`].
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn open(state_file: &Path, layout: Layout, rim: Rim) -> Result<Self, StoreError> {
        Self::with_store(Store::open(state_file)?, state_file, layout, rim)
    }

    pub(crate) fn with_store(
        (store, snapshot): (Store, Snapshot),
        state_file: &Path,
        layout: Layout,
        rim: Rim,
    ) -> Result<Self, StoreError> {
        let desired = Desired::load(snapshot)
            .map_err(|reason| StoreError::Damaged { path: state_file.to_owned(), reason })?;
        let intent = Mutex::new(Intent { desired, store });
        let (locks, program, host) = (Locks::default(), Mutex::default(), Mutex::default());
        Ok(Self { rim, layout, locks, program, intent, host })
    }

    /// Makes these the networks that pods can be attached to. Attachments keep what they were given; what concerns the
    /// forwarding (VLAN, limits, port security) changes with the next [`Engine::watch`].
    ///
    /// # Errors
    /// The state cannot be written: nothing was changed.
    pub fn set_networks(&self, networks: &Networks) -> Result<(), StoreError> {
        let mut intent = self.intent();
        let ops = intent.desired.plan_networks(networks);
        intent.store.commit(&ops)?;
        intent.desired.define(networks, &ops);
        drop(intent);
        self.programmer().distrust();
        self.host().distrust();
        Ok(())
    }

    /// ADD: makes the attachment, or finds it made as asked.
    ///
    /// # Errors
    /// It was not made. What had been done is undone; where that failed too, by DEL or [`Engine::converge`].
    pub fn add(&self, request: &AddRequest) -> Result<Attachment, AttachError> {
        let _lock = self.locks.lock(&request.id.container);
        if !self.rim.kernel.netns_exists(&request.netns) {
            return Err(AttachError::NoSandbox(request.netns.clone()));
        }
        match self.find(&request.id) {
            Some(made) if made.state == State::Ready && answers(&made, request) => return Ok(made),
            Some(other) if other.state == State::Ready => return Err(AttachError::Exists(other.id)),
            Some(half) => first(self.undo(&half))?,
            None => {}
        }
        if self.rim.kernel.link(&request.netns, request.id.interface.as_str())?.is_some() {
            return Err(AttachError::Exists(request.id.clone()));
        }
        let reserved = self.reserve(request)?;
        self.make(reserved.clone()).inspect_err(|_| {
            for error in self.undo(&self.find(&request.id).unwrap_or(reserved)) {
                tracing::warn!(attachment = %request.id, %error, "undoing a failed ADD; it is tried again");
            }
        })
    }

    /// DEL: undoes the attachment. One that is not there is undone already.
    ///
    /// # Errors
    /// All that failed. The rest is undone; asking again does what is left.
    pub fn del(&self, id: &AttachmentId) -> Result<(), Vec<AttachError>> {
        let _lock = self.locks.lock(&id.container);
        let Some(attachment) = self.find(id) else { return Ok(()) };
        let errors = self.undo(&attachment);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// GC: undoes all attachments of a configuration that are not listed as (container, interface).
    ///
    /// # Errors
    /// All that failed, each with its attachment. The rest is undone.
    pub fn gc(
        &self,
        config: &NetworkName,
        valid: &BTreeSet<(String, String)>,
    ) -> Result<(), Vec<(AttachmentId, AttachError)>> {
        let listed = |id: &AttachmentId| {
            valid.contains(&(id.container.as_str().to_owned(), id.interface.as_str().to_owned()))
        };
        let stale: Vec<_> = {
            let intent = self.intent();
            let stale =
                intent.desired.attachments().filter(|found| found.config == *config && !listed(&found.id));
            stale.map(|found| found.id.clone()).collect()
        };
        let mut errors = Vec::new();
        for id in stale {
            tracing::info!(attachment = %id, "the runtime does not know it any more");
            errors.extend(self.del(&id).err().into_iter().flatten().map(|error| (id.clone(), error)));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Looks whether the switch has the program and sends it what it lacks. Cheap: for every second.
    ///
    /// # Errors
    /// The switch does not answer, or refuses.
    pub fn watch(&self) -> Result<(), DatapathError> {
        self.look_around();
        let synced = self.programmer().sync(&*self.rim.datapath, || self.desired())?;
        if let Synced::Sent { .. } = synced {
            self.host().distrust();
        }
        self.host().keep(|| self.desired(), &*self.rim.kernel);
        let Synced::Sent { restarted, failed } = synced else { return Ok(()) };
        for (port, reason) in &failed {
            tracing::warn!(port = port.0, %reason, "the switch cannot open a port; it is tried again");
        }
        if restarted {
            tracing::info!("the switch has the program");
            self.reattach();
        }
        if !failed.is_empty() {
            for (attachment, error) in self.repair() {
                tracing::warn!(%attachment, %error, "its device cannot be made again; it is tried again");
            }
        }
        Ok(())
    }

    /// Takes over the ways to other nodes as the kernel knows them now.
    fn look_around(&self) {
        let Some(nodes) = self.intent().desired.reached().map(|reached| reached.nodes.clone()) else {
            return;
        };
        let (next_hops, problems) = Reached::look(&nodes, &*self.rim.kernel);
        if self.intent().desired.reach(next_hops) {
            problems.iter().for_each(|problem| tracing::warn!(problem, "no way to another node"));
            self.programmer().distrust();
        }
    }

    /// Brings everything to what is desired: half-made attachments are undone, ports that failed are tried again, devices
    /// that vanished are made again. For an agent's start, and now and then.
    pub fn converge(&self) -> Vec<(AttachmentId, AttachError)> {
        let half = |found: &&Attachment| found.state != State::Ready;
        let half: Vec<_> =
            self.intent().desired.attachments().filter(half).map(|found| found.id.clone()).collect();
        let mut errors = Vec::new();
        for id in half {
            // One that is locked is being worked on.
            let Some(_lock) = self.try_lock(&id) else { continue };
            let Some(found) = self.find(&id).filter(|found| found.state != State::Ready) else { continue };
            tracing::info!(attachment = %id, state = found.state.as_str(), "undoing a half-made attachment");
            errors.extend(self.undo(&found).into_iter().map(|error| (id.clone(), error)));
        }
        errors.extend(self.repair());
        self.programmer().retry_failed();
        self.host().distrust();
        errors
    }

    /// What keeps ADD from being served now, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(self.rim.datapath.info().err().map(|error| error.to_string()));
        if !self.intent().desired.networks().any(|known| known.defined) {
            problems.push("no network is defined: add one to the networks file".to_owned());
        }
        problems
    }

    /// Everything that is desired, as it is now.
    pub fn desired(&self) -> Desired {
        self.intent().desired.clone()
    }

    /// The nodes that it knows, its own first; none: it is on its own.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.intent().desired.reached().map(underlay::views).unwrap_or_default()
    }

    /// The switch process last spoken to, and the program version it has (0: unknown).
    pub fn switch(&self) -> (Option<String>, u64) {
        let programmer = self.programmer();
        let (instance, version) = programmer.known();
        (instance.map(str::to_owned), version)
    }

    /// One attachment.
    pub fn find(&self, id: &AttachmentId) -> Option<Attachment> {
        self.intent().desired.get(id).cloned()
    }

    /// The right to change the attachments of a container, if nobody does.
    pub(crate) fn try_lock(&self, id: &AttachmentId) -> Option<Guard<'_>> {
        self.locks.try_lock(&id.container)
    }

    pub(crate) fn rim(&self) -> &Rim {
        &self.rim
    }

    fn reserve(&self, request: &AddRequest) -> Result<Attachment, AttachError> {
        let volume = vhost::volume(&*self.rim.kernel, &self.layout.kubelet_dir, request.pod.as_ref());
        let places = Places { vhost_dir: self.layout.vhost_dir.clone(), volume };
        // The kernel may take its time: nobody else waits for it.
        let network = self.intent().desired.defined(&request.network)?.clone();
        let chosen = choice::choose(&*self.rim.kernel, request, network.spec())?;
        let mut intent = self.intent();
        let (attachment, ops) = intent.desired.reserve(request, &chosen, &places)?;
        intent.commit(&ops)?;
        Ok(attachment)
    }

    fn make(&self, mut attachment: Attachment) -> Result<Attachment, AttachError> {
        let kernel = &*self.rim.kernel;
        if let Some(call) = &attachment.delegation {
            let leased = self.rim.delegate.add(call)?;
            adopt(&mut attachment, leased);
            self.keep(&attachment)?;
        }
        if attachment.card.is_some() {
            self.look(&mut attachment)?;
        }
        let socket = self.vhost_socket(&attachment.network);
        parts::prepare(kernel, &attachment, socket)?;
        self.plug(&attachment)?;
        self.finish(&mut attachment)?;
        attachment.state = State::Ready;
        self.keep(&attachment)?;
        tracing::info!(attachment = %attachment.id, network = %attachment.network, port = attachment.port, "attached");
        Ok(attachment)
    }

    /// Learns how the device of a card is, and whether the switch reaches it, and keeps that before anything is changed.
    fn look(&self, attachment: &mut Attachment) -> Result<(), AttachError> {
        let vlan = self.intent().desired.defined(&attachment.network)?.spec().vlan;
        handover::look(&*self.rim.kernel, attachment, vlan)?;
        let mut intent = self.intent();
        let ops = intent.desired.settle(attachment)?;
        Ok(intent.commit(&ops)?)
    }

    /// The exact reverse of [`Engine::make`], of whatever was done of it. Never stops at an error; gives all of them.
    fn undo(&self, attachment: &Attachment) -> Vec<AttachError> {
        let kernel = &*self.rim.kernel;
        let id = &attachment.id;
        let mut errors: Vec<AttachError> = Vec::new();
        errors.extend(self.begin_undo(attachment).err().map(Into::into));
        let (last, inherited) = {
            let desired = &self.intent().desired;
            let shared = |files: &VhostFiles| desired.shares_directory(id, &files.dir);
            (!attachment.vhost.as_ref().is_some_and(shared), desired.inherited(attachment))
        };
        errors.extend(parts::withdraw(kernel, attachment, last).into_iter().map(Into::into));
        errors.extend(self.unplug(attachment).err().map(Into::into));
        errors.extend(parts::clear(kernel, attachment, last, inherited).into_iter().map(Into::into));
        if let Some(call) = &attachment.delegation {
            errors.extend(self.rim.delegate.del(call).err().map(Into::into));
        }
        if errors.is_empty() {
            errors.extend(self.forget(id).err().map(Into::into));
        }
        if errors.is_empty() {
            tracing::info!(attachment = %id, "detached");
        }
        errors
    }

    fn begin_undo(&self, attachment: &Attachment) -> Result<(), StoreError> {
        let mut intent = self.intent();
        // Even where the disk refuses: nobody is to open the port again.
        intent.desired.unplug(&attachment.id);
        let deleting = Attachment { state: State::Deleting, ..attachment.clone() };
        intent.commit(&[Op::PutAttachment(Box::new(deleting))])
    }

    pub(crate) fn keep(&self, attachment: &Attachment) -> Result<(), StoreError> {
        self.intent().commit(&[Op::PutAttachment(Box::new(attachment.clone()))])
    }

    fn forget(&self, id: &AttachmentId) -> Result<(), StoreError> {
        let mut intent = self.intent();
        let ops = intent.desired.plan_forget(id);
        intent.commit(&ops)?;
        drop(intent);
        if ops.iter().any(|op| matches!(op, Op::DeleteNetwork(_))) {
            // The switch forgets the network with the next watch.
            self.programmer().distrust();
        }
        Ok(())
    }

    /// The port is in the switch from now on. Not every device of a card has one.
    pub(crate) fn plug(&self, attachment: &Attachment) -> Result<(), ProgramError> {
        if attachment.port.is_none() {
            return Ok(());
        }
        let mut programmer = self.programmer();
        let port = {
            let mut intent = self.intent();
            intent.desired.plug(&attachment.id);
            intent.desired.network(&attachment.network).and_then(|known| program::port(attachment, known))
        };
        match port {
            Some(port) => programmer.put(&*self.rim.datapath, || self.desired(), port),
            // A network stays known while an attachment is in it.
            None => Ok(()),
        }
    }

    /// Takes the port away for a while.
    pub(crate) fn pull(&self, attachment: &Attachment) -> Result<(), ProgramError> {
        self.intent().desired.unplug(&attachment.id);
        self.unplug(attachment)
    }

    /// The port goes with the next program, if the switch is away now: no program holds it any more.
    fn unplug(&self, attachment: &Attachment) -> Result<(), ProgramError> {
        let Some(number) = attachment.port else { return Ok(()) };
        let port = (PortNo(number), attachment.port_name());
        let removed = self.programmer().delete(&*self.rim.datapath, || self.desired(), port);
        match removed {
            Err(ProgramError::Datapath(DatapathError::Unreachable(reason))) => {
                tracing::info!(attachment = %attachment.id, %reason, "the port goes when the switch is back");
                Ok(())
            }
            other => other,
        }
    }

    pub(crate) fn vhost_socket(&self, network: &NetworkName) -> VhostSocket {
        let intent = self.intent();
        let known: Option<&Known> = intent.desired.network(network);
        known.map_or(VhostSocket::default(), |known| known.network.vhost_socket())
    }

    fn programmer(&self) -> MutexGuard<'_, Programmer> {
        // A panic between two changes leaves nothing half-changed that the next full update does not repair.
        self.program.lock().unwrap_or_else(|poisoned| {
            let mut programmer = poisoned.into_inner();
            programmer.distrust();
            programmer
        })
    }

    fn host(&self) -> MutexGuard<'_, Keeper> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn intent(&self) -> MutexGuard<'_, Intent> {
        // What is in memory changes in one step after what is on disk.
        self.intent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// True if an attachment is what a repeated ADD asks for.
fn answers(made: &Attachment, request: &AddRequest) -> bool {
    let has = |asked: &(std::net::IpAddr, Option<u8>)| {
        made.addresses.iter().any(|address| address.net.addr() == asked.0)
    };
    made.config == request.config
        && made.network == request.network
        && made.netns == request.netns
        && request.kind.is_none_or(|kind| kind.allows(made.kind))
        && request.mac.is_none_or(|mac| mac == made.mac)
        && is_device(made, request.device.as_ref())
        && made.delegation.is_some() == request.delegation.is_some()
        && (made.delegation.is_some() || request.addresses.iter().all(has))
}

/// True if an attachment is of the device that a repeated ADD asks for.
fn is_device(made: &Attachment, asked: Option<&DeviceRequest>) -> bool {
    match (&made.card, asked) {
        (Some(card), Some(asked)) => {
            card.function == asked.function && (asked.driver.is_none() || asked.driver == card.driver)
        }
        (made, asked) => made.is_none() && asked.is_none(),
    }
}

/// Takes over what an IPAM plugin gave.
fn adopt(attachment: &mut Attachment, leased: crate::delegate::Leased) {
    let same_family = |route: &Route, address: &&Address| {
        address.net.addr().is_ipv4() == route.destination.addr().is_ipv4() && address.gateway.is_some()
    };
    let through = |route: Route| {
        let gateway = leased.addresses.iter().find(|address| same_family(&route, address));
        Route { gateway: route.gateway.or(gateway.and_then(|address| address.gateway)), ..route }
    };
    attachment.routes = leased.routes.into_iter().map(through).collect();
    attachment.addresses = leased.addresses;
    if !leased.dns.is_empty() {
        attachment.dns = leased.dns;
    }
}

fn first(errors: Vec<AttachError>) -> Result<(), AttachError> {
    errors.into_iter().next().map_or(Ok(()), Err)
}

#[cfg(test)]
impl Engine {
    /// Makes an attachment look as it does when the agent is killed just before it is ready.
    pub(crate) fn half_make(&self, attachment: &Attachment) {
        self.keep(&Attachment { state: State::Reserved, ..attachment.clone() }).unwrap();
    }
}
