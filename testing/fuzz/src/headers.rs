//! Every header of every protocol, read from the same bytes: nothing panics, and what is read can be written.

use wire::{arp, dhcpv4, dhcpv6, ethernet, icmpv4, icmpv6, ipv4, ipv6, nd, sctp, tcp, udp, vlan};

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(view) = ethernet::View::new(bytes) {
        rewritten(bytes, ethernet::HEADER_BYTES, |out| ethernet::Repr::parse(&view).emit(out));
    }
    if let Ok(view) = vlan::View::new(bytes) {
        rewritten(bytes, vlan::TAG_BYTES, |out| vlan::Repr::parse(&view).emit(out));
    }
    if let Ok((_, offset)) = vlan::skip_tags(bytes) {
        assert!(offset <= bytes.len());
    }
    if let Ok(view) = arp::View::new(bytes) {
        rewritten(bytes, arp::PACKET_BYTES, |out| arp::Repr::parse(&view).emit(out));
    }
    network(bytes);
    transport(bytes);
    configuration(bytes);
    if let Ok(Some((_, options))) = nd::Message::parse(bytes) {
        assert!(options.count() <= bytes.len() / 8 + 1);
    }
}

fn network(bytes: &[u8]) {
    if let Ok(view) = ipv4::View::new(bytes) {
        let _ = (view.payload(), view.checksum_is_valid(), view.fragment_offset());
        let repr = ipv4::Repr::parse(&view);
        let mut out = vec![0; repr.header_len()];
        repr.emit(&mut out);
        assert_eq!(ipv4::View::new(&out).map(|view| ipv4::Repr::parse(&view)), Ok(repr));
    }
    if let Ok(view) = ipv6::View::new(bytes) {
        rewritten(bytes, ipv6::HEADER_BYTES, |out| ipv6::Repr::parse(&view).emit(out));
        if let Ok(upper) = view.walk() {
            assert!(upper.offset <= view.payload().len());
        }
    }
}

fn transport(bytes: &[u8]) {
    if let Ok(view) = tcp::View::new(bytes) {
        let repr = tcp::Repr::parse(&view);
        let mut out = vec![0; repr.header_len()];
        repr.emit(&mut out);
        assert_eq!(tcp::View::new(&out).map(|view| tcp::Repr::parse(&view)), Ok(repr));
    }
    if let Ok(view) = udp::View::new(bytes) {
        assert!(view.payload().len() + udp::HEADER_BYTES <= bytes.len());
    }
    if let Ok(view) = sctp::View::new(bytes) {
        let _ = (sctp::Repr::parse(&view), view.checksum_is_valid());
    }
    if let Ok(view) = icmpv4::View::new(bytes) {
        let _ = (icmpv4::Repr::parse(&view), view.checksum_is_valid());
    }
    if let Ok(view) = icmpv6::View::new(bytes) {
        let _ = icmpv6::Repr::parse(&view);
    }
}

fn configuration(bytes: &[u8]) {
    if let Ok(view) = dhcpv4::View::new(bytes) {
        let repr = dhcpv4::Repr::parse(&view);
        let mut out = [0; dhcpv4::FIXED_BYTES];
        repr.emit(&mut out);
        assert_eq!(dhcpv4::View::new(&out).map(|view| dhcpv4::Repr::parse(&view)), Ok(repr));
        assert!(view.options().count() <= bytes.len());
        let _ = (view.message_type(), view.address(dhcpv4::option::REQUESTED_ADDRESS));
    }
    if let Ok(view) = dhcpv6::View::new(bytes) {
        for option in view.options().flatten() {
            if let Ok(ia) = dhcpv6::Ia::new(option.data) {
                assert!(ia.addresses().count() <= option.data.len() / 4 + 1);
            }
        }
    }
}

/// `emit` writes again the `len` bytes that were parsed.
fn rewritten(bytes: &[u8], len: usize, emit: impl FnOnce(&mut [u8])) {
    let mut out = vec![0; len];
    emit(&mut out);
    assert_eq!(out, bytes[..len]);
}
