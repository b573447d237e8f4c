//! Which frames does the driver hand to the port? A program of eBPF, for a frame as it was on the wire.
//!
//! It looks, never writes, and has no state: a frame that is taken goes to the socket of the queue that it came in by
//! (`bpf_redirect_map`), and everything else, or what comes in by a queue without a socket, to the host (XDP_PASS).

use wire::{EtherType, IpProtocol};

use super::super::Take;
use super::asm::{Assembler, If, Insn, Label, Op, Reg, Size};
use Reg::{R0, R1, R2, R3, R4, R5, R6};

/// Where `struct xdp_md` has the frame's first byte, the byte behind its last, and its queue.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE: i16 = 16;
/// The answer "to the host"; also what `bpf_redirect_map` returns for a queue without a socket, when told so.
const XDP_PASS: i32 = 2;
/// The kernel's number of `bpf_redirect_map(map, key, flags)`.
const REDIRECT_MAP: i32 = 51;

const ETHER_TYPE: i16 = 12;
const TAG_BYTES: i16 = 4;
/// The IP header's first byte, in a frame without a tag.
const IP: i16 = 14;
const V4_FRAGMENT: i16 = IP + 6;
const V4_PROTOCOL: i16 = IP + 9;
const V6_NEXT_HEADER: i16 = IP + 6;
const V6_HEADER_BYTES: i16 = 40;
/// Of the destination port in the UDP header.
const DESTINATION_PORT: i16 = 2;
/// "More fragments" and the offset.
const FRAGMENT_BITS: i32 = 0x3fff;
const VLAN_BITS: i32 = 0x0fff;

/// The program for what `take` takes, with the sockets' map as `map`.
pub(super) fn program(take: &Take, map: i32) -> Vec<Insn> {
    let mut asm = Assembler::default();
    asm.with_reg(Op::Set, R6, R1);
    let Take::Only { udp_ports, vlans } = take else {
        redirect(&mut asm, map);
        return asm.finish();
    };
    let labels = Labels { ours: asm.label(), theirs: asm.label() };
    // R2: the frame, or later what would be its first byte if the tag were not there. R3: its end.
    asm.load(Size::Word, R2, R1, DATA);
    asm.load(Size::Word, R3, R1, DATA_END);
    in_vlans(&mut asm, vlans, labels);
    udp(&mut asm, udp_ports, labels);
    asm.place(labels.ours);
    redirect(&mut asm, map);
    // The kernel takes no program with a part that is never reached, as this would be where all is taken.
    asm.place(labels.theirs);
    asm.with(Op::Set, R0, XDP_PASS);
    asm.exit();
    asm.finish()
}

/// Ends with the frame going to the socket of its queue.
fn redirect(asm: &mut Assembler, map: i32) {
    asm.load(Size::Word, R2, R6, RX_QUEUE);
    asm.load_map(R1, map);
    asm.with(Op::Set, R3, XDP_PASS);
    asm.call(REDIRECT_MAP);
    asm.exit();
}

#[derive(Clone, Copy)]
struct Labels {
    ours: Label,
    theirs: Label,
}

/// The frame is theirs unless it has `bytes` bytes from R2 on.
fn need(asm: &mut Assembler, bytes: i16, labels: Labels) {
    asm.with_reg(Op::Set, R4, R2);
    asm.with(Op::Add, R4, bytes.into());
    asm.jump_reg(If::Greater, R4, R3, labels.theirs);
}

/// Takes what is in one of `vlans`, and goes on with the rest: R5 is the EtherType behind the tag, R2 moves by the tag.
fn in_vlans(asm: &mut Assembler, vlans: &[u16], labels: Labels) {
    let (tagged, untagged) = (asm.label(), asm.label());
    need(asm, IP, labels);
    asm.load_network(R5, R2, ETHER_TYPE);
    asm.jump(If::Equal, R5, EtherType::VLAN.0.into(), tagged);
    asm.jump(If::NotEqual, R5, EtherType::SERVICE_VLAN.0.into(), untagged);
    asm.place(tagged);
    need(asm, IP + TAG_BYTES, labels);
    asm.load_network(R0, R2, IP);
    asm.with(Op::And, R0, VLAN_BITS);
    for vlan in vlans {
        asm.jump(If::Equal, R0, (*vlan).into(), labels.ours);
    }
    asm.load_network(R5, R2, ETHER_TYPE + TAG_BYTES);
    asm.with(Op::Add, R2, TAG_BYTES.into());
    asm.place(untagged);
}

/// Takes datagrams to one of `ports`; the rest is theirs.
fn udp(asm: &mut Assembler, ports: &[u16], labels: Labels) {
    let (v6, transport) = (asm.label(), asm.label());
    asm.jump(If::Equal, R5, EtherType::IPV6.0.into(), v6);
    asm.jump(If::NotEqual, R5, EtherType::IPV4.0.into(), labels.theirs);
    need(asm, V4_PROTOCOL + 1, labels);
    asm.load(Size::Byte, R0, R2, V4_PROTOCOL);
    asm.jump(If::NotEqual, R0, IpProtocol::UDP.0.into(), labels.theirs);
    asm.load_network(R0, R2, V4_FRAGMENT);
    asm.jump(If::AnyBit, R0, FRAGMENT_BITS, labels.theirs);
    // The header's length, in 4-byte units.
    asm.load(Size::Byte, R0, R2, IP);
    asm.with(Op::And, R0, 0x0f);
    asm.with(Op::ShiftLeft, R0, 2);
    asm.with_reg(Op::Add, R2, R0);
    asm.go(transport);
    asm.place(v6);
    need(asm, V6_NEXT_HEADER + 1, labels);
    asm.load(Size::Byte, R0, R2, V6_NEXT_HEADER);
    asm.jump(If::NotEqual, R0, IpProtocol::UDP.0.into(), labels.theirs);
    asm.with(Op::Add, R2, V6_HEADER_BYTES.into());
    asm.place(transport);
    need(asm, IP + DESTINATION_PORT + 2, labels);
    asm.load_network(R0, R2, IP + DESTINATION_PORT);
    for port in ports {
        asm.jump(If::Equal, R0, (*port).into(), labels.ours);
    }
    asm.go(labels.theirs);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rbpf::EbpfVmMbuff;

    use super::super::asm;
    use super::*;
    use crate::netdev::take::tests::{frames, only, takes};
    use crate::netdev::{MAX_UDP_PORTS, MAX_VLANS};

    const XDP_REDIRECT: u64 = 4;
    const QUEUE: u32 = 3;
    const MAP: i32 = 9;

    /// Stands in for the kernel's function.
    fn redirect(map: u64, queue: u64, fallback: u64, _: u64, _: u64) -> u64 {
        assert_eq!((map, queue, fallback), (MAP as u64, QUEUE.into(), XDP_PASS as u64));
        XDP_REDIRECT
    }

    /// The program as the kernel would run it: it makes loads from what the program was given (R1), where `xdp_md` has
    /// addresses of 32 bits, loads of the wider ones that it has.
    fn as_run(take: &Take) -> Vec<u8> {
        let mut program = asm::bytes(&program(take, MAP));
        for insn in program.chunks_exact_mut(8) {
            if insn[0] == 0x61 && insn[1] >> 4 == R1 as u8 {
                insn[0] = 0x79;
                insn[2] *= 2;
            }
        }
        program
    }

    /// True if the frame goes to the port; an access outside of the frame is an error of the machine.
    fn redirects(program: &[u8], frame: &[u8]) -> bool {
        let mut vm = EbpfVmMbuff::new(Some(program)).unwrap();
        vm.register_helper(REDIRECT_MAP as u32, redirect).unwrap();
        let range = frame.as_ptr_range();
        let mut context = [0; 24];
        context[..8].copy_from_slice(&(range.start as u64).to_ne_bytes());
        context[8..16].copy_from_slice(&(range.end as u64).to_ne_bytes());
        context[16..20].copy_from_slice(&QUEUE.to_ne_bytes());
        match vm.execute_program(frame, &context).unwrap() {
            XDP_REDIRECT => true,
            answer => {
                assert_eq!(answer, XDP_PASS as u64);
                false
            }
        }
    }

    proptest! {
        #[test]
        fn a_frame_is_redirected_if_it_is_taken(frame in frames(), some in any::<bool>()) {
            let take = if some { only(&[6081, 4789], &[7]) } else { only(&[], &[8]) };
            prop_assert_eq!(redirects(&as_run(&take), &frame), takes(&take, &frame));
        }

        #[test]
        fn any_bytes_are_judged_without_looking_beyond_them(frame in vec(any::<u8>(), 0..120)) {
            let take = only(&[6081], &[7]);
            prop_assert_eq!(redirects(&as_run(&take), &frame), takes(&take, &frame));
        }

        #[test]
        fn a_port_that_takes_all_takes_all(frame in vec(any::<u8>(), 0..120)) {
            prop_assert!(redirects(&as_run(&Take::All), &frame));
        }
    }

    #[test]
    fn the_longest_program_finds_the_last_of_its_numbers() {
        let ports: Vec<u16> = (1..=MAX_UDP_PORTS as u16).collect();
        let vlans: Vec<u16> = (1..=MAX_VLANS as u16).collect();
        let program = as_run(&only(&ports, &vlans));
        let last = crate::netdev::take::tests::datagram(&[(0x8100, MAX_VLANS as u16)], false, 0, 99);
        assert!(redirects(&program, &last));
        let last = crate::netdev::take::tests::datagram(&[(0x8100, 999)], true, 0, MAX_UDP_PORTS as u16);
        assert!(redirects(&program, &last));
    }
}
