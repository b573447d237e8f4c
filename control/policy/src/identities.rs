//! Which addresses cannot be told apart by any rule? Those of which the same facts hold: they have one identity.

use std::collections::BTreeMap;

use ipnet::IpNet;
use model::Protocol;
use vswitch::program::IdentityNo;

use crate::hash::Set;
use crate::names::NameNo;
use crate::numbers::Numbers;
use crate::selectors::SelectorNo;

/// What a rule can ask of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// Its pod is a peer that somebody chose.
    Pod(SelectorNo),
    /// Its pod gives a port a name.
    Port(NameNo, Protocol, u16),
    /// The longest prefix that has it.
    In(IpNet),
}

/// All identities.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    numbers: Numbers<Box<[Fact]>>,
    /// Sorted.
    by_fact: BTreeMap<Fact, Vec<IdentityNo>>,
    /// The facts of identities that came or went since the last look.
    pub(crate) touched: Set<Fact>,
}

impl Identities {
    /// One more address of which these facts hold, sorted; `None` if there are none.
    pub(crate) fn acquire(&mut self, facts: Vec<Fact>) -> Option<IdentityNo> {
        if facts.is_empty() {
            return None;
        }
        let (number, is_new) = self.numbers.acquire(facts.into());
        let number = IdentityNo(number);
        if is_new && let Some(facts) = self.numbers.meaning(number.0) {
            for fact in facts.iter() {
                let identities = self.by_fact.entry(*fact).or_default();
                // Numbers grow, so that this is nearly always the end.
                let at = identities.partition_point(|it| *it < number);
                identities.insert(at, number);
            }
            self.touched.extend(facts.iter());
        }
        Some(number)
    }

    /// One address less.
    pub(crate) fn release(&mut self, identity: Option<IdentityNo>) {
        if let Some(identity) = identity {
            self.numbers.release(identity.0);
        }
    }

    /// Forgets identities without addresses.
    pub(crate) fn sweep(&mut self) {
        for (number, facts) in self.numbers.sweep() {
            for fact in facts.iter() {
                let Some(identities) = self.by_fact.get_mut(fact) else { continue };
                if let Ok(at) = identities.binary_search(&IdentityNo(number)) {
                    identities.remove(at);
                }
                if identities.is_empty() {
                    self.by_fact.remove(fact);
                }
            }
            self.touched.extend(facts.iter());
        }
    }

    /// Of whom a fact holds, sorted.
    pub(crate) fn of(&self, fact: Fact) -> &[IdentityNo] {
        self.by_fact.get(&fact).map_or(&[], Vec::as_slice)
    }

    /// The prefixes inside `net` that somebody is in, and who.
    pub(crate) fn inside(&self, net: IpNet) -> impl Iterator<Item = (IpNet, &[IdentityNo])> {
        let last = IpNet::from(net.broadcast());
        self.by_fact.range(Fact::In(net)..=Fact::In(last)).filter_map(|(fact, identities)| match fact {
            Fact::In(prefix) => Some((*prefix, identities.as_slice())),
            _ => None,
        })
    }

    /// The ports that pods name so, and whose they are.
    pub(crate) fn ports(&self, name: NameNo) -> impl Iterator<Item = (Protocol, u16, &[IdentityNo])> {
        let [first, last] = [(Protocol::Tcp, 0), (Protocol::Sctp, u16::MAX)];
        let range = Fact::Port(name, first.0, first.1)..=Fact::Port(name, last.0, last.1);
        self.by_fact.range(range).filter_map(|(fact, identities)| match fact {
            Fact::Port(_, protocol, port) => Some((*protocol, *port, identities.as_slice())),
            _ => None,
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.iter().count()
    }
}
