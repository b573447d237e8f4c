//! How is the kernel's generic netlink family `vdpa` asked? It answers in the node's own network namespace only.
//!
//! The kernel does what is asked within `send`, under one lock for the whole vDPA bus; so a call ends when whoever serves
//! the device has answered the kernel, and may have to wait for another's. [`super::limit`] bounds that.

use std::fmt::Debug;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator, parse_string, parse_u32,
};
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;

use super::message::{FAMILY, Message};
use crate::errno_of;

/// Messages of one answer: more than there can be devices.
const MAX_MESSAGES: usize = 1 << 16;
/// The attribute with the kernel's sentence (`enum nlmsgerr_attrs`).
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGHDR_BYTES: usize = 16;

/// Why the kernel did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its number, and its sentence where it has one.
    Errno(Errno, Option<String>),
    /// Its answer makes no sense.
    Unreadable(String),
}

impl Refusal {
    /// Whether the kernel said this number.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Errno(found, _) if *found == errno)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Errno(errno, None) => write!(f, "{}", std::io::Error::from(*errno)),
            Self::Errno(errno, Some(said)) => write!(f, "{} ({said})", std::io::Error::from(*errno)),
            Self::Unreadable(why) => write!(f, "the kernel's answer cannot be read: {why}"),
        }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO), None)
    }
}

/// The family, ready to be asked.
#[derive(Debug)]
pub(crate) struct Family {
    socket: Socket,
    id: u16,
}

impl Family {
    /// Finds the family.
    ///
    /// # Errors
    /// ENOENT: the module `vdpa` is missing, or this is a network namespace of a container.
    pub(crate) fn open() -> Result<Self, Refusal> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel's own words for a refusal, without our own back.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        let name = GenlCtrlAttrs::FamilyName(FAMILY.to_owned());
        let request = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] };
        let answers = exchange(&socket, GenlMessage::from_payload(request), NLM_F_ACK)?;
        let ids = answers.iter().flat_map(|answer| &answer.payload.nlas);
        let id = ids.into_iter().find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
        let id = id.ok_or_else(|| Refusal::Unreadable(format!("family {FAMILY} has no number")))?;
        Ok(Self { socket, id })
    }

    /// Asks for something to be done or told.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn ask(&self, request: Message) -> Result<Vec<Message>, Refusal> {
        self.exchange(request, NLM_F_ACK)
    }

    /// Asks for all there are.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn list(&self, request: Message) -> Result<Vec<Message>, Refusal> {
        self.exchange(request, NLM_F_DUMP)
    }

    fn exchange(&self, request: Message, flags: u16) -> Result<Vec<Message>, Refusal> {
        let mut message = GenlMessage::from_payload(request);
        message.set_resolved_family_id(self.id);
        let answers = exchange(&self.socket, message, flags)?;
        Ok(answers.into_iter().map(|answer| answer.into_parts().1).collect())
    }
}

/// One request and all of its answer.
fn exchange<T>(socket: &Socket, request: T, flags: u16) -> Result<Vec<T>, Refusal>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug + Into<NetlinkPayload<T>>,
{
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut packet = NetlinkMessage::new(header, request.into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (bytes, sender) = socket.recv_from_full()?;
        // Any process may write to the socket; number 0 is the kernel.
        if sender.port_number() == 0 && take(&bytes, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Adds the messages of one datagram to `answers`; true if the answer is complete.
fn take<T: NetlinkDeserializable>(bytes: &[u8], answers: &mut Vec<T>) -> Result<bool, Refusal> {
    let unreadable = |error: netlink_packet_core::DecodeError| Refusal::Unreadable(error.to_string());
    let mut rest = bytes;
    while !rest.is_empty() {
        let message = NetlinkMessage::<T>::deserialize(rest).map_err(unreadable)?;
        let length = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::Done(done) => return refused(done.code, None).map(|()| true),
            NetlinkPayload::Error(error) => {
                let said = sentence(message.header.flags, &error.header);
                return refused(error.raw_code(), said).map(|()| true);
            }
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Overrun(_) => return Err(Refusal::Errno(Errno::NOBUFS, None)),
            _ => {}
        }
        if answers.len() > MAX_MESSAGES {
            return Err(Refusal::Unreadable("it has no end".to_owned()));
        }
    }
    Ok(false)
}

/// Errors are numbers below zero.
fn refused(code: i32, said: Option<String>) -> Result<(), Refusal> {
    match code {
        0.. => Ok(()),
        code => Err(Refusal::Errno(errno_of(code), said)),
    }
}

/// The kernel's sentence in an error: behind the request's header, and its payload where that is repeated.
fn sentence(flags: u16, behind_code: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = if flags & NLM_F_CAPPED != 0 {
        NLMSGHDR_BYTES
    } else {
        (parse_u32(behind_code.get(..4)?).ok()? as usize).checked_next_multiple_of(4)?
    };
    let attributes = NlasIterator::new(behind_code.get(request..)?).map_while(Result::ok);
    let said =
        |nla: NlaBuffer<&[u8]>| (nla.kind() == NLMSGERR_ATTR_MSG).then(|| parse_string(nla.value()).ok());
    attributes.filter_map(said).flatten().next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((NLMSGHDR_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn error(code: i32, flags: u16, rest: &[u8]) -> Vec<u8> {
        message(2, flags, &[&code.to_ne_bytes(), rest].concat())
    }

    fn take_all(bytes: &[u8]) -> Result<bool, Refusal> {
        take::<GenlMessage<Message>>(bytes, &mut Vec::new())
    }

    #[test]
    fn take_when_the_kernel_refuses_has_its_number_and_its_words() {
        let request = message(33, 0, &[3, 1, 0, 0]);
        let said = [21, 0, 1, 0].iter().chain(b"device not found\0").copied().collect::<Vec<_>>();
        let expected = Err(Refusal::Errno(Errno::NODEV, Some("device not found".to_owned())));
        let whole = [request.clone(), said.clone()].concat();
        assert_eq!(take_all(&error(-19, NLM_F_ACK_TLVS, &whole)), expected);
        let capped = [request[..NLMSGHDR_BYTES].to_vec(), said].concat();
        assert_eq!(take_all(&error(-19, NLM_F_ACK_TLVS | NLM_F_CAPPED, &capped)), expected);
        assert_eq!(take_all(&error(-1, 0, &request)), Err(Refusal::Errno(Errno::PERM, None)));
        assert_eq!(
            take_all(&error(i32::MIN, 0, &request)).map_err(|refusal| refusal.to_string().len() > 5),
            Err(true)
        );
    }

    #[test]
    fn take_when_it_is_acknowledged_is_complete() {
        assert_eq!(take_all(&error(0, 0, &[])), Ok(true));
        assert_eq!(take_all(&message(3, 2, &[0; 4])), Ok(true));
        assert_eq!(take_all(&message(33, 2, &[1, 1, 0, 0])), Ok(false));
        let both = [message(33, 2, &[1, 1, 0, 0]), message(3, 2, &[0; 4])].concat();
        let mut answers = Vec::new();
        assert_eq!(take::<GenlMessage<Message>>(&both, &mut answers), Ok(true));
        assert_eq!(answers.len(), 1);
    }

    proptest! {
        #[test]
        fn take_of_anything_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = take_all(&bytes);
        }

        /// Lengths and kinds that a real answer has, and hostile bytes in between.
        #[test]
        fn take_of_what_is_nearly_right_ends(
            kind in prop_oneof![Just(1u16), Just(2), Just(3), Just(4), Just(33)],
            flags in any::<u16>(),
            code in any::<i32>(),
            payload in proptest::collection::vec(any::<u8>(), 0..120),
            length in any::<u8>(),
        ) {
            let mut bytes = message(kind, flags, &[&code.to_ne_bytes(), payload.as_slice()].concat());
            let _ = take_all(&bytes);
            bytes[0] = length;
            let _ = take_all(&bytes);
        }
    }
}
