//! How does a test's network card behave? It answers the kernel's requests, and pings.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ::vduse::{
    Control, Device, DeviceConfig, DeviceId, DeviceName, Error, RequestKind, Response, Status, Umem,
    VqConfig, VqGroups, VqState, feature,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::ring::{HEADER_BYTES, Memory, Ring};

pub(super) const RX: u32 = 0;
pub(super) const TX: u32 = 1;
/// Entries that the test's rings may have.
pub(super) const RING_SIZE: u16 = 256;
pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// `VIRTIO_NET_F_MAC`, `VIRTIO_NET_F_STATUS` (virtio 1.3 §5.1.3).
pub(super) const NET_FEATURES: u64 = 1 << 5 | 1 << 16;

pub(super) fn name(text: &str) -> DeviceName {
    DeviceName::new(text).expect("a name")
}

/// A card with one pair of queues, and its link up.
pub(super) fn net(text: &str) -> DeviceConfig {
    // struct virtio_net_config: address, status, pairs of queues, MTU.
    let config = [&MAC[..], &1u16.to_le_bytes(), &1u16.to_le_bytes(), &1500u16.to_le_bytes()].concat();
    DeviceConfig {
        name: name(text),
        vendor_id: 0x1af4,
        device_id: DeviceId::NET,
        features: feature::VERSION_1 | feature::ACCESS_PLATFORM | NET_FEATURES,
        vq_num: 2,
        vq_align: 4096,
        groups: VqGroups::ONE,
        config,
    }
}

/// Creates the card, and sets its queues up.
pub(super) fn create(text: &str) -> Device {
    let control = Control::open().expect("the control device");
    control.create_dev(&net(text)).expect("a new device");
    let device = Device::open(&name(text)).expect("the device");
    for index in [RX, TX] {
        device.vq_setup(VqConfig::new(index, RING_SIZE)).expect("a virtqueue");
    }
    device
}

pub(super) fn destroy(text: &str) {
    Control::open().expect("the control device").destroy_dev(&name(text)).expect("destroyed");
}

/// What a card does with the request to accept the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Features {
    Accept,
    Refuse,
}

/// What has happened to a card so far.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) requests: Vec<RequestKind>,
    /// Wake-ups by a kick of the transmit queue.
    pub(super) kicks: usize,
    /// Packets that the driver sent, and those of them that were pings.
    pub(super) packets: usize,
    pub(super) pings: usize,
    /// How the card's thread ended, if not because it was told to.
    pub(super) error: Option<String>,
}

/// A card at work, on a thread of its own.
pub(super) struct Card {
    device: Arc<Device>,
    memory: Arc<Mutex<Memory>>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Card {
    pub(super) fn start(device: Device, features: Features) -> Self {
        let device = Arc::new(device);
        let memory = Arc::new(Mutex::new(Memory::default()));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"));
        let work =
            Work { features, memory: memory.clone(), seen: seen.clone(), stop: stop.clone(), rings: None };
        let thread = {
            let device = device.clone();
            std::thread::spawn(move || work.run(&device))
        };
        Self { device, memory, seen, stop, thread: Some(thread) }
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }

    /// The status that was asked for last.
    pub(super) fn status(&self) -> Option<Status> {
        self.seen().requests.iter().rev().find_map(|request| match request {
            RequestKind::SetStatus(status) => Some(*status),
            _ => None,
        })
    }

    /// Puts `umem` in the bounce buffer's place, while no packet is copied.
    pub(super) fn register(&self, umem: Umem) -> Result<(), Error> {
        let mut memory = locked(&self.memory);
        self.device.reg_umem(&umem, 0, 0)?;
        memory.umem = Some(umem);
        Ok(())
    }

    /// Gives the bounce buffer back, while no packet is copied.
    pub(super) fn deregister(&self) -> Result<(), Error> {
        let mut memory = locked(&self.memory);
        let bytes = memory.umem.as_ref().map_or(0, Umem::len);
        self.device.dereg_umem(0, bytes, 0)?;
        memory.umem = None;
        Ok(())
    }

    /// Ends the thread, and closes the device.
    pub(super) fn end(mut self) {
        self.stop_thread();
        let error = self.seen().error.take();
        assert_eq!(error, None);
    }

    fn stop_thread(&mut self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).expect("a signal");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the card's thread");
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop_thread();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a card's thread has.
struct Work {
    features: Features,
    memory: Arc<Mutex<Memory>>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<OwnedFd>,
    rings: Option<Running>,
}

struct Running {
    rx: Ring,
    tx: Ring,
    kick: OwnedFd,
}

impl Work {
    fn run(mut self, device: &Device) {
        if let Err(error) = self.serve(device) {
            locked(&self.seen).error = Some(error.to_string());
        }
    }

    fn serve(&mut self, device: &Device) -> Result<(), Error> {
        // A device may have been running when another process left it.
        self.begin(device)?;
        loop {
            let mut fds = vec![
                PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN),
            ];
            fds.extend(self.rings.as_ref().map(|rings| PollFd::new(&rings.kick, PollFlags::IN)));
            poll(&mut fds, None).expect("poll");
            let woken: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if woken[0] {
                return Ok(());
            }
            if woken.get(2) == Some(&true) {
                self.kicked(device)?;
            }
            if woken[1] {
                self.asked(device)?;
            }
        }
    }

    fn asked(&mut self, device: &Device) -> Result<(), Error> {
        let Some(request) = device.try_read_request()? else { return Ok(()) };
        locked(&self.seen).requests.push(request.kind());
        let response = match request.kind() {
            RequestKind::SetStatus(status) => self.set_status(device, status)?,
            RequestKind::GetVqState { .. } => {
                let avail_index = self.rings.as_ref().map_or(0, |rings| rings.tx.done());
                Response::VqState(VqState::Split { avail_index })
            }
            RequestKind::UpdateIotlb { .. } => {
                *locked(&self.memory) = Memory::default();
                Response::Ok
            }
            RequestKind::SetVqReady { .. } | RequestKind::SetVqGroupAsid { .. } | RequestKind::Suspend => {
                Response::Ok
            }
            _ => Response::Failed,
        };
        device.respond(request, response)
    }

    fn set_status(&mut self, device: &Device, status: Status) -> Result<Response, Error> {
        if status.contains(Status::DRIVER_OK) {
            self.begin(device)?;
        } else if status.is_empty() {
            self.rings = None;
            *locked(&self.memory) = Memory::default();
        } else if status.contains(Status::FEATURES_OK) && self.features == Features::Refuse {
            return Ok(Response::Failed);
        }
        Ok(Response::Ok)
    }

    /// Finds the rings, if there are any, and has the kernel wake this thread.
    fn begin(&mut self, device: &Device) -> Result<(), Error> {
        if !device.vq_get_info(TX)?.ready {
            return Ok(());
        }
        let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
        device.vq_setup_kickfd(TX, Some(kick.as_fd()))?;
        let mut memory = locked(&self.memory);
        let rx = Ring::new(device, &mut memory, RX);
        let tx = Ring::new(device, &mut memory, TX);
        drop(memory);
        self.rings = Some(Running { rx, tx, kick });
        // What was kicked for before anybody listened.
        self.pump(device)
    }

    fn kicked(&mut self, device: &Device) -> Result<(), Error> {
        let Some(rings) = &self.rings else { return Ok(()) };
        let mut count = [0; 8];
        rustix::io::read(&rings.kick, &mut count).expect("a kick");
        locked(&self.seen).kicks += 1;
        self.pump(device)
    }

    /// Takes what the driver sends; what is a ping is answered.
    fn pump(&mut self, device: &Device) -> Result<(), Error> {
        let Some(Running { rx, tx, .. }) = &mut self.rings else { return Ok(()) };
        let mut memory = locked(&self.memory);
        while let Some(packet) = tx.take(device, &mut memory) {
            device.inject_vq_irq(TX)?;
            locked(&self.seen).packets += 1;
            if let Some(answer) = answer(&packet) {
                locked(&self.seen).pings += 1;
                rx.put(device, &mut memory, &answer);
                device.inject_vq_irq(RX)?;
            }
        }
        Ok(())
    }
}

/// The echo reply (RFC 792) to `packet`, if it is an echo request. Both with the virtio-net header.
fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    const ETHERTYPE: usize = HEADER_BYTES + 12;
    const IP: usize = HEADER_BYTES + 14;
    const ICMP: usize = IP + 20;
    const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
    let is_request = packet.len() >= ICMP + 8
        && packet[ETHERTYPE..IP] == [8, 0]
        && packet[IP] == IPV4_WITHOUT_OPTIONS
        && packet[IP + 9] == 1
        && packet[ICMP] == 8;
    if !is_request {
        return None;
    }
    let mut reply = packet.to_vec();
    // No offload, and one buffer.
    reply[..HEADER_BYTES].fill(0);
    reply[HEADER_BYTES - 2] = 1;
    let (to, from) = reply[HEADER_BYTES..ETHERTYPE].split_at_mut(6);
    to.swap_with_slice(from);
    let (to, from) = reply[IP + 12..ICMP].split_at_mut(4);
    to.swap_with_slice(from);
    reply[ICMP] = 0;
    // RFC 1624: the sum of the words became less by 0x0800, so that its complement becomes more.
    let sum = u32::from(u16::from_be_bytes([reply[ICMP + 2], reply[ICMP + 3]])) + 0x0800;
    let sum = (sum & 0xffff) + (sum >> 16);
    reply[ICMP + 2..ICMP + 4].copy_from_slice(&(sum as u16).to_be_bytes());
    Some(reply)
}
