//! When does a ring run? What the frontend said of one ring, and the slot in which it runs.
//!
//! A ring *starts* when its kick arrives and runs once its size and addresses are known and lie in the guest's memory.
//! It *stops* at GET_VRING_BASE and with its connection. A ring that cannot be placed waits for the message that cures
//! it: new addresses, or other memory.

use std::io;
use std::sync::Arc;

use super::message::{VringAddr, VringFd};
use crate::virtio::{
    AddressSpace, DirtyLog, Features, GuestMemory, QueueLog, QueueSetup, QueueSlot, RingAddresses, RingError,
    SlotState,
};

/// What all rings of a connection share.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) features: Features,
    pub(super) memory: Arc<GuestMemory>,
    /// Set while the frontend wants dirty pages logged.
    pub(super) log: Option<Arc<DirtyLog>>,
    /// Rings need no SET_VRING_ENABLE (the frontend knows no protocol features).
    pub(super) always_enabled: bool,
}

/// One ring as the frontend describes it.
#[derive(Debug)]
pub(super) struct Vring {
    slot: Arc<QueueSlot>,
    size: Option<u16>,
    addresses: Option<VringAddr>,
    /// What GET_VRING_BASE answers for a ring that is not placed.
    base: u16,
    started: bool,
    enabled: bool,
    /// Why a started ring could not be placed.
    misplaced: Option<RingError>,
}

impl Vring {
    pub(super) fn new(slot: Arc<QueueSlot>) -> Self {
        Self { slot, size: None, addresses: None, base: 0, started: false, enabled: false, misplaced: None }
    }

    pub(super) fn set_size(&mut self, size: u16, context: &Context) {
        self.size = Some(size);
        self.place(context);
    }

    pub(super) fn set_addresses(&mut self, addresses: VringAddr, context: &Context) {
        self.addresses = Some(addresses);
        self.place(context);
    }

    /// The position that a ring starts at is read from its used index, as DPDK does too: it is right even if the switch
    /// was killed and the frontend knows an old position, or none and says 0. So `base` is only kept to be told.
    pub(super) fn set_base(&mut self, base: u16) {
        self.base = base;
    }

    /// The kick arrived: the ring starts.
    pub(super) fn start(&mut self, kick: VringFd, context: &Context) -> io::Result<()> {
        self.slot.set_kick(kick.fd)?;
        self.started = true;
        self.place(context);
        Ok(())
    }

    pub(super) fn set_call(&self, call: VringFd) -> io::Result<()> {
        self.slot.set_call(call.fd)
    }

    pub(super) fn set_err(&self, err: VringFd) -> io::Result<()> {
        self.slot.set_err(err.fd)
    }

    pub(super) fn enable(&mut self, enabled: bool, context: &Context) {
        self.enabled = enabled;
        self.slot.set_enabled(enabled || context.always_enabled);
    }

    /// Stops the ring until the next kick arrives, and tells where it stood. The kick is let go; the call stays, because
    /// not every frontend sends it again.
    pub(super) fn stop(&mut self) -> u16 {
        self.unplace();
        self.started = false;
        self.misplaced = None;
        // Letting go cannot fail: nothing is waited for.
        let _ = self.slot.set_kick(None);
        self.base
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.slot.reset();
        *self = Self::new(Arc::clone(&self.slot));
    }

    /// Puts a started ring where the frontend says it is now; whatever changed, the ring runs on where it stood.
    pub(super) fn place(&mut self, context: &Context) {
        self.unplace();
        self.misplaced = None;
        let (true, Some(size), Some(addresses)) = (self.started, self.size, self.addresses) else { return };
        self.slot.set_enabled(self.enabled || context.always_enabled);
        let setup = QueueSetup {
            size,
            addresses: RingAddresses {
                space: AddressSpace::User,
                desc: addresses.desc,
                avail: addresses.avail,
                used: addresses.used,
            },
            features: context.features,
            memory: Arc::clone(&context.memory),
            log: self.log(context),
        };
        self.misplaced = self.slot.install(setup).err();
    }

    fn unplace(&mut self) {
        if let Some(position) = self.slot.remove() {
            self.base = position.next_avail;
        }
    }

    /// The log has changed, or whether it is wanted.
    pub(super) fn update_log(&self, context: &Context) {
        self.slot.set_log(self.log(context));
    }

    fn log(&self, context: &Context) -> Option<QueueLog> {
        let log = Arc::clone(context.log.as_ref()?);
        Some(QueueLog { log, used_guest_addr: self.addresses.and_then(|addresses| addresses.log) })
    }

    pub(super) fn is_running(&self) -> bool {
        self.slot.is_running()
    }

    /// Why a ring that was started does not run.
    pub(super) fn fault(&self) -> Option<RingError> {
        match self.slot.state() {
            SlotState::Broken(fault) => Some(fault),
            _ => self.misplaced.clone(),
        }
    }
}

impl Drop for Vring {
    /// Nothing of a frontend outlives its connection.
    fn drop(&mut self) {
        self.slot.reset();
    }
}
