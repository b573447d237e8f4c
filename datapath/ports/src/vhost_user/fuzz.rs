//! Can a frontend's messages harm the switch? Bytes of a fuzzer, taken for the messages of one connection.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use frame::Burst;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::MemfdFlags;

use super::features;
use super::message::{HEADER_BYTES, Header, Message};
use super::queues::Queues;
use super::session::{Profile, Session};
use super::{Role, VhostUserSpec};

/// The guest's memory, whatever region a message makes of it.
const MEMORY_BYTES: usize = 1 << 16;
/// The frontend's own address of it.
const USER_BASE: u64 = 0x7000_0000_0000;
/// The first byte of a message with one descriptor.
const ONE_FILE: u8 = 0x01;
const ONE_EVENT: u8 = 0x11;
const QUEUE_PAIRS: u16 = 2;

/// Feeds `data` to a session as a frontend's messages, and polls and fills its rings after each. Every message begins
/// with a byte that says which descriptors come with it: its low half is how many, of its high half each bit that is set
/// makes one an eventfd instead of a memory file. A message that ends the session is followed by a new session.
pub fn messages(mut data: &[u8]) {
    let (Ok(queues), Ok(source)) =
        (Queues::new(QUEUE_PAIRS), crate::mem::open(crate::mem::MemSpec::default()))
    else {
        return;
    };
    let (mut rx, tx, (mut frames, peer)) = (queues.rx(), queues.tx(), source);
    let mut burst = Burst::new();
    let profile = Arc::new(Profile::new(&spec()));
    let session = || Session::new(profile.clone(), queues.clone());
    let mut current = session();
    while let Some((message, rest)) = next_message(data) {
        data = rest;
        let handled = message.map(|message| current.handle(message).is_ok());
        if handled != Some(true) {
            current = session();
        }
        for queue in &mut rx {
            queue.poll(&mut burst, &mut |_| {});
        }
        peer.inject(vec![0; 200]);
        for queue in &tx {
            frames.rx[0].poll(&mut burst, &mut |burst| {
                queue.send(burst, &[0]);
            });
        }
        let _ = current.link();
    }
}

fn spec() -> VhostUserSpec {
    VhostUserSpec {
        socket_path: "fuzz".into(),
        role: Role::Connect,
        queue_pairs: QUEUE_PAIRS,
        mac: None,
        mtu_bytes: 1500,
    }
}

/// The first message of `data`, if its bytes make one, and what is behind it. `None` at the end.
fn next_message(data: &[u8]) -> Option<(Option<Message>, &[u8])> {
    let (kinds, data) = data.split_first()?;
    let (header, data) = data.split_first_chunk::<HEADER_BYTES>()?;
    let Ok(header) = Header::decode(header) else { return Some((None, data)) };
    let (payload, rest) = data.split_at_checked(header.payload_bytes)?;
    let fds: Option<Vec<OwnedFd>> =
        (0..kinds & 0xf).map(|at| descriptor(kinds >> 4 >> (at % 4) & 1, rest)).collect();
    Some((Message::decode(header, payload, fds?).ok(), rest))
}

/// An eventfd, or a memory file that begins with `content`.
fn descriptor(kind: u8, content: &[u8]) -> Option<OwnedFd> {
    if kind == 1 {
        return eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
    }
    let mut file = File::from(rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(&content[..content.len().min(MEMORY_BYTES)]).ok()?;
    file.set_len(MEMORY_BYTES as u64).ok()?;
    Some(file.into())
}

/// A proper frontend's messages up to two running rings: where a fuzzer best begins.
pub fn seed() -> Vec<u8> {
    use super::message::request::*;
    let features = (features::OFFERED & !features::LOG_ALL).to_ne_bytes();
    let mut bytes = encode(GET_FEATURES, 0, &[]);
    bytes.extend(encode(SET_PROTOCOL_FEATURES, 0, &features::protocol::OFFERED.to_ne_bytes()));
    bytes.extend(encode(SET_FEATURES, 0, &features));
    let table = [1, 0, MEMORY_BYTES as u64, USER_BASE, 0].map(u64::to_ne_bytes).concat();
    bytes.extend(encode(SET_MEM_TABLE, ONE_FILE, &table));
    for ring in 0..2u32 {
        let state = |value: u32| [ring, value].map(u32::to_ne_bytes).concat();
        let index = u64::from(ring).to_ne_bytes();
        let desc = USER_BASE + 0x2000 * u64::from(ring);
        let parts = [desc, desc + 0x1800, desc + 0x1000, 0].map(u64::to_ne_bytes).concat();
        bytes.extend(encode(SET_VRING_NUM, 0, &state(8)));
        bytes.extend(encode(SET_VRING_BASE, 0, &state(0)));
        bytes.extend(encode(SET_VRING_ADDR, 0, &[state(0), parts].concat()));
        bytes.extend(encode(SET_VRING_CALL, ONE_EVENT, &index));
        bytes.extend(encode(SET_VRING_KICK, ONE_EVENT, &index));
        bytes.extend(encode(SET_VRING_ENABLE, 0, &state(1)));
    }
    bytes
}

/// A message as [`messages`] reads it; `kinds` is its first byte.
fn encode(request: u32, kinds: u8, payload: &[u8]) -> Vec<u8> {
    let header = [request, 1, payload.len() as u32].map(u32::to_ne_bytes).concat();
    [&[kinds][..], &header, payload].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vhost_user::message::request;

    /// Bytes that get past the header's check, with likely values.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![0..5u64, Just(256), Just(1 << 32), Just(0x7000_0000_0000), any::<u64>()];
        let payload = prop_oneof![
            Just(vec![]),
            prop::collection::vec(number.clone(), 1),
            (0..4u32, 0..257u32).prop_map(|(index, value)| vec![u64::from(index) | u64::from(value) << 32]),
            prop::collection::vec(number, 1..6),
        ];
        (any::<u8>(), 0..=request::GET_STATUS, payload).prop_map(|(kinds, request, payload)| {
            let payload: Vec<u8> = payload.into_iter().flat_map(u64::to_ne_bytes).collect();
            encode(request, kinds, &payload)
        })
    }

    #[test]
    fn seed_when_whole_brings_the_link_up() {
        let queues = Queues::new(QUEUE_PAIRS).unwrap();
        let profile = Arc::new(Profile::new(&spec()));
        let mut session = Session::new(profile, queues);
        let bytes = seed();
        let mut rest = &bytes[..];
        while let Some((message, behind)) = next_message(rest) {
            session.handle(message.unwrap()).unwrap();
            rest = behind;
        }
        assert!(session.link().up, "{}", session.link().detail);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn messages_when_random_harm_nobody(stream in prop::collection::vec(message(), 0..40)) {
            messages(&stream.concat());
        }

        #[test]
        fn seed_when_damaged_harms_nobody(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            tail in prop::collection::vec(message(), 0..10)
        ) {
            let mut bytes = seed();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            messages(&[bytes, tail.concat()].concat());
        }

        #[test]
        fn bytes_when_random_harm_nobody(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            messages(&bytes);
        }
    }
}
