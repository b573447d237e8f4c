//! What do the bytes of a request mean? Requests and replies of the vhost-user protocol (QEMU
//! `docs/interop/vhost-user`, "Message specification"), as types.
//!
//! All numbers are in the machine's byte order: both ends live on one machine. [`Message::decode`] checks each request's
//! size and number of descriptors and owns the descriptors from then on: an error closes them all.

use std::os::fd::OwnedFd;

use crate::virtio::RegionSpec;

/// Bytes of the header in front of each payload.
pub(super) const HEADER_BYTES: usize = 12;
/// The longest payload taken: more than the longest defined request, SET_MEM_TABLE with [`MAX_TABLE_REGIONS`].
pub(super) const MAX_PAYLOAD_BYTES: usize = 4096;
/// Descriptors one message may carry.
pub(super) const MAX_FDS: usize = MAX_TABLE_REGIONS;
/// Regions in one SET_MEM_TABLE. QEMU sends 8 at most, others up to this many; more come by ADD_MEM_REG.
const MAX_TABLE_REGIONS: usize = 32;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const FLAG_REPLY: u32 = 1 << 2;
const FLAG_NEED_REPLY: u32 = 1 << 3;

/// SET_VRING_KICK, _CALL, _ERR: no descriptor comes with the message.
const NO_FD: u64 = 1 << 8;
const VRING_INDEX_MASK: u64 = 0xff;
/// SET_VRING_ADDR: writes to the used ring are to be logged (VHOST_VRING_F_LOG).
const ADDR_FLAG_LOG: u32 = 1;
const REGION_BYTES: usize = 32;
const CONFIG_HEADER_BYTES: usize = 12;

/// Why a peer is no vhost-user frontend that can be served. The connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// The header has another protocol version, or is a reply.
    #[error("header flags {0:#x} are not those of a version 1 request")]
    Flags(u32),
    /// No message is that long.
    #[error("a payload of {0} bytes was announced; {MAX_PAYLOAD_BYTES} are the limit")]
    Oversize(u32),
    /// The kernel had to throw descriptors away.
    #[error("more than {MAX_FDS} descriptors in one message")]
    TooManyFds,
    /// A request that does not exist or whose feature was not offered.
    #[error("{} is unknown or was not offered", request::name(*.0))]
    UnknownRequest(u32),
    /// The payload's size is not the request's.
    #[error("{} has {bytes} bytes of payload", request::name(*.request))]
    PayloadSize { request: u32, bytes: usize },
    /// Descriptors are missing or too many.
    #[error("{} comes with {fds} descriptors", request::name(*.request))]
    FdCount { request: u32, fds: usize },
    /// A ring that the port does not have.
    #[error("ring {index} does not exist, the port has {rings}")]
    RingIndex { index: u32, rings: usize },
    /// A feature bit that was not offered.
    #[error("feature bits {0:#x} were not offered")]
    Features(u64),
    /// A protocol feature bit that was not offered.
    #[error("protocol feature bits {0:#x} were not offered")]
    ProtocolFeatures(u64),
    /// A value that the request cannot have.
    #[error("{0}")]
    Value(String),
}

/// The first bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// VHOST_USER_*.
    pub(super) request: u32,
    /// The frontend waits for an answer to this request (with REPLY_ACK).
    pub(super) need_reply: bool,
    /// Bytes that follow.
    pub(super) payload_bytes: usize,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Violation> {
        let mut fields = Fields(bytes);
        let (request, flags, size) = (fields.u32(), fields.u32(), fields.u32());
        if flags & VERSION_MASK != VERSION || flags & FLAG_REPLY != 0 {
            return Err(Violation::Flags(flags));
        }
        if size as usize > MAX_PAYLOAD_BYTES {
            return Err(Violation::Oversize(size));
        }
        Ok(Self { request, need_reply: flags & FLAG_NEED_REPLY != 0, payload_bytes: size as usize })
    }
}

/// An eventfd of a ring, or none because the frontend does not signal (or want to be signalled) by one.
#[derive(Debug)]
pub(super) struct VringFd {
    pub(super) index: u32,
    pub(super) fd: Option<OwnedFd>,
}

/// SET_VRING_NUM, _BASE, _ENABLE and GET_VRING_BASE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VringState {
    pub(super) index: u32,
    pub(super) value: u32,
}

/// SET_VRING_ADDR. The first three addresses are the frontend's own, the last is a guest address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VringAddr {
    pub(super) index: u32,
    pub(super) desc: u64,
    pub(super) used: u64,
    pub(super) avail: u64,
    /// Where the used ring is in the guest, if writes to it are to be logged.
    pub(super) log: Option<u64>,
}

/// SET_LOG_BASE.
#[derive(Debug)]
pub(super) struct LogBase {
    pub(super) size_bytes: u64,
    pub(super) file_offset: u64,
    pub(super) fd: OwnedFd,
}

/// A part of the device's configuration space (virtio 1.2 §5.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConfigRange {
    pub(super) offset: u32,
    pub(super) size: u32,
    pub(super) flags: u32,
}

/// A request of the frontend.
#[derive(Debug)]
pub(super) enum Message {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemTable(Vec<(RegionSpec, OwnedFd)>),
    SetLogBase(LogBase),
    /// The eventfd that tells of changes to the log is not needed: the frontend reads the whole log in its own time.
    SetLogFd,
    SetVringNum(VringState),
    SetVringAddr(VringAddr),
    SetVringBase(VringState),
    GetVringBase(u32),
    SetVringKick(VringFd),
    SetVringCall(VringFd),
    SetVringErr(VringFd),
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    SetVringEnable(VringState),
    /// Announce this address in the network: the guest has moved here.
    SendRarp([u8; 6]),
    NetSetMtu(u64),
    /// The channel for requests of the backend. The switch has none to make.
    SetBackendReqFd,
    GetConfig(ConfigRange),
    SetConfig,
    ResetDevice,
    GetMaxMemSlots,
    AddMemReg(RegionSpec, OwnedFd),
    RemMemReg(RegionSpec),
    SetStatus(u64),
    GetStatus,
}

/// The request numbers, for requests and for replies, and their names.
pub(super) mod request {
    macro_rules! requests {
        ($($name:ident = $number:literal,)*) => {
            $(pub(in super::super) const $name: u32 = $number;)*

            /// What the protocol calls a request, or its number.
            pub(super) fn name(request: u32) -> String {
                match request {
                    $($number => stringify!($name).to_owned(),)*
                    unknown => format!("request {unknown}"),
                }
            }
        };
    }

    requests! {
        GET_FEATURES = 1,
        SET_FEATURES = 2,
        SET_OWNER = 3,
        RESET_OWNER = 4,
        SET_MEM_TABLE = 5,
        SET_LOG_BASE = 6,
        SET_LOG_FD = 7,
        SET_VRING_NUM = 8,
        SET_VRING_ADDR = 9,
        SET_VRING_BASE = 10,
        GET_VRING_BASE = 11,
        SET_VRING_KICK = 12,
        SET_VRING_CALL = 13,
        SET_VRING_ERR = 14,
        GET_PROTOCOL_FEATURES = 15,
        SET_PROTOCOL_FEATURES = 16,
        GET_QUEUE_NUM = 17,
        SET_VRING_ENABLE = 18,
        SEND_RARP = 19,
        NET_SET_MTU = 20,
        SET_BACKEND_REQ_FD = 21,
        GET_CONFIG = 24,
        SET_CONFIG = 25,
        RESET_DEVICE = 34,
        GET_MAX_MEM_SLOTS = 36,
        ADD_MEM_REG = 37,
        REM_MEM_REG = 38,
        SET_STATUS = 39,
        GET_STATUS = 40,
    }
}

impl Message {
    /// The request that `header`, `payload` and `fds` make up.
    pub(super) fn decode(header: Header, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Self, Violation> {
        use request::*;
        let mut body = Body { request: header.request, payload, fds_given: fds.len(), fds };
        let message = match header.request {
            GET_FEATURES => Message::GetFeatures,
            SET_FEATURES => Message::SetFeatures(body.u64()?),
            SET_OWNER => Message::SetOwner,
            RESET_OWNER => Message::ResetOwner,
            SET_MEM_TABLE => Message::SetMemTable(body.mem_table()?),
            SET_LOG_BASE => Message::SetLogBase(body.log_base()?),
            SET_LOG_FD => body.fd().map(|_closed| Message::SetLogFd)?,
            SET_VRING_NUM => Message::SetVringNum(body.vring_state()?),
            SET_VRING_ADDR => Message::SetVringAddr(body.vring_addr()?),
            SET_VRING_BASE => Message::SetVringBase(body.vring_state()?),
            GET_VRING_BASE => Message::GetVringBase(body.vring_state()?.index),
            SET_VRING_KICK => Message::SetVringKick(body.vring_fd()?),
            SET_VRING_CALL => Message::SetVringCall(body.vring_fd()?),
            SET_VRING_ERR => Message::SetVringErr(body.vring_fd()?),
            GET_PROTOCOL_FEATURES => Message::GetProtocolFeatures,
            SET_PROTOCOL_FEATURES => Message::SetProtocolFeatures(body.u64()?),
            GET_QUEUE_NUM => Message::GetQueueNum,
            SET_VRING_ENABLE => Message::SetVringEnable(body.vring_state()?),
            SEND_RARP => body.u64().map(mac_of).map(Message::SendRarp)?,
            NET_SET_MTU => Message::NetSetMtu(body.u64()?),
            SET_BACKEND_REQ_FD => body.fd().map(|_closed| Message::SetBackendReqFd)?,
            GET_CONFIG => Message::GetConfig(body.config_range()?),
            SET_CONFIG => body.config_range().map(|_refused| Message::SetConfig)?,
            RESET_DEVICE => Message::ResetDevice,
            GET_MAX_MEM_SLOTS => Message::GetMaxMemSlots,
            ADD_MEM_REG => Message::AddMemReg(body.single_region()?, body.fd()?),
            REM_MEM_REG => Message::RemMemReg(body.removed_region()?),
            SET_STATUS => Message::SetStatus(body.u64()?),
            GET_STATUS => Message::GetStatus,
            unknown => return Err(Violation::UnknownRequest(unknown)),
        };
        body.finish(message)
    }
}

/// SEND_RARP carries the address in the first six of eight bytes.
fn mac_of(value: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = value.to_ne_bytes();
    [a, b, c, d, e, f]
}

/// What is left of a message while it is decoded.
struct Body<'a> {
    request: u32,
    payload: &'a [u8],
    fds: Vec<OwnedFd>,
    fds_given: usize,
}

impl<'a> Body<'a> {
    /// Takes the whole payload, which must have `bytes` bytes.
    fn exactly(&mut self, bytes: usize) -> Result<Fields<'a>, Violation> {
        if self.payload.len() != bytes {
            return Err(Violation::PayloadSize { request: self.request, bytes: self.payload.len() });
        }
        Ok(Fields(std::mem::take(&mut self.payload)))
    }

    fn fd_count(&self) -> Violation {
        Violation::FdCount { request: self.request, fds: self.fds_given }
    }

    fn fd(&mut self) -> Result<OwnedFd, Violation> {
        self.fds.pop().ok_or(self.fd_count())
    }

    fn u64(&mut self) -> Result<u64, Violation> {
        Ok(self.exactly(8)?.u64())
    }

    fn vring_state(&mut self) -> Result<VringState, Violation> {
        let mut fields = self.exactly(8)?;
        Ok(VringState { index: fields.u32(), value: fields.u32() })
    }

    fn vring_addr(&mut self) -> Result<VringAddr, Violation> {
        let mut fields = self.exactly(40)?;
        let (index, flags) = (fields.u32(), fields.u32());
        let (desc, used, avail, log) = (fields.u64(), fields.u64(), fields.u64(), fields.u64());
        let log = (flags & ADDR_FLAG_LOG != 0).then_some(log);
        Ok(VringAddr { index, desc, used, avail, log })
    }

    fn vring_fd(&mut self) -> Result<VringFd, Violation> {
        let value = self.u64()?;
        let fd = if value & NO_FD == 0 { Some(self.fd()?) } else { None };
        Ok(VringFd { index: (value & VRING_INDEX_MASK) as u32, fd })
    }

    fn log_base(&mut self) -> Result<LogBase, Violation> {
        let mut fields = self.exactly(16)?;
        Ok(LogBase { size_bytes: fields.u64(), file_offset: fields.u64(), fd: self.fd()? })
    }

    fn mem_table(&mut self) -> Result<Vec<(RegionSpec, OwnedFd)>, Violation> {
        let size = Violation::PayloadSize { request: self.request, bytes: self.payload.len() };
        let mut count = Fields(self.payload.get(..8).ok_or(size.clone())?);
        let regions = count.u32() as usize;
        if regions > MAX_TABLE_REGIONS {
            return Err(size);
        }
        let mut fields = self.exactly(8 + regions * REGION_BYTES)?;
        fields.u64();
        if self.fds.len() != regions {
            return Err(self.fd_count());
        }
        Ok(self.fds.drain(..).map(|fd| (fields.region(), fd)).collect())
    }

    fn single_region(&mut self) -> Result<RegionSpec, Violation> {
        let mut fields = self.exactly(8 + REGION_BYTES)?;
        fields.u64();
        Ok(fields.region())
    }

    /// REM_MEM_REG may come with the region's descriptor, which is not needed.
    fn removed_region(&mut self) -> Result<RegionSpec, Violation> {
        self.fds.truncate(self.fds.len().saturating_sub(1));
        self.single_region()
    }

    /// GET_CONFIG and SET_CONFIG: a range, followed by that many bytes.
    fn config_range(&mut self) -> Result<ConfigRange, Violation> {
        let size = Violation::PayloadSize { request: self.request, bytes: self.payload.len() };
        let mut fields = Fields(self.payload.get(..CONFIG_HEADER_BYTES).ok_or(size.clone())?);
        let range = ConfigRange { offset: fields.u32(), size: fields.u32(), flags: fields.u32() };
        if range.size as usize != self.payload.len() - CONFIG_HEADER_BYTES {
            return Err(size);
        }
        self.payload = &[];
        Ok(range)
    }

    /// `message`, unless payload or descriptors are left that it does not have.
    fn finish(self, message: Message) -> Result<Message, Violation> {
        if !self.fds.is_empty() {
            return Err(self.fd_count());
        }
        if !self.payload.is_empty() {
            return Err(Violation::PayloadSize { request: self.request, bytes: self.payload.len() });
        }
        Ok(message)
    }
}

/// Numbers from the front of bytes whose length was checked; zero behind their end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.0 = rest;
                *bytes
            }
            None => [0; N],
        }
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    fn region(&mut self) -> RegionSpec {
        RegionSpec {
            guest_addr: self.u64(),
            size_bytes: self.u64(),
            user_addr: self.u64(),
            file_offset: self.u64(),
        }
    }
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    U64(u64),
    VringState(VringState),
    /// SET_LOG_BASE comes back as it went.
    Log {
        size_bytes: u64,
        file_offset: u64,
    },
    /// A part of the configuration space; no payload at all if there is no such part.
    Config(ConfigRange, Vec<u8>),
    NoConfig,
}

impl Reply {
    /// Writes the reply to `request` behind what `to` holds.
    pub(super) fn encode(&self, request: u32, to: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(16);
        match self {
            Reply::U64(value) => payload.extend(value.to_ne_bytes()),
            Reply::VringState(state) => {
                payload.extend(state.index.to_ne_bytes());
                payload.extend(state.value.to_ne_bytes());
            }
            Reply::Log { size_bytes, file_offset } => {
                payload.extend(size_bytes.to_ne_bytes());
                payload.extend(file_offset.to_ne_bytes());
            }
            Reply::Config(range, bytes) => {
                for field in [range.offset, range.size, range.flags] {
                    payload.extend(field.to_ne_bytes());
                }
                payload.extend_from_slice(bytes);
            }
            Reply::NoConfig => {}
        }
        for field in [request, VERSION | FLAG_REPLY, payload.len() as u32] {
            to.extend(field.to_ne_bytes());
        }
        to.extend(payload);
    }
}
