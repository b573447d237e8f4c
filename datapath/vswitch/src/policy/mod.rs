//! May this connection be? The rules of one direction, compiled so that the first that matches is found without asking each.
//!
//! Each rule has a number, tiers one after the other. Two lookups give sets of rules: those about the peer's identity, and
//! those about the destination port; what is in both matches, and the least number decides, or passes to the next tier.
//! Memory is the sum of what rules name, not the product.

mod bits;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use wire::IpProtocol;

use crate::program::{IdentityNo, RuleAction, RuleSpec, TierSpec};
use bits::{Bits, first_common};

/// The rules of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Side {
    tiers: Vec<Tier>,
    rules: Vec<Rule>,
    by_identity: HashMap<IdentityNo, Bits>,
    of_everybody: Bits,
    by_protocol: HashMap<IpProtocol, Vec<Interval>>,
    of_every_port: Bits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tier {
    /// Behind its last rule.
    end: u32,
    isolated_by: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    name: String,
    action: RuleAction,
    tier: usize,
}

/// The rules about all ports from this one on, up to the next interval's first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Interval {
    first: u16,
    rules: Bits,
}

/// What the rules say, and who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    /// By a rule, or because nothing is against it.
    Allow(Option<&'a str>),
    /// By a rule, or because the pod is isolated.
    Deny(&'a str),
}

impl Side {
    pub(crate) fn new(tiers: &[TierSpec]) -> Self {
        let mut side = Self::default();
        let mut bounds: HashMap<IpProtocol, Vec<u32>> = HashMap::new();
        for range in
            tiers.iter().flat_map(|tier| &tier.rules).filter_map(|rule| rule.ports.as_ref()).flatten()
        {
            let bounds = bounds.entry(range.protocol).or_default();
            bounds.extend([u32::from(*range.ports.start()), u32::from(*range.ports.end()) + 1]);
        }
        for (protocol, mut bounds) in bounds {
            bounds.sort_unstable();
            bounds.dedup();
            let firsts = bounds.iter().filter_map(|bound| u16::try_from(*bound).ok());
            let intervals = firsts.map(|first| Interval { first, ..Interval::default() });
            side.by_protocol.insert(protocol, intervals.collect());
        }
        for tier in tiers {
            tier.rules.iter().for_each(|rule| side.add(rule));
            let end = side.rules.len() as u32;
            side.tiers.push(Tier { end, isolated_by: tier.isolated_by.clone() });
        }
        side
    }

    fn add(&mut self, rule: &RuleSpec) {
        let number = self.rules.len() as u32;
        match &rule.peers {
            None => self.of_everybody.push(number),
            Some(peers) => {
                let mut peers = peers.clone();
                peers.sort_unstable();
                peers.dedup();
                peers.iter().for_each(|peer| self.by_identity.entry(*peer).or_default().push(number));
            }
        }
        match &rule.ports {
            None => self.of_every_port.push(number),
            Some(ranges) => {
                for range in ranges {
                    let intervals = self.by_protocol.get_mut(&range.protocol).into_iter().flatten();
                    let inside = intervals.filter(|interval| range.ports.contains(&interval.first));
                    inside.for_each(|interval| interval.rules.push(number));
                }
            }
        }
        self.rules.push(Rule { name: rule.name.clone(), action: rule.action, tier: self.tiers.len() });
    }

    /// What the rules say of a connection with a peer of that identity, to that port if the protocol has any.
    pub(crate) fn verdict(
        &self,
        peer: Option<IdentityNo>,
        protocol: IpProtocol,
        port: Option<u16>,
    ) -> Verdict<'_> {
        let none = Bits::default();
        let of_peer = peer.and_then(|peer| self.by_identity.get(&peer)).unwrap_or(&none);
        let of_port = port.and_then(|port| self.interval(protocol, port)).unwrap_or(&none);
        let mut from = 0;
        for (number, tier) in self.tiers.iter().enumerate() {
            let peers = [of_peer, &self.of_everybody];
            let found =
                first_common(peers, [of_port, &self.of_every_port], from).filter(|rule| *rule < tier.end);
            let rule = found.map(|rule| &self.rules[rule as usize]).filter(|rule| rule.tier == number);
            match rule.map(|rule| (rule.action, rule.name.as_str())) {
                Some((RuleAction::Allow, name)) => return Verdict::Allow(Some(name)),
                Some((RuleAction::Deny, name)) => return Verdict::Deny(name),
                Some((RuleAction::Pass, _)) => {}
                None => {
                    if let Some(name) = &tier.isolated_by {
                        return Verdict::Deny(name);
                    }
                }
            }
            from = tier.end;
        }
        Verdict::Allow(None)
    }

    fn interval(&self, protocol: IpProtocol, port: u16) -> Option<&Bits> {
        let intervals = self.by_protocol.get(&protocol)?;
        let behind = intervals.partition_point(|interval| interval.first <= port);
        Some(&intervals[behind.checked_sub(1)?].rules)
    }
}
