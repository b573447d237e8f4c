//! Compiled rules against rules asked one after the other.

use proptest::collection::vec;
use proptest::prelude::*;
use wire::IpProtocol;

use super::{Side, Verdict};
use crate::program::{IdentityNo, PortRangeSpec, RuleAction, RuleSpec, TierSpec};

/// The meaning of the rules, obviously.
fn naive(tiers: &[TierSpec], peer: Option<u32>, protocol: IpProtocol, port: Option<u16>) -> Verdict<'_> {
    let matches = |rule: &RuleSpec| {
        let by_peer =
            rule.peers.as_ref().is_none_or(|peers| peer.is_some_and(|it| peers.contains(&IdentityNo(it))));
        let in_range = |range: &PortRangeSpec| {
            range.protocol == protocol && port.is_some_and(|port| range.ports.contains(&port))
        };
        by_peer && rule.ports.as_ref().is_none_or(|ranges| ranges.iter().any(in_range))
    };
    for tier in tiers {
        match tier.rules.iter().find(|rule| matches(rule)) {
            Some(RuleSpec { action: RuleAction::Allow, name, .. }) => return Verdict::Allow(Some(name)),
            Some(RuleSpec { action: RuleAction::Deny, name, .. }) => return Verdict::Deny(name),
            Some(_) => {}
            None => {
                if let Some(name) = &tier.isolated_by {
                    return Verdict::Deny(name);
                }
            }
        }
    }
    Verdict::Allow(None)
}

fn protocol() -> impl Strategy<Value = IpProtocol> {
    prop_oneof![Just(IpProtocol::TCP), Just(IpProtocol::UDP), Just(IpProtocol::SCTP), Just(IpProtocol::ICMP)]
}

/// Few different ones, so that they meet, and the largest.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0..12u16, 65_530..=u16::MAX]
}

fn rule() -> impl Strategy<Value = RuleSpec> {
    let peers = prop::option::of(vec((0..6u32).prop_map(IdentityNo), 0..4));
    let range = (protocol(), port(), port())
        .prop_map(|(protocol, a, b)| PortRangeSpec { protocol, ports: a.min(b)..=a.max(b) });
    let action = prop_oneof![Just(RuleAction::Allow), Just(RuleAction::Deny), Just(RuleAction::Pass)];
    (peers, prop::option::of(vec(range, 0..4)), action, any::<u32>())
        .prop_map(|(peers, ports, action, name)| RuleSpec { name: name.to_string(), peers, ports, action })
}

fn tiers() -> impl Strategy<Value = Vec<TierSpec>> {
    let isolated_by = prop::option::of(any::<u32>().prop_map(|name| name.to_string()));
    let tier =
        (vec(rule(), 0..100), isolated_by).prop_map(|(rules, isolated_by)| TierSpec { rules, isolated_by });
    vec(tier, 0..4)
}

proptest! {
    #[test]
    fn compiled_rules_say_what_they_say_one_after_the_other(
        tiers in tiers(), questions in vec((prop::option::of(0..7u32), protocol(), prop::option::of(port())), 1..40)
    ) {
        let side = Side::new(&tiers);
        for (peer, protocol, port) in questions {
            let expected = naive(&tiers, peer, protocol, port);
            prop_assert_eq!(side.verdict(peer.map(IdentityNo), protocol, port), expected);
        }
    }
}

#[test]
fn without_rules_everything_is_allowed() {
    assert_eq!(Side::new(&[]).verdict(None, IpProtocol::TCP, Some(80)), Verdict::Allow(None));
    let isolated = TierSpec { isolated_by: Some("default/deny".into()), ..TierSpec::default() };
    assert_eq!(
        Side::new(&[isolated]).verdict(None, IpProtocol::TCP, Some(80)),
        Verdict::Deny("default/deny")
    );
}
