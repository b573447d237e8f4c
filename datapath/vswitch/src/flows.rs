//! What do the caches hold, in words?

use std::fmt::Write as _;

use frame::DropReason;
use wire::{EtherType, IpProtocol};

use crate::actions::Output;
use crate::cache::Entry;
use crate::key::{Field, FlowKey, Mask, TAGGED, class, ip, mac};
use crate::program::Program;
use crate::switch::Switch;
use crate::time::Now;

/// A cached decision, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowView {
    /// The bits that were looked at, in words.
    pub matches: String,
    /// What happens to the frames, in words.
    pub actions: String,
    /// Frames so far.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Milliseconds since the last one.
    pub idle_ms: u64,
}

impl Switch {
    /// Up to `limit` cached decisions, those with the most frames first. Walks the caches: for people, not for packets.
    pub fn flows(&self, now: Now, limit: usize) -> Vec<FlowView> {
        let mut decisions = self.cache.decisions();
        decisions.sort_by_key(|(entry, _)| (std::cmp::Reverse(entry.frames), entry.key.0));
        let view = |(entry, mask): &(Entry, Mask)| FlowView {
            matches: describe_match(&entry.key, mask),
            actions: describe_actions(entry, &self.program),
            frames: entry.frames,
            bytes: entry.bytes,
            idle_ms: entry.idle_ms(now),
        };
        decisions.iter().take(limit).map(view).collect()
    }

    /// Cache entries held, of either kind.
    pub fn flow_count(&self) -> usize {
        self.cache.len()
    }
}

fn describe_actions(entry: &Entry, program: &Program) -> String {
    let mut words = match entry.actions.output {
        Output::Drop(reason) => return format!("drop: {}", reason.label()),
        Output::Deny(_) => {
            return format!("drop: {}, while no connection has it", DropReason::PolicyDenied.label());
        }
        Output::Port { port, .. } => format!("to port {}", port.0),
        Output::Tunnel(tunnel) => format!("to node {}", program.node_name(tunnel.node)),
        Output::Route(hop) => match program.hop(hop).map(|hop| (hop, hop.tunnel)) {
            Some((_, Some(tunnel))) => format!("routed to node {}", program.node_name(tunnel.node)),
            Some((hop, None)) => format!("routed to port {} as {}", hop.port.0, hop.mac),
            None => "routed to nobody".to_owned(),
        },
        Output::Answer(answer) => return format!("the switch answers: {}", answer.words()),
        Output::Flood { domain, sender_isolated } => {
            let sender = entry.key.get(Field::IN_PORT);
            let receivers = program.domain(domain).receivers(sender_isolated);
            let count = receivers.iter().filter(|it| u64::from(it.port.0) != sender).count();
            format!("flood to {count} port{}", if count == 1 { "" } else { "s" })
        }
    };
    if entry.actions.vlan != 0 {
        let _ = write!(words, " in VLAN {}", entry.actions.vlan);
    }
    words
}

/// The bits of `key` that `mask` has, field by field.
fn describe_match(key: &FlowKey, mask: &Mask) -> String {
    let mut words = String::new();
    let mut say = |name: &str, field: Field, show: &dyn Fn(u64) -> String| {
        let bits = field.read(&mask.0);
        if bits == 0 {
            return;
        }
        let separator = if words.is_empty() { "" } else { " " };
        let _ = write!(words, "{separator}{name}={}", show(key.get(field) & bits));
        if bits != field.ones() {
            let _ = write!(words, "/{}", show(bits));
        }
    };
    let number = |value: u64| value.to_string();
    let address = |value: u64| mac(value).to_string();
    say("port", Field::IN_PORT, &number);
    say("vlan", Field::TAG, &|tag| if tag == 0 { "none".to_owned() } else { (tag & !TAGGED).to_string() });
    say("src", Field::SOURCE_MAC, &address);
    say("dst", Field::DESTINATION_MAC, &address);
    say("type", Field::ETHER_TYPE, &ether_type);
    say("proto", Field::PROTOCOL, &protocol);
    say("is", Field::CLASS, &classes);
    say("sport", Field::SOURCE_PORT, &number);
    say("dport", Field::DESTINATION_PORT, &number);
    say("claims", Field::CLAIMED_MAC, &address);
    for (name, [high, low]) in [("from", Field::SOURCE_IP), ("to", Field::DESTINATION_IP)] {
        if high.read(&mask.0) | low.read(&mask.0) != 0 {
            // A mask of 32 bits is an IPv4 address, of which only those were asked for.
            let mapped = if high.read(&mask.0) == 0 { FlowKey::mapped(0) } else { 0 };
            let _ = write!(words, " {name}={}", ip(key.get(high), key.get(low) | mapped));
        }
    }
    words
}

fn ether_type(value: u64) -> String {
    match EtherType(value as u16) {
        EtherType::IPV4 => "ipv4".to_owned(),
        EtherType::IPV6 => "ipv6".to_owned(),
        EtherType::ARP => "arp".to_owned(),
        EtherType(0) => "802.3".to_owned(),
        EtherType(other) => format!("{other:#06x}"),
    }
}

fn protocol(value: u64) -> String {
    match IpProtocol(value as u8) {
        IpProtocol::TCP => "tcp".to_owned(),
        IpProtocol::UDP => "udp".to_owned(),
        IpProtocol::SCTP => "sctp".to_owned(),
        IpProtocol::ICMP => "icmp".to_owned(),
        IpProtocol::ICMPV6 => "icmpv6".to_owned(),
        IpProtocol(other) => other.to_string(),
    }
}

fn classes(bits: u64) -> String {
    let names = [
        (class::FRAGMENT, "fragment"),
        (class::LATER_FRAGMENT, "later-fragment"),
        (class::TRANSPORT, "transport"),
        (class::NEIGHBOR, "neighbour-discovery"),
        (class::HIDDEN, "hidden"),
        (class::ARP, "arp"),
    ];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "plain".to_owned() } else { set.join("+") }
}
