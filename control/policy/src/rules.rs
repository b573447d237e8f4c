//! What does the policy of a group say? The rules of all objects that select it, in tiers, about identities.

use model::{Action, Peer, PortMatch, Protocol, Rule};
use vswitch::program::{IdentityNo, PolicyNo, PolicySpec, PortRangeSpec, RuleAction, RuleSpec, TierSpec};

use crate::compiler::Compiler;
use crate::groups::Group;
use crate::identities::Fact;
use crate::objects::{Direction, Object, Turn, Written};
use crate::settle::is_named;

impl Compiler {
    /// A policy, with the identities of now.
    pub fn policy(&self, number: PolicyNo) -> Option<PolicySpec> {
        let group = self.groups.get(number)?;
        let mut objects: Vec<&Object> =
            group.objects.iter().filter_map(|number| self.objects.get(*number)).collect();
        objects.sort_unstable_by_key(|object| object.written.place());
        let tiers = |direction| {
            let turns = [Turn::Admin, Turn::Network, Turn::Baseline].into_iter();
            turns.filter_map(|turn| self.tier(group, &of_turn(&objects, turn), direction)).collect()
        };
        let titles: Vec<_> = objects.iter().map(|object| object.written.title()).collect();
        Some(PolicySpec {
            number,
            name: titles.join(", "),
            egress: tiers(Direction::Egress),
            ingress: tiers(Direction::Ingress),
        })
    }

    /// The rules of one tier; `None` if it has nothing to say.
    fn tier(&self, group: &Group, objects: &[&Written], direction: Direction) -> Option<TierSpec> {
        let mut rules = Vec::new();
        for written in objects {
            for (index, rule) in written.rules(direction).iter().enumerate() {
                let name = rule_name(written, direction, (index, rule));
                self.add_rule(&mut rules, (name, rule), (group, direction));
            }
        }
        let isolating = objects.iter().filter(|written| written.isolates(direction));
        let titles: Vec<_> = isolating.map(|written| written.title()).collect();
        let isolated_by = (!titles.is_empty()).then(|| titles.join(", "));
        (isolated_by.is_some() || !rules.is_empty()).then_some(TierSpec { rules, isolated_by })
    }

    /// A rule as the switch has it: one for the ports by number, and one for each number of a name at other pods.
    fn add_rule(
        &self,
        rules: &mut Vec<RuleSpec>,
        (name, rule): (String, &Rule),
        (group, direction): (&Group, Direction),
    ) {
        let peers = rule.peers.as_ref().map(|peers| self.identities_of(peers));
        let mut add = |peers: Option<Vec<IdentityNo>>, ports: Option<Vec<PortRangeSpec>>| {
            // What nobody is, or no port has, matches nothing.
            if peers.as_ref().is_none_or(|it| !it.is_empty())
                && ports.as_ref().is_none_or(|it| !it.is_empty())
            {
                rules.push(RuleSpec { name: name.clone(), peers, ports, action: action(rule.action) });
            }
        };
        let Some(ports) = &rule.ports else { return add(peers, None) };
        let mut ranges = Vec::new();
        for matched in ports {
            match matched {
                PortMatch::Range { protocol, ports } => ranges.push(range(*protocol, (*ports).into())),
                PortMatch::Named { .. } if direction == Direction::Ingress => {
                    let named = group.ports.iter().filter(|port| is_named(matched, port));
                    ranges.extend(named.map(|port| range(port.protocol, port.port..=port.port)));
                }
                PortMatch::Named { protocol: wanted, name } => {
                    let found =
                        self.names.used(name).into_iter().flat_map(|name| self.identities.ports(name));
                    for (protocol, port, having) in found.filter(|it| wanted.is_none_or(|one| one == it.0)) {
                        let is_peer = |it: &&IdentityNo| {
                            peers.as_ref().is_none_or(|peers| peers.binary_search(it).is_ok())
                        };
                        let having = having.iter().filter(is_peer).copied().collect();
                        add(Some(having), Some(vec![range(protocol, port..=port)]));
                    }
                }
            }
        }
        add(peers, Some(ranges));
    }

    /// Whoever is one of the peers, sorted.
    fn identities_of(&self, peers: &[Peer]) -> Vec<IdentityNo> {
        let mut all = Vec::new();
        for peer in peers {
            match peer {
                Peer::Pods(choice) => {
                    if let Some(selector) = self.selectors.find(choice) {
                        all.extend_from_slice(self.identities.of(Fact::Pod(selector)));
                    }
                }
                Peer::Block(block) => {
                    let inside = self.identities.inside(block.cidr);
                    let meant = inside.filter(|(prefix, _)| block.contains(prefix));
                    meant.for_each(|(_, identities)| all.extend_from_slice(identities));
                }
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn of_turn<'a>(objects: &[&'a Object], turn: Turn) -> Vec<&'a Written> {
    objects.iter().map(|object| &object.written).filter(|written| written.turn() == turn).collect()
}

/// For people: the object, the direction, and which of its rules, counted from 1.
fn rule_name(written: &Written, direction: Direction, (index, rule): (usize, &Rule)) -> String {
    let direction = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let number = index + 1;
    match &rule.name {
        Some(name) => format!("{} {direction} rule {number} {name:?}", written.title()),
        None => format!("{} {direction} rule {number}", written.title()),
    }
}

fn action(action: Action) -> RuleAction {
    match action {
        Action::Accept => RuleAction::Allow,
        Action::Deny => RuleAction::Deny,
        Action::Pass => RuleAction::Pass,
    }
}

fn range(protocol: Protocol, ports: std::ops::RangeInclusive<u16>) -> PortRangeSpec {
    PortRangeSpec { protocol: protocol.ip(), ports }
}
