//! What does each request of a frontend change? The state of one connection, without its socket.
//!
//! Dropping the session stops all its rings and releases all that the frontend gave: memory, log and descriptors.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use wire::MacAddr;

use super::VhostUserSpec;
use super::features::{self, protocol};
use super::message::{ConfigRange, LogBase, Message, Reply, Violation, VringAddr, VringFd, VringState};
use super::queues::Queues;
use super::vring::{Context, Vring};
use crate::Link;
use crate::virtio::config::NetConfig;
use crate::virtio::{
    DirtyLog, Features, GuestMemory, MAX_MEMORY_SLOTS, MAX_RING_SIZE, MemoryError, Region, RegionSpec,
};

/// The configuration space that can be asked for (VHOST_USER_MAX_CONFIG_SIZE).
const CONFIG_SPACE_BYTES: usize = 256;
/// The least MTU that IPv4 can live with (RFC 791).
const MIN_MTU_BYTES: u64 = 68;

/// What one port shows to every frontend.
#[derive(Debug)]
pub(super) struct Profile {
    features: u64,
    config: NetConfig,
}

impl Profile {
    pub(super) fn new(spec: &VhostUserSpec) -> Self {
        let &VhostUserSpec { mac, queue_pairs, mtu_bytes, .. } = spec;
        let config = NetConfig { mac, queue_pairs, mtu_bytes };
        let without = if queue_pairs == 1 { Features::MQ.0 } else { 0 };
        Self { features: (features::OFFERED | config.features()) & !without, config }
    }

    /// `struct virtio_net_config` (virtio 1.2 §5.1.4), zero behind its first fields.
    fn config_space(&self) -> [u8; CONFIG_SPACE_BYTES] {
        let mut space = [0; CONFIG_SPACE_BYTES];
        space[..NetConfig::BYTES].copy_from_slice(&self.config.bytes());
        space
    }

    fn config(&self, range: ConfigRange) -> Reply {
        let bytes = (range.offset as usize)
            .checked_add(range.size as usize)
            .and_then(|end| self.config_space().get(range.offset as usize..end).map(<[u8]>::to_vec));
        bytes.map_or(Reply::NoConfig, |bytes| Reply::Config(range, bytes))
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The peer is no frontend that can be served. The connection ends.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// A proper request that this switch cannot follow. A frontend that asked for acknowledgement is told, and the
    /// session is as before; else the connection ends.
    #[error("{0}")]
    Refused(String),
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Failure::Refused(error.to_string())
    }
}

/// One frontend's session.
#[derive(Debug)]
pub(super) struct Session {
    profile: Arc<Profile>,
    queues: Arc<Queues>,
    /// As acknowledged by SET_FEATURES, transport bits included.
    features: u64,
    protocol_features: u64,
    context: Context,
    /// Given by SET_LOG_BASE; in use while LOG_ALL is acknowledged.
    log: Option<Arc<DirtyLog>>,
    vrings: Vec<Vring>,
    status: u8,
}

impl Session {
    pub(super) fn new(profile: Arc<Profile>, queues: Arc<Queues>) -> Self {
        let vrings = queues.slots().iter().map(|slot| Vring::new(Arc::clone(slot))).collect();
        Self {
            profile,
            queues,
            features: 0,
            protocol_features: 0,
            context: Context { always_enabled: true, ..Context::default() },
            log: None,
            vrings,
            status: 0,
        }
    }

    /// True if requests that ask for it are acknowledged (REPLY_ACK).
    pub(super) fn acknowledges(&self) -> bool {
        self.protocol_features & protocol::REPLY_ACK != 0
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) fn handle(&mut self, message: Message) -> Answer {
        match message {
            Message::GetFeatures => tell(self.profile.features),
            Message::SetFeatures(features) => self.set_features(features),
            Message::GetProtocolFeatures => tell(protocol::OFFERED),
            Message::SetProtocolFeatures(features) => self.set_protocol_features(features),
            Message::GetQueueNum => tell(self.profile.config.queue_pairs.into()),
            Message::GetConfig(range) => Ok(Some(self.profile.config(range))),
            Message::SetConfig => refuse("the configuration space is not the guest's to write"),
            Message::NetSetMtu(mtu_bytes) => self.check_mtu(mtu_bytes),
            Message::GetStatus => tell(self.status.into()),
            Message::SetStatus(status) => self.set_status(status),
            Message::ResetOwner => self.stop_all(),
            Message::ResetDevice => self.reset(),
            Message::SetMemTable(table) => self.set_mem_table(table),
            Message::GetMaxMemSlots => tell(MAX_MEMORY_SLOTS as u64),
            Message::AddMemReg(spec, fd) => self.add_region(spec, &fd),
            Message::RemMemReg(spec) => self.remove_region(&spec),
            Message::SetLogBase(base) => self.set_log(&base),
            Message::SetVringNum(state) => self.set_size(state),
            Message::SetVringAddr(addresses) => self.set_addresses(addresses),
            Message::SetVringBase(state) => self.set_base(state),
            Message::GetVringBase(index) => self.stop_vring(index),
            Message::SetVringKick(kick) => self.start_vring(kick),
            Message::SetVringCall(call) => self.set_call(call),
            Message::SetVringErr(err) => self.set_err(err),
            Message::SetVringEnable(state) => self.enable(state),
            Message::SendRarp(mac) => self.announce(MacAddr(mac)),
            Message::SetOwner | Message::SetLogFd | Message::SetBackendReqFd => Ok(None),
        }
    }

    fn set_features(&mut self, features: u64) -> Answer {
        let unknown = features & !self.profile.features;
        if unknown != 0 {
            return Err(Violation::Features(unknown).into());
        }
        self.features = features;
        let before = (self.context.features, self.context.always_enabled);
        self.context.features = Features(features & Features::OFFERED.0);
        self.context.always_enabled = features & features::PROTOCOL_FEATURES == 0;
        self.update_log();
        if before != (self.context.features, self.context.always_enabled) {
            self.place_all();
        }
        Ok(None)
    }

    fn set_protocol_features(&mut self, features: u64) -> Answer {
        let unknown = features & !protocol::OFFERED;
        if unknown != 0 {
            return Err(Violation::ProtocolFeatures(unknown).into());
        }
        self.protocol_features = features;
        Ok(None)
    }

    fn check_mtu(&mut self, mtu_bytes: u64) -> Answer {
        let most = if self.profile.config.mtu_bytes == 0 { u16::MAX } else { self.profile.config.mtu_bytes };
        if !(MIN_MTU_BYTES..=u64::from(most)).contains(&mtu_bytes) {
            return refuse(format!("an MTU of {mtu_bytes} bytes; the network carries {most}"));
        }
        Ok(None)
    }

    /// Zero resets the device (virtio 1.2 §2.1.2): its rings stop.
    fn set_status(&mut self, status: u64) -> Answer {
        let Ok(status) = u8::try_from(status) else {
            return Err(
                Violation::Value(format!("device status {status:#x} has more than eight bits")).into()
            );
        };
        self.status = status;
        if status == 0 {
            return self.stop_all();
        }
        Ok(None)
    }

    fn stop_all(&mut self) -> Answer {
        for vring in &mut self.vrings {
            vring.stop();
        }
        Ok(None)
    }

    fn reset(&mut self) -> Answer {
        for vring in &mut self.vrings {
            vring.reset();
        }
        self.features = 0;
        self.status = 0;
        self.context.features = Features::default();
        self.context.always_enabled = true;
        self.update_log();
        Ok(None)
    }

    fn set_mem_table(&mut self, table: Vec<(RegionSpec, OwnedFd)>) -> Answer {
        let regions: Result<_, _> =
            table.into_iter().map(|(spec, fd)| Region::map(spec, fd.as_fd())).collect();
        self.set_memory(GuestMemory::new(regions?)?)
    }

    fn add_region(&mut self, spec: RegionSpec, fd: &OwnedFd) -> Answer {
        let region = Region::map(spec, fd.as_fd())?;
        self.set_memory(self.context.memory.with_region(region)?)
    }

    fn remove_region(&mut self, spec: &RegionSpec) -> Answer {
        self.set_memory(self.context.memory.without_region(spec)?)
    }

    /// Running rings run on in the new memory; what only the old one had is unmapped before this returns.
    fn set_memory(&mut self, memory: GuestMemory) -> Answer {
        self.context.memory = Arc::new(memory);
        self.place_all();
        Ok(None)
    }

    fn place_all(&mut self) {
        for vring in &mut self.vrings {
            vring.place(&self.context);
        }
    }

    fn set_log(&mut self, base: &LogBase) -> Answer {
        let log = DirtyLog::map(base.fd.as_fd(), base.file_offset, base.size_bytes)?;
        self.log = Some(log);
        self.update_log();
        Ok(Some(Reply::Log { size_bytes: base.size_bytes, file_offset: base.file_offset }))
    }

    fn update_log(&mut self) {
        let wanted = self.features & features::LOG_ALL != 0;
        self.context.log = self.log.clone().filter(|_| wanted);
        for vring in &self.vrings {
            vring.update_log(&self.context);
        }
    }

    fn set_size(&mut self, state: VringState) -> Answer {
        let size =
            u16::try_from(state.value).ok().filter(|size| size.is_power_of_two() && *size <= MAX_RING_SIZE);
        let Some(size) = size else {
            let VringState { index, value } = state;
            let text = format!("size {value} of ring {index} is no power of two up to {MAX_RING_SIZE}");
            return Err(Violation::Value(text).into());
        };
        let (vring, context) = self.vring(state.index)?;
        vring.set_size(size, context);
        Ok(None)
    }

    fn set_addresses(&mut self, addresses: VringAddr) -> Answer {
        let (vring, context) = self.vring(addresses.index)?;
        vring.set_addresses(addresses, context);
        Ok(None)
    }

    fn set_base(&mut self, state: VringState) -> Answer {
        let (vring, _) = self.vring(state.index)?;
        let Ok(base) = u16::try_from(state.value) else {
            let VringState { index, value } = state;
            return Err(Violation::Value(format!("base {value} of ring {index} is no ring index")).into());
        };
        vring.set_base(base);
        Ok(None)
    }

    fn stop_vring(&mut self, index: u32) -> Answer {
        let (vring, _) = self.vring(index)?;
        Ok(Some(Reply::VringState(VringState { index, value: vring.stop().into() })))
    }

    fn start_vring(&mut self, kick: VringFd) -> Answer {
        let (vring, context) = self.vring(kick.index)?;
        vring.start(kick, context).map_err(|error| unusable(&error))?;
        Ok(None)
    }

    fn set_call(&mut self, call: VringFd) -> Answer {
        self.vring(call.index)?.0.set_call(call).map_err(|error| unusable(&error))?;
        Ok(None)
    }

    fn set_err(&mut self, err: VringFd) -> Answer {
        self.vring(err.index)?.0.set_err(err).map_err(|error| unusable(&error))?;
        Ok(None)
    }

    fn enable(&mut self, state: VringState) -> Answer {
        let (vring, context) = self.vring(state.index)?;
        match state.value {
            0 => vring.enable(false, context),
            1 => vring.enable(true, context),
            other => {
                let text = format!("ring {} is to be enabled by {other}, not 0 or 1", state.index);
                return Err(Violation::Value(text).into());
            }
        }
        Ok(None)
    }

    fn announce(&mut self, mac: MacAddr) -> Answer {
        if !mac.is_unicast() {
            return Err(Violation::Value(format!("{mac} is no address to announce")).into());
        }
        self.queues.announce(mac);
        Ok(None)
    }

    fn vring(&mut self, index: u32) -> Result<(&mut Vring, &Context), Violation> {
        let rings = self.vrings.len();
        let vring = self.vrings.get_mut(index as usize).ok_or(Violation::RingIndex { index, rings })?;
        Ok((vring, &self.context))
    }

    /// Frames can reach the frontend, and what it has agreed to, in words.
    pub(super) fn link(&self) -> Link {
        let pairs = self.vrings.chunks_exact(2);
        let running = pairs.filter(|pair| pair.iter().all(Vring::is_running)).count();
        let memory = &self.context.memory;
        let regions = memory.regions().len();
        let names: Vec<_> = self.context.features.names().collect();
        let mut detail = format!(
            "connected: {}{}, {}, {} {}",
            if names.is_empty() { "no features yet".to_owned() } else { names.join(" ") },
            if self.context.log.is_some() { " LOG_ALL" } else { "" },
            count(running, "queue pair"),
            count(regions, "memory region"),
            size(memory.size_bytes()),
        );
        for (index, vring) in self.vrings.iter().enumerate() {
            if let Some(fault) = vring.fault() {
                detail += &format!("; ring {index} stopped: {fault}");
            }
        }
        Link { up: self.vrings.first().is_some_and(Vring::is_running), detail }
    }
}

/// The answer to a request, if it has one.
pub(super) type Answer = Result<Option<Reply>, Failure>;

fn tell(value: u64) -> Answer {
    Ok(Some(Reply::U64(value)))
}

fn refuse(why: impl Into<String>) -> Answer {
    Err(Failure::Refused(why.into()))
}

/// A ring's descriptor is none that can be waited for or written to.
fn unusable(error: &io::Error) -> Failure {
    Violation::Value(format!("a ring's descriptor is no eventfd: {error}")).into()
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}
