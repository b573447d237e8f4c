//! What does the kernel ask of a device, and how is it answered?
//!
//! The kernel sends one message at a time for most things, and whoever caused it (the driver's probe, `vdpa dev add`,
//! `vdpa dev del`) waits for the answer, with locks held. An answer that does not come within `msg_timeout` (30 s unless
//! changed, [`crate::sysfs`]) breaks the device for good.

use bitflags::bitflags;

use crate::abi::{MESSAGE_BYTES, PAYLOAD, RESULT_FAILED, RESULT_OK, request};
use crate::iotlb::IovaRange;
use crate::queue::VqState;

bitflags! {
    /// The device status field (virtio 1.3 §2.1). Empty: the device is to be reset.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Status: u8 {
        /// A driver has found the device.
        const ACKNOWLEDGE = 1;
        /// It knows how to drive it.
        const DRIVER = 2;
        /// It is set up and drives it.
        const DRIVER_OK = 4;
        /// The features are negotiated.
        const FEATURES_OK = 8;
        /// The device is in need of a reset.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
        /// Bits that virtio has not assigned.
        const _ = !0;
    }
}

/// What the kernel asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestKind {
    /// Where does this virtqueue continue? Answer with [`Response::VqState`].
    GetVqState {
        /// The virtqueue.
        index: u32,
    },
    /// The driver writes the status. [`Response::Ok`] lets it; [`Response::Failed`] leaves the status as it was, which is
    /// how features are refused at `FEATURES_OK`. `DRIVER_OK`: begin. [`Status::empty`]: stop, forget rings, maps and
    /// kick descriptors; the kernel resets whatever the answer.
    SetStatus(Status),
    /// Memory changed. Drop every [`Mapping`](crate::Mapping) that overlaps, then answer, then map anew at need.
    UpdateIotlb {
        /// Where.
        range: IovaRange,
        /// The address space; 0 in API version 0.
        asid: u32,
    },
    /// The driver moves a group of virtqueues to another address space. Only in API version 1.
    SetVqGroupAsid {
        /// The group.
        group: u32,
        /// The address space.
        asid: u32,
    },
    /// The driver begins or ceases to use a virtqueue. Only with
    /// [`ProtocolFeatures::QUEUE_READY`](crate::ProtocolFeatures::QUEUE_READY). [`Response::Failed`] breaks the device.
    SetVqReady {
        /// The virtqueue.
        index: u32,
        /// Whether it is used from now on.
        ready: bool,
    },
    /// Stop touching rings and memory until the next reset, once this is answered. Only with
    /// [`ProtocolFeatures::SUSPEND`](crate::ProtocolFeatures::SUSPEND).
    Suspend,
    /// A message of a kernel that is newer than this crate. Answer [`Response::Failed`].
    Unknown(u32),
}

/// A message that waits for its answer: [`crate::Device::respond`] takes it, so that none is answered twice.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the kernel waits for the answer, and breaks the device if none comes"]
pub struct Request {
    id: u32,
    kind: RequestKind,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// Done.
    Ok,
    /// Done: the state of the virtqueue. The answer to [`RequestKind::GetVqState`], and to no other.
    VqState(VqState),
    /// Not done.
    Failed,
}

impl Request {
    /// What is asked.
    pub fn kind(&self) -> RequestKind {
        self.kind
    }

    /// The kernel's number for it: a request that an earlier process left unanswered keeps its own.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn decode(bytes: &[u8; MESSAGE_BYTES]) -> Self {
        let word = |at| u32::from_ne_bytes(array(bytes, at));
        let long = |at| u64::from_ne_bytes(array(bytes, at));
        let kind = match word(0) {
            request::GET_VQ_STATE => RequestKind::GetVqState { index: word(PAYLOAD) },
            request::SET_STATUS => RequestKind::SetStatus(Status::from_bits_retain(bytes[PAYLOAD])),
            request::UPDATE_IOTLB => RequestKind::UpdateIotlb {
                // To drop everything is never wrong.
                range: IovaRange::new(long(PAYLOAD), long(PAYLOAD + 8)).unwrap_or(IovaRange::ALL),
                // The kernel fills what version 0 does not use with zeroes.
                asid: word(PAYLOAD + 16),
            },
            request::SET_VQ_GROUP_ASID => {
                RequestKind::SetVqGroupAsid { group: word(PAYLOAD), asid: word(PAYLOAD + 4) }
            }
            request::SET_VQ_READY => {
                RequestKind::SetVqReady { index: word(PAYLOAD), ready: word(PAYLOAD + 4) != 0 }
            }
            request::SUSPEND => RequestKind::Suspend,
            unknown => RequestKind::Unknown(unknown),
        };
        Self { id: word(4), kind }
    }

    /// True if `response` can be an answer.
    pub(crate) fn takes(&self, response: &Response) -> bool {
        let asks_state = matches!(self.kind, RequestKind::GetVqState { .. });
        match response {
            Response::Failed => true,
            Response::VqState(_) => asks_state,
            Response::Ok => !asks_state && !matches!(self.kind, RequestKind::Unknown(_)),
        }
    }

    /// The answer's bytes.
    pub(crate) fn encode(&self, response: Response) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.id.to_ne_bytes());
        let result = if response == Response::Failed { RESULT_FAILED } else { RESULT_OK };
        put(4, &result.to_ne_bytes());
        if let (Response::VqState(state), RequestKind::GetVqState { index }) = (response, self.kind) {
            put(PAYLOAD, &index.to_ne_bytes());
            for (word, at) in state.to_words().into_iter().zip((PAYLOAD + 4..).step_by(2)) {
                put(at, &word.to_ne_bytes());
            }
        }
        bytes
    }
}

/// The `N` bytes of a message from `at` on. `at` is one of the constants above.
fn array<const N: usize>(bytes: &[u8; MESSAGE_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u32, id: u32, payload: &[u8]) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        bytes[0..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&id.to_ne_bytes());
        bytes[PAYLOAD..PAYLOAD + payload.len()].copy_from_slice(payload);
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn each_type_is_decoded() {
        let range = [5u64.to_ne_bytes(), 9u64.to_ne_bytes()].concat();
        let cases = [
            (0, words(&[3]), RequestKind::GetVqState { index: 3 }),
            (1, vec![0x0f], RequestKind::SetStatus(Status::from_bits_retain(0x0f))),
            (2, range, RequestKind::UpdateIotlb { range: IovaRange::new(5, 9).unwrap(), asid: 0 }),
            (3, words(&[2, 7]), RequestKind::SetVqGroupAsid { group: 2, asid: 7 }),
            (4, words(&[1, 1]), RequestKind::SetVqReady { index: 1, ready: true }),
            (5, vec![], RequestKind::Suspend),
            (6, vec![1; 128], RequestKind::Unknown(6)),
            (u32::MAX, vec![], RequestKind::Unknown(u32::MAX)),
        ];
        for (kind, payload, meaning) in cases {
            let request = Request::decode(&message(kind, 77, &payload));
            assert_eq!((request.id(), request.kind()), (77, meaning));
        }
    }

    #[test]
    fn a_range_the_wrong_way_round_means_everything() {
        let range = [9u64.to_ne_bytes(), 5u64.to_ne_bytes()].concat();
        let request = Request::decode(&message(2, 0, &range));
        assert_eq!(request.kind(), RequestKind::UpdateIotlb { range: IovaRange::ALL, asid: 0 });
    }

    #[test]
    fn a_state_is_encoded_where_the_kernel_reads_it() {
        let request = Request::decode(&message(0, 9, &words(&[4])));
        let bytes = request.encode(Response::VqState(VqState::Split { avail_index: 0xabcd }));
        assert_eq!(bytes[0..8], words(&[9, 0]));
        assert_eq!(bytes[24..28], words(&[4]));
        assert_eq!(bytes[28..30], 0xabcdu16.to_ne_bytes());
        assert_eq!(request.encode(Response::Failed)[4..8], words(&[1]));
    }

    #[test]
    fn only_an_answer_of_its_kind_is_taken() {
        let state = Response::VqState(VqState::Split { avail_index: 0 });
        let get = Request::decode(&message(0, 0, &[]));
        assert!(get.takes(&state) && get.takes(&Response::Failed) && !get.takes(&Response::Ok));
        let set = Request::decode(&message(1, 0, &[]));
        assert!(set.takes(&Response::Ok) && !set.takes(&state));
        let unknown = Request::decode(&message(99, 0, &[]));
        assert!(unknown.takes(&Response::Failed) && !unknown.takes(&Response::Ok));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_whose_answer_has_zeroes_where_the_kernel_wants_them(
            bytes in proptest::collection::vec(any::<u8>(), MESSAGE_BYTES),
        ) {
            let bytes: [u8; MESSAGE_BYTES] = bytes.try_into().unwrap();
            let request = Request::decode(&bytes);
            for response in [Response::Ok, Response::Failed] {
                let answer = request.encode(response);
                prop_assert_eq!(&answer[0..4], &bytes[4..8]);
                prop_assert!(answer[8..].iter().all(|byte| *byte == 0));
            }
        }
    }
}
