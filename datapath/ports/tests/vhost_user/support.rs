//! A frontend made by hand: whatever bytes and descriptors a test wants, and a driver that works its rings by reading
//! and writing the memory's file.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use frame::Burst;
use ports::vhost_user::{Role, VhostUserControl, VhostUserSpec};
use ports::{Device, PollReport, RxQueue, TxQueue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::MemfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub(crate) const GET_FEATURES: u32 = 1;
pub(crate) const SET_FEATURES: u32 = 2;
pub(crate) const SET_OWNER: u32 = 3;
pub(crate) const SET_MEM_TABLE: u32 = 5;
pub(crate) const SET_LOG_BASE: u32 = 6;
pub(crate) const SET_VRING_NUM: u32 = 8;
pub(crate) const SET_VRING_ADDR: u32 = 9;
pub(crate) const SET_VRING_BASE: u32 = 10;
pub(crate) const GET_VRING_BASE: u32 = 11;
pub(crate) const SET_VRING_KICK: u32 = 12;
pub(crate) const SET_VRING_CALL: u32 = 13;
pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
pub(crate) const GET_QUEUE_NUM: u32 = 17;
pub(crate) const SET_VRING_ENABLE: u32 = 18;
pub(crate) const SEND_RARP: u32 = 19;
pub(crate) const NET_SET_MTU: u32 = 20;
pub(crate) const GET_CONFIG: u32 = 24;
pub(crate) const RESET_DEVICE: u32 = 34;
pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
pub(crate) const ADD_MEM_REG: u32 = 37;
pub(crate) const REM_MEM_REG: u32 = 38;
pub(crate) const SET_STATUS: u32 = 39;
pub(crate) const GET_STATUS: u32 = 40;

pub(crate) const FEATURE_MRG_RXBUF: u64 = 1 << 15;
pub(crate) const FEATURE_LOG_ALL: u64 = 1 << 26;
pub(crate) const FEATURE_PROTOCOL: u64 = 1 << 30;
pub(crate) const FEATURE_VERSION_1: u64 = 1 << 32;
pub(crate) const PROTOCOL_REPLY_ACK: u64 = 1 << 3;

const VERSION: u32 = 1;
pub(crate) const FLAG_REPLY: u32 = 1 << 2;
pub(crate) const FLAG_NEED_REPLY: u32 = 1 << 3;

/// How long anything may take before a test fails: far more than it does take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const MEMORY_BYTES: u64 = 1 << 20;
/// Addresses of the frontend's own, unlike guest addresses, so that a mix-up shows.
pub(crate) const USER_BASE: u64 = 0x7000_0000_0000;
pub(crate) const GUEST_BASE: u64 = 0x10_0000;
const RING_STRIDE: u64 = 0x1_0000;
pub(crate) const RING_SIZE: u16 = 8;
const BUFFER_BYTES: u64 = 2048;
const NET_HEADER_BYTES: usize = 12;

/// Waits until `done`, with a deadline instead of a hope.
#[allow(clippy::disallowed_methods, reason = "a test's deadline")]
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A port of a control thread of its own, in a directory of its own.
pub(crate) struct TestPort {
    pub(crate) device: Device,
    pub(crate) control: Arc<VhostUserControl>,
    pub(crate) directory: tempfile::TempDir,
}

impl TestPort {
    pub(crate) fn create() -> Self {
        Self::with(|spec| spec)
    }

    pub(crate) fn with(change: impl FnOnce(VhostUserSpec) -> VhostUserSpec) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let control = VhostUserControl::start().unwrap();
        let spec = change(create_spec(&directory.path().join("vu.sock")));
        let device = control.open(spec).unwrap();
        Self { device, control, directory }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("vu.sock")
    }

    pub(crate) fn detail(&self) -> String {
        self.device.handle.link().detail
    }

    /// Waits until the port has let go of its last frontend, and tells why it did.
    pub(crate) fn wait_for_parting(&self) -> String {
        wait_for("the connection to end", || {
            self.detail().contains(';') && !self.detail().contains("connected:")
        });
        self.detail()
    }

    pub(crate) fn wait_for_up(&self) {
        wait_for("the link to be up", || self.device.handle.link().up);
    }
}

pub(crate) fn create_spec(path: &Path) -> VhostUserSpec {
    let role = Role::Create {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        mode: 0o660,
    };
    VhostUserSpec { socket_path: path.to_owned(), role, queue_pairs: 2, mac: None, mtu_bytes: 1500 }
}

/// Polls queue `index` until it gives a frame, and gives that.
pub(crate) fn poll_frame(device: &mut Device, index: usize) -> Vec<u8> {
    let mut burst = Burst::new();
    let mut frames = Vec::new();
    wait_for("a frame from the guest", || {
        device.rx[index].poll(&mut burst, &mut |burst| {
            frames.extend((0..burst.len()).map(|at| burst.gather(at).to_vec()));
        });
        !frames.is_empty()
    });
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

/// Polls `from` once and sends what it gave by `to`.
pub(crate) fn forward(from: &mut dyn RxQueue, to: &dyn TxQueue, burst: &mut Burst) -> PollReport {
    from.poll(burst, &mut |burst| {
        let all: Vec<u8> = (0..burst.len() as u8).collect();
        to.send(burst, &all);
    })
}

/// Sends `bytes` as one frame by queue `index`; true if the device took it.
pub(crate) fn send_frame(device: &Device, index: usize, bytes: &[u8]) -> bool {
    let (mut memory, peer) = ports::mem::open(ports::mem::MemSpec::default()).unwrap();
    assert!(peer.inject(bytes.to_vec()));
    let mut taken = 0;
    let mut burst = Burst::new();
    memory.rx[0].poll(&mut burst, &mut |burst| taken += device.tx[index].send(burst, &[0]).frames);
    taken == 1
}

/// The frontend's end of a connection.
pub(crate) struct Frontend {
    pub(crate) socket: UnixStream,
    pub(crate) memory: File,
    /// Each ring's next available index.
    avail: Vec<u16>,
}

impl Frontend {
    pub(crate) fn connect(path: &Path) -> Self {
        Self::on(UnixStream::connect(path).unwrap())
    }

    pub(crate) fn on(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, memory: memfd(MEMORY_BYTES), avail: vec![0; 8] }
    }

    /// Sends raw bytes with descriptors; an error when the switch has gone.
    pub(crate) fn raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let sent = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        assert_eq!(sent, bytes.len());
        Ok(())
    }

    pub(crate) fn flagged(
        &self,
        request: u32,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> rustix::io::Result<()> {
        self.raw(&message(request, flags, payload), fds)
    }

    /// A request without acknowledgement. A frontend that was cut off finds out when it reads.
    pub(crate) fn request(&self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        let _ = self.flagged(request, 0, payload, fds);
    }

    /// A request that is to be acknowledged; its answer.
    pub(crate) fn acknowledged(&self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> u64 {
        self.flagged(request, FLAG_NEED_REPLY, payload, fds).unwrap();
        self.reply_u64(request)
    }

    pub(crate) fn reply(&self, request: u32) -> Vec<u8> {
        let mut header = [0; 12];
        (&self.socket).read_exact(&mut header).unwrap();
        assert_eq!(u32_at(&header, 0), request);
        assert_eq!(u32_at(&header, 4), VERSION | FLAG_REPLY);
        let mut payload = vec![0; u32_at(&header, 8) as usize];
        (&self.socket).read_exact(&mut payload).unwrap();
        payload
    }

    pub(crate) fn reply_u64(&self, request: u32) -> u64 {
        u64::from_ne_bytes(self.reply(request).try_into().unwrap())
    }

    pub(crate) fn ask(&self, request: u32) -> u64 {
        self.request(request, &[], &[]);
        self.reply_u64(request)
    }

    /// True if the switch has closed the connection (waits for it).
    pub(crate) fn is_cut_off(&self) -> bool {
        let mut rest = Vec::new();
        match (&self.socket).read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Everything up to running rings for `pairs` queue pairs, as QEMU does it.
    pub(crate) fn start(&mut self, pairs: u32) {
        for step in 0..Self::steps(pairs) {
            self.step(step);
        }
    }

    /// Steps of [`Frontend::start`], for tests that stop in the middle.
    pub(crate) fn steps(pairs: u32) -> u32 {
        5 + 6 * 2 * pairs
    }

    pub(crate) fn step(&mut self, step: u32) {
        let features = FEATURE_VERSION_1 | FEATURE_MRG_RXBUF | FEATURE_PROTOCOL;
        match step {
            0 => assert_eq!(self.ask(GET_FEATURES) & features, features),
            1 => self.request(SET_PROTOCOL_FEATURES, &PROTOCOL_REPLY_ACK.to_ne_bytes(), &[]),
            2 => self.request(SET_OWNER, &[], &[]),
            3 => self.request(SET_FEATURES, &features.to_ne_bytes(), &[]),
            4 => self.set_memory(),
            _ => {
                let (ring, part) = ((step - 5) / 6, (step - 5) % 6);
                self.set_ring_part(ring, part);
            }
        }
    }

    fn set_ring_part(&mut self, ring: u32, part: u32) {
        match part {
            0 => self.request(SET_VRING_NUM, &state(ring, RING_SIZE.into()), &[]),
            1 => self.request(SET_VRING_BASE, &state(ring, 0), &[]),
            2 => self.request(SET_VRING_ADDR, &addresses(ring), &[]),
            3 => self.request(SET_VRING_CALL, &u64::from(ring).to_ne_bytes(), &[event().as_fd()]),
            4 => self.request(SET_VRING_KICK, &u64::from(ring).to_ne_bytes(), &[event().as_fd()]),
            _ => self.request(SET_VRING_ENABLE, &state(ring, 1), &[]),
        }
    }

    pub(crate) fn set_memory(&self) {
        let mut payload = [1u32, 0].map(u32::to_ne_bytes).concat();
        payload.extend(region());
        self.request(SET_MEM_TABLE, &payload, &[self.memory.as_fd()]);
    }

    /// GET_VRING_BASE: stops the ring.
    pub(crate) fn stop_ring(&self, ring: u32) -> u32 {
        self.request(GET_VRING_BASE, &state(ring, 0), &[]);
        let reply = self.reply(GET_VRING_BASE);
        assert_eq!(u32_at(&reply, 0), ring);
        u32_at(&reply, 4)
    }

    /// The guest sends a frame by pair `pair`.
    pub(crate) fn transmit(&mut self, pair: u32, frame: &[u8]) {
        let ring = 2 * pair + 1;
        let mut bytes = vec![0; NET_HEADER_BYTES];
        bytes.extend_from_slice(frame);
        let slot = self.avail[ring as usize] % RING_SIZE;
        self.memory.write_all_at(&bytes, buffer(ring, slot)).unwrap();
        self.offer(ring, bytes.len() as u32, 0);
    }

    /// The guest gives a buffer for a frame to pair `pair`.
    pub(crate) fn post(&mut self, pair: u32) {
        self.offer(2 * pair, BUFFER_BYTES as u32, 2);
    }

    /// Makes one descriptor available.
    fn offer(&mut self, ring: u32, len: u32, flags: u16) {
        let index = self.avail[ring as usize];
        let slot = index % RING_SIZE;
        let mut descriptor = (GUEST_BASE + buffer(ring, slot)).to_le_bytes().to_vec();
        descriptor.extend(len.to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend([0, 0]);
        let base = u64::from(ring) * RING_STRIDE;
        self.memory.write_all_at(&descriptor, base + 16 * u64::from(slot)).unwrap();
        self.memory.write_all_at(&slot.to_le_bytes(), base + 0x1004 + 2 * u64::from(slot)).unwrap();
        self.set_avail(ring, index.wrapping_add(1));
    }

    pub(crate) fn set_avail(&mut self, ring: u32, index: u16) {
        self.avail[ring as usize] = index;
        let at = u64::from(ring) * RING_STRIDE + 0x1002;
        self.memory.write_all_at(&index.to_le_bytes(), at).unwrap();
    }

    pub(crate) fn avail(&self, ring: u32) -> u16 {
        self.avail[ring as usize]
    }

    pub(crate) fn used(&self, ring: u32) -> u16 {
        let mut index = [0; 2];
        self.memory.read_exact_at(&mut index, u64::from(ring) * RING_STRIDE + 0x2002).unwrap();
        u16::from_le_bytes(index)
    }

    /// The frame in the buffer that pair `pair` filled last.
    pub(crate) fn received(&self, pair: u32) -> Vec<u8> {
        let ring = 2 * pair;
        let slot = self.used(ring).wrapping_sub(1) % RING_SIZE;
        let mut entry = [0; 8];
        let at = u64::from(ring) * RING_STRIDE + 0x2004 + 8 * u64::from(slot);
        self.memory.read_exact_at(&mut entry, at).unwrap();
        let mut bytes = vec![0; u32_at(&entry, 4) as usize];
        self.memory.read_exact_at(&mut bytes, buffer(ring, slot)).unwrap();
        bytes.split_off(NET_HEADER_BYTES)
    }
}

fn buffer(ring: u32, slot: u16) -> u64 {
    u64::from(ring) * RING_STRIDE + 0x4000 + u64::from(slot) * BUFFER_BYTES
}

pub(crate) fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = [request, VERSION | flags, payload.len() as u32];
    let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn state(index: u32, value: u32) -> Vec<u8> {
    [index, value].map(u32::to_ne_bytes).concat()
}

pub(crate) fn addresses(ring: u32) -> Vec<u8> {
    let base = USER_BASE + u64::from(ring) * RING_STRIDE;
    let mut payload = state(ring, 0);
    for field in [base, base + 0x2000, base + 0x1000, 0] {
        payload.extend(field.to_ne_bytes());
    }
    payload
}

/// The one region of a [`Frontend`]'s memory.
pub(crate) fn region() -> Vec<u8> {
    [GUEST_BASE, MEMORY_BYTES, USER_BASE, 0].into_iter().flat_map(u64::to_ne_bytes).collect()
}

/// The same, as ADD_MEM_REG and REM_MEM_REG want it.
pub(crate) fn single_region() -> Vec<u8> {
    let mut payload = vec![0; 8];
    payload.extend(region());
    payload
}

pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

pub(crate) fn memfd(bytes: u64) -> File {
    let file = File::from(rustix::fs::memfd_create("vhost-user-test", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(bytes).unwrap();
    file
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}
