//! Can a frontend's messages harm the switch? Bytes of a fuzzer, taken for the messages of one connection.

use std::fs::File;
use std::os::fd::OwnedFd;

use frame::Burst;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::MemfdFlags;

use super::message::{HEADER_BYTES, Header, Message};
use super::queues::Queues;
use super::session::{Profile, Session};
use super::{Role, VhostUserSpec};

/// The guest's memory, whatever region a message makes of it.
const MEMORY_BYTES: u64 = 1 << 16;
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
    let spec = VhostUserSpec {
        socket_path: "fuzz".into(),
        role: Role::Connect,
        queue_pairs: QUEUE_PAIRS,
        mac: None,
        mtu_bytes: 1500,
    };
    let profile = std::sync::Arc::new(Profile::new(&spec));
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

/// The first message of `data`, if its bytes make one, and what is behind it. `None` at the end.
fn next_message(data: &[u8]) -> Option<(Option<Message>, &[u8])> {
    let (kinds, data) = data.split_first()?;
    let (header, data) = data.split_first_chunk::<HEADER_BYTES>()?;
    let Ok(header) = Header::decode(header) else { return Some((None, data)) };
    let (payload, rest) = data.split_at_checked(header.payload_bytes)?;
    let fds: Option<Vec<OwnedFd>> =
        (0..kinds & 0xf).map(|at| descriptor(kinds >> 4 >> (at % 4) & 1)).collect();
    Some((Message::decode(header, payload, fds?).ok(), rest))
}

fn descriptor(kind: u8) -> Option<OwnedFd> {
    if kind == 1 {
        return eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
    }
    let file = File::from(rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).ok()?);
    file.set_len(MEMORY_BYTES).ok()?;
    Some(file.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::messages;
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
            let header = [request, 1, payload.len() as u32].map(u32::to_ne_bytes).concat();
            [vec![kinds], header, payload].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn messages_when_random_harm_nobody(stream in prop::collection::vec(message(), 0..40)) {
            messages(&stream.concat());
        }

        #[test]
        fn bytes_when_random_harm_nobody(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            messages(&bytes);
        }
    }
}
