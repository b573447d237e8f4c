//! What does a server of DHCPv6 say that gives one client one address? RFC 8415 §16 and §18.3.

use std::net::Ipv6Addr;

use frame::DropReason;
use wire::dhcpv6::{self, Ia, MessageType, View, option, put_option, status};
use wire::{Writer, dhcpv6::Opt};

use super::{LEASE_S, REBIND_S, RENEW_S, drop_reason};
use crate::program::Dhcp;

/// Associations of a message that are answered, and addresses of one that are told to be gone; others are passed over.
const MAX_IAS: usize = 4;
const MAX_STALE: usize = 4;
/// The preference that ends a client's wait for other servers (§18.2.1).
const MAX_PREFERENCE: u8 = 255;

/// What a message says.
#[derive(Default)]
struct Question<'a> {
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    ias: [Option<Ia<'a>>; MAX_IAS],
    rapid: bool,
}

impl<'a> Question<'a> {
    fn read(ask: &View<'a>) -> Result<Self, DropReason> {
        let mut question = Self::default();
        for option in ask.options() {
            let Opt { code, data } = option.map_err(drop_reason)?;
            match code {
                option::CLIENT_ID if data.len() > dhcpv6::MAX_DUID_BYTES => {
                    return Err(DropReason::Malformed);
                }
                option::CLIENT_ID => drop(question.client.get_or_insert(data)),
                option::SERVER_ID => drop(question.server.get_or_insert(data)),
                option::RAPID_COMMIT => question.rapid = true,
                option::IA_NA => {
                    let ia = Ia::new(data).map_err(drop_reason)?;
                    if let Some(free) = question.ias.iter_mut().find(|ia| ia.is_none()) {
                        *free = Some(ia);
                    }
                }
                _ => {}
            }
        }
        Ok(question)
    }

    /// What is said to a message of this type, if it names whom it must and nobody else (§16).
    fn decide(&self, asked: MessageType, own: &[u8]) -> Option<MessageType> {
        let (is_named, is_known) = (self.server == Some(own), self.client.is_some());
        let is_sound = match asked {
            MessageType::SOLICIT | MessageType::CONFIRM | MessageType::REBIND => {
                is_known && self.server.is_none()
            }
            MessageType::REQUEST | MessageType::RENEW | MessageType::RELEASE | MessageType::DECLINE => {
                is_known && is_named
            }
            MessageType::INFORMATION_REQUEST => self.ias[0].is_none() && (self.server.is_none() || is_named),
            _ => false,
        };
        let advertises = asked == MessageType::SOLICIT && !self.rapid;
        is_sound.then_some(if advertises { MessageType::ADVERTISE } else { MessageType::REPLY })
    }
}

/// Writes what is said to `ask`, whose port has `address`, to `out`: what it is, and its bytes.
pub(super) fn reply(
    ask: &View<'_>,
    address: Ipv6Addr,
    dhcp: &Dhcp,
    out: &mut [u8],
) -> Result<(MessageType, usize), DropReason> {
    let question = Question::read(ask)?;
    let (asked, own) = (ask.kind(), dhcpv6::duid_of(dhcp.mac));
    let kind = question.decide(asked, &own).ok_or(DropReason::DhcpUnanswered)?;
    let mut out = Writer::new(out);
    dhcpv6::put_message(&mut out, kind, ask.transaction());
    put_option(&mut out, option::SERVER_ID, &[&own]);
    if let Some(client) = question.client {
        put_option(&mut out, option::CLIENT_ID, &[client]);
    }
    match asked {
        MessageType::CONFIRM => put_status(&mut out, confirm(&question, address)?),
        // The address is the port's as before: there is nothing to do, and the client is told that it is done.
        MessageType::RELEASE | MessageType::DECLINE => put_status(&mut out, status::SUCCESS),
        _ => {
            if kind == MessageType::ADVERTISE {
                put_option(&mut out, option::PREFERENCE, &[&[MAX_PREFERENCE]]);
            } else if asked == MessageType::SOLICIT {
                put_option(&mut out, option::RAPID_COMMIT, &[]);
            }
            put_addresses(&mut out, &question, address)?;
            out.put(&dhcp.v6_options);
        }
    }
    Ok((kind, out.finish().ok_or(DropReason::TooBig)?))
}

fn put_status(out: &mut Writer<'_>, code: u16) {
    put_option(out, option::STATUS, &[&code.to_be_bytes()]);
}

/// Whether the client is where it thinks: every address that it has is its port's (§18.3.3). Without any it has no question.
fn confirm(question: &Question<'_>, own: Ipv6Addr) -> Result<u16, DropReason> {
    let (mut any, mut all) = (false, true);
    for address in question.ias.iter().flatten().flat_map(Ia::addresses) {
        (any, all) = (true, all && address.map_err(drop_reason)? == own);
    }
    match (any, all) {
        (false, _) => Err(DropReason::DhcpUnanswered),
        (true, true) => Ok(status::SUCCESS),
        (true, false) => Ok(status::NOT_ON_LINK),
    }
}

/// The first association gets the address; others there is none for.
fn put_addresses(out: &mut Writer<'_>, question: &Question<'_>, own: Ipv6Addr) -> Result<(), DropReason> {
    for (at, ia) in question.ias.iter().flatten().enumerate() {
        let number = ia.number().to_be_bytes();
        if at > 0 {
            let code = status::NO_ADDRESSES.to_be_bytes();
            put_option(out, option::IA_NA, &[&number, &[0; 8], &[0, option::STATUS as u8, 0, 2], &code]);
            continue;
        }
        let given = dhcpv6::address_option(own, LEASE_S, LEASE_S);
        let mut gone = [[0; 4 + dhcpv6::ADDRESS_BYTES]; MAX_STALE];
        let mut stale = 0;
        for address in ia.addresses() {
            let address = address.map_err(drop_reason)?;
            // A client that has another address is to stop using it (§18.3.4).
            if address != own && stale < MAX_STALE {
                gone[stale] = dhcpv6::address_option(address, 0, 0);
                stale += 1;
            }
        }
        let times = [RENEW_S.to_be_bytes(), REBIND_S.to_be_bytes()];
        let gone = gone[..stale].as_flattened();
        put_option(out, option::IA_NA, &[&number, times.as_flattened(), &given, gone]);
    }
    Ok(())
}
