//! What does a server of DHCP say that gives one client one address? RFC 2131 §4.3.

use std::net::Ipv4Addr;

use frame::DropReason;
use wire::dhcpv4::{self, MessageType, option, put_option};
use wire::{MacAddr, Writer};

use super::{LEASE_S, REBIND_S, RENEW_S, drop_reason};
use crate::program::Server;

/// The longest client identifier that is told back, as it must be (RFC 6842): a DUID of usual length with a number.
const MAX_CLIENT_ID_BYTES: usize = 64;

/// A message, and what is known of its sender.
pub(super) struct Ask<'a> {
    pub(super) ask: dhcpv4::View<'a>,
    pub(super) from: MacAddr,
    /// Its port's address.
    pub(super) address: Ipv4Addr,
    pub(super) server: &'a Server,
    pub(super) mtu_bytes: u32,
}

/// An answer, without its headers.
pub(super) struct Reply {
    pub(super) kind: MessageType,
    pub(super) to: Ipv4Addr,
    pub(super) bytes: usize,
}

impl Ask<'_> {
    /// Writes the answer to `out`.
    pub(super) fn reply(&self, out: &mut [u8]) -> Result<Reply, DropReason> {
        let ask = &self.ask;
        // Relays are no clients: theirs are elsewhere.
        if ask.operation() != dhcpv4::REQUEST || ask.mac() != self.from || !ask.relay().is_unspecified() {
            return Err(DropReason::DhcpUnanswered);
        }
        let asked = ask.message_type().map_err(drop_reason)?.ok_or(DropReason::DhcpUnanswered)?;
        let kind = self.decide(asked)?;
        let repr = self.fixed(asked, kind);
        let bytes = self.write(&repr, (asked, kind), out)?;
        Ok(Reply { kind, to: destination(&repr, kind), bytes })
    }

    /// What is said to a message of this type.
    fn decide(&self, asked: MessageType) -> Result<MessageType, DropReason> {
        let ask = &self.ask;
        let to = ask.address(option::SERVER_IDENTIFIER).map_err(drop_reason)?;
        if to.is_some_and(|to| to != self.server.address) {
            return Err(DropReason::DhcpUnanswered);
        }
        match asked {
            MessageType::DISCOVER => Ok(MessageType::OFFER),
            MessageType::INFORM => Ok(MessageType::ACK),
            // The address is in an option while it is not used yet, and in the header when it is (§4.3.2).
            MessageType::REQUEST => {
                let chosen = ask.address(option::REQUESTED_ADDRESS).map_err(drop_reason)?;
                match chosen.unwrap_or(ask.client()) {
                    Ipv4Addr::UNSPECIFIED => Err(DropReason::DhcpUnanswered),
                    wanted if wanted == self.address => Ok(MessageType::ACK),
                    _ => Ok(MessageType::NAK),
                }
            }
            _ => Err(DropReason::DhcpUnanswered),
        }
    }

    /// The fields in front of the options (table 3).
    fn fixed(&self, asked: MessageType, kind: MessageType) -> dhcpv4::Repr {
        let asked_again = Ipv4Addr::UNSPECIFIED;
        dhcpv4::Repr {
            operation: dhcpv4::REPLY,
            xid: self.ask.xid(),
            flags: self.ask.flags() & dhcpv4::BROADCAST,
            client: if kind == MessageType::ACK { self.ask.client() } else { asked_again },
            yours: if gives(asked, kind) { self.address } else { asked_again },
            relay: Ipv4Addr::UNSPECIFIED,
            mac: self.from,
        }
    }

    fn write(
        &self,
        repr: &dhcpv4::Repr,
        (asked, kind): (MessageType, MessageType),
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        let client_id = self.ask.option(option::CLIENT_IDENTIFIER).map_err(drop_reason)?;
        if client_id.is_some_and(|id| id.len() > MAX_CLIENT_ID_BYTES) {
            return Err(DropReason::DhcpUnanswered);
        }
        let mut fixed = [0; dhcpv4::FIXED_BYTES];
        repr.emit(&mut fixed);
        let mut out = Writer::new(out);
        out.put(&fixed);
        put_option(&mut out, option::MESSAGE_TYPE, &[&[kind.0]]);
        put_option(&mut out, option::SERVER_IDENTIFIER, &[&self.server.address.octets()]);
        if let Some(id) = client_id {
            put_option(&mut out, option::CLIENT_IDENTIFIER, &[id]);
        }
        if gives(asked, kind) {
            put_option(&mut out, option::LEASE_TIME, &[&LEASE_S.to_be_bytes()]);
            put_option(&mut out, option::RENEWAL_TIME, &[&RENEW_S.to_be_bytes()]);
            put_option(&mut out, option::REBINDING_TIME, &[&REBIND_S.to_be_bytes()]);
        }
        if kind != MessageType::NAK {
            let mtu_bytes = u16::try_from(self.mtu_bytes).unwrap_or(u16::MAX);
            put_option(&mut out, option::INTERFACE_MTU, &[&mtu_bytes.to_be_bytes()]);
            out.put(&self.server.options);
        }
        out.put(&[option::END]);
        out.finish().ok_or(DropReason::TooBig)
    }
}

/// True if the answer gives an address, and not only tells of the network.
fn gives(asked: MessageType, kind: MessageType) -> bool {
    kind != MessageType::NAK && asked != MessageType::INFORM
}

/// Whom an answer is for (§4.1): to everybody where the client cannot be reached by an address, or says so.
fn destination(repr: &dhcpv4::Repr, kind: MessageType) -> Ipv4Addr {
    if kind == MessageType::NAK {
        Ipv4Addr::BROADCAST
    } else if !repr.client.is_unspecified() {
        repr.client
    } else if repr.flags & dhcpv4::BROADCAST != 0 || repr.yours.is_unspecified() {
        Ipv4Addr::BROADCAST
    } else {
        repr.yours
    }
}
