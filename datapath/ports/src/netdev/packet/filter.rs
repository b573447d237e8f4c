//! Which packets does the kernel hand to the socket? A program of classic BPF (Linux Documentation/networking/filter.rst),
//! for a packet whose outer VLAN tag the kernel has taken off.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD,
    BPF_LDX, BPF_MSH, BPF_RET, BPF_W, sock_filter,
};
use wire::{EtherType, IpProtocol};

use super::super::Take;

const ETHER_TYPE: u32 = 12;
/// The IP header's first byte.
const IP: u32 = 14;
const V4_FRAGMENT: u32 = IP + 6;
const V4_PROTOCOL: u32 = IP + 9;
const V6_NEXT_HEADER: u32 = IP + 6;
const V6_UDP: u32 = IP + 40;
/// Of the destination port in the UDP header.
const DESTINATION_PORT: u32 = 2;
/// "More fragments" and the offset.
const FRAGMENT_BITS: u32 = 0x3fff;
const VLAN_BITS: u32 = 0x0fff;
/// All of a packet.
const WHOLE: u32 = u32::MAX;

/// The program for what `take` takes; `None` for everything.
pub(super) fn program(take: &Take) -> Option<Vec<sock_filter>> {
    let Take::Only { udp_ports, vlans } = take else { return None };
    let mut program = in_vlans(vlans);
    let (v4, v6) = (udp_v4(udp_ports), udp_v6(udp_ports));
    program.push(load(BPF_H, ETHER_TYPE));
    program.push(if_equal(EtherType::IPV4.0, 0, v4.len()));
    program.extend(v4);
    program.push(if_equal(EtherType::IPV6.0, 0, v6.len()));
    program.extend(v6);
    program.push(REFUSE);
    Some(program)
}

/// Accepts what is in one of `vlans`, and goes on with the rest.
fn in_vlans(vlans: &[u16]) -> Vec<sock_filter> {
    let compare = accept_any(vlans);
    let untagged = [
        load(BPF_W, ancillary(libc::SKF_AD_VLAN_TAG_PRESENT)),
        if_equal(0, 0, 1),
        // The one jump that is longer than a branch can be.
        op(BPF_JMP | BPF_JA, 2 + compare.len() as u32),
    ];
    let number = [load(BPF_W, ancillary(libc::SKF_AD_VLAN_TAG)), op(BPF_ALU | BPF_AND | BPF_K, VLAN_BITS)];
    [&untagged[..], &number, &compare].concat()
}

/// Accepts datagrams over IPv4 to one of `ports`, and refuses the rest.
fn udp_v4(ports: &[u16]) -> Vec<sock_filter> {
    let checks = [
        load(BPF_B, V4_PROTOCOL),
        if_equal(IpProtocol::UDP.0.into(), 1, 0),
        REFUSE,
        load(BPF_H, V4_FRAGMENT),
        branch(BPF_JSET, FRAGMENT_BITS, 0, 1),
        REFUSE,
        op(BPF_LDX | BPF_B | BPF_MSH, IP),
        op(BPF_LD | BPF_H | BPF_IND, IP + DESTINATION_PORT),
    ];
    [&checks[..], &accept_any(ports), &[REFUSE]].concat()
}

/// Accepts datagrams over IPv6 to one of `ports`, and refuses the rest.
fn udp_v6(ports: &[u16]) -> Vec<sock_filter> {
    let checks = [
        load(BPF_B, V6_NEXT_HEADER),
        if_equal(IpProtocol::UDP.0.into(), 1, 0),
        REFUSE,
        load(BPF_H, V6_UDP + DESTINATION_PORT),
    ];
    [&checks[..], &accept_any(ports), &[REFUSE]].concat()
}

/// Accepts if the accumulator is one of `values`.
fn accept_any(values: &[u16]) -> Vec<sock_filter> {
    values.iter().flat_map(|value| [if_equal(*value, 0, 1), op(BPF_RET | BPF_K, WHOLE)]).collect()
}

const REFUSE: sock_filter = op(BPF_RET | BPF_K, 0);

/// Skips `then` instructions if the accumulator is `value`, else `otherwise`.
fn if_equal(value: u16, then: usize, otherwise: usize) -> sock_filter {
    branch(BPF_JEQ, value.into(), then, otherwise)
}

fn branch(condition: u32, value: u32, then: usize, otherwise: usize) -> sock_filter {
    let short = |skip: usize| u8::try_from(skip).expect("the parts of this program are short");
    sock_filter {
        code: (BPF_JMP | condition | BPF_K) as u16,
        jt: short(then),
        jf: short(otherwise),
        k: value,
    }
}

/// Loads what lies at `at`; a packet that is shorter is refused.
const fn load(size: u32, at: u32) -> sock_filter {
    op(BPF_LD | size | BPF_ABS, at)
}

/// Where the kernel keeps what it knows about a packet beside its bytes.
const fn ancillary(what: libc::c_int) -> u32 {
    (libc::SKF_AD_OFF + what) as u32
}

const fn op(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::sys;
    use super::*;
    use crate::netdev::take::tests::{frames, only, takes};
    use crate::netdev::{MAX_UDP_PORTS, MAX_VLANS};

    /// The kernel itself says whether a program accepts a packet: filters work on every kind of socket.
    struct Kernel {
        sender: UnixDatagram,
        receiver: std::os::fd::OwnedFd,
    }

    impl Kernel {
        fn with(take: &Take) -> Self {
            let (sender, receiver) = UnixDatagram::pair().unwrap();
            receiver.set_nonblocking(true).unwrap();
            let receiver = receiver.into();
            sys::attach_filter(&receiver, &program(take).unwrap()).unwrap();
            Self { sender, receiver }
        }

        fn accepts(&self, frame: &[u8]) -> bool {
            assert_eq!(self.sender.send(frame).unwrap(), frame.len());
            let mut room = vec![0; frame.len() + 1];
            match rustix::io::read(&self.receiver, &mut room) {
                Ok(len) => {
                    assert_eq!(len, frame.len(), "all of it");
                    true
                }
                Err(rustix::io::Errno::AGAIN) => false,
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    proptest! {
        #[test]
        fn an_untagged_frame_passes_if_it_is_taken(frame in frames()) {
            let take = only(&[6081, 4789], &[7]);
            let untagged = !matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
            prop_assume!(untagged && !frame.is_empty());
            prop_assert_eq!(Kernel::with(&take).accepts(&frame), takes(&take, &frame));
        }

        #[test]
        fn any_bytes_are_judged(frame in vec(any::<u8>(), 1..200)) {
            let _ = Kernel::with(&only(&[6081], &[7])).accepts(&frame);
        }
    }

    #[test]
    fn the_kernel_takes_the_longest_program() {
        let ports: Vec<u16> = (1..=MAX_UDP_PORTS as u16).collect();
        let vlans: Vec<u16> = (1..=MAX_VLANS as u16).collect();
        let _ = Kernel::with(&only(&ports, &vlans));
        let _ = Kernel::with(&only(&[], &[7]));
    }

    #[test]
    fn everything_needs_no_program() {
        assert!(program(&Take::All).is_none());
    }
}
