//! Which policies were written? Both kinds as one: a place in the order, a subject, rules of each direction.

use std::collections::BTreeSet;

use model::{ClusterNetworkPolicy, NetworkPolicy, Peer, PodChoice, PortMatch, Rule, Tier};
use vswitch::program::PolicyNo;

use crate::hash::{Map, NumberMap};
use crate::selectors::SelectorNo;

/// A policy that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectNo(u32);

/// What names a policy that was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ObjectName {
    Network(Box<str>, Box<str>),
    Cluster(Box<str>),
}

/// Such a policy.
#[derive(Debug)]
pub(crate) enum Written {
    Network(NetworkPolicy),
    Cluster(ClusterNetworkPolicy),
}

/// When it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    Admin,
    Network,
    Baseline,
}

/// A direction, seen from the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) written: Written,
    /// What it selects, while it is awake.
    pub(crate) subject: Option<SelectorNo>,
    /// The groups that it selects; none: it says nothing.
    pub(crate) groups: BTreeSet<PolicyNo>,
    /// Its peers are selectors, blocks and names in use.
    pub(crate) is_active: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    numbers: Map<ObjectName, ObjectNo>,
    of_number: NumberMap<ObjectNo, Object>,
    of_namespace: Map<Box<str>, OfNamespace>,
    next: u32,
}

/// The policies of a namespace, which are awake while a wanted pod is there.
#[derive(Debug, Default)]
struct OfNamespace {
    objects: BTreeSet<ObjectNo>,
    wanted_pods: usize,
}

impl Written {
    pub(crate) fn name(&self) -> ObjectName {
        match self {
            Self::Network(it) => ObjectName::Network(it.namespace().into(), it.name().into()),
            Self::Cluster(it) => ObjectName::Cluster(it.name().into()),
        }
    }

    /// For people.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Network(it) => format!("NetworkPolicy {}/{}", it.namespace(), it.name()),
            Self::Cluster(it) => format!("ClusterNetworkPolicy {}", it.name()),
        }
    }

    pub(crate) fn subject(&self) -> PodChoice {
        match self {
            Self::Network(it) => it.subject(),
            Self::Cluster(it) => it.subject().clone(),
        }
    }

    pub(crate) fn turn(&self) -> Turn {
        match self {
            Self::Network(_) => Turn::Network,
            Self::Cluster(it) if it.tier() == Tier::Admin => Turn::Admin,
            Self::Cluster(_) => Turn::Baseline,
        }
    }

    /// Its place among all: of one turn and priority, by name.
    pub(crate) fn place(&self) -> (Turn, u16, [&str; 2]) {
        match self {
            Self::Network(it) => (Turn::Network, 0, [it.namespace(), it.name()]),
            Self::Cluster(it) => (self.turn(), it.priority(), [it.name(), ""]),
        }
    }

    pub(crate) fn rules(&self, direction: Direction) -> &[Rule] {
        match (self, direction) {
            (Self::Network(it), Direction::Ingress) => it.ingress().unwrap_or_default(),
            (Self::Network(it), Direction::Egress) => it.egress().unwrap_or_default(),
            (Self::Cluster(it), Direction::Ingress) => it.ingress(),
            (Self::Cluster(it), Direction::Egress) => it.egress(),
        }
    }

    /// Whether what no rule allows is denied.
    pub(crate) fn isolates(&self, direction: Direction) -> bool {
        match (self, direction) {
            (Self::Network(it), Direction::Ingress) => it.ingress().is_some(),
            (Self::Network(it), Direction::Egress) => it.egress().is_some(),
            (Self::Cluster(_), _) => false,
        }
    }

    /// Whom its rules are about.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        let rules = [Direction::Ingress, Direction::Egress].map(|direction| self.rules(direction));
        rules.into_iter().flatten().filter_map(|rule| rule.peers.as_ref()).flatten()
    }

    /// The ports that its rules of one direction name.
    pub(crate) fn named_ports(&self, direction: Direction) -> impl Iterator<Item = &PortMatch> {
        let ports = self.rules(direction).iter().filter_map(|rule| rule.ports.as_ref()).flatten();
        ports.filter(|ports| matches!(ports, PortMatch::Named { .. }))
    }
}

impl Objects {
    /// The number of a policy, given with the first one of that name.
    pub(crate) fn number(&mut self, name: ObjectName) -> ObjectNo {
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        while self.of_number.contains_key(&ObjectNo(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let number = ObjectNo(self.next);
        self.next = self.next.wrapping_add(1);
        self.numbers.insert(name, number);
        number
    }

    pub(crate) fn find(&self, name: &ObjectName) -> Option<ObjectNo> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn get(&self, number: ObjectNo) -> Option<&Object> {
        self.of_number.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: ObjectNo) -> Option<&mut Object> {
        self.of_number.get_mut(&number)
    }

    /// Puts a policy in the place of the one before it, if there was one; true if it is awake.
    pub(crate) fn put(&mut self, number: ObjectNo, written: Written) -> bool {
        let is_awake = match &written {
            Written::Network(it) => {
                let of_namespace = self.of_namespace.entry(it.namespace().into()).or_default();
                of_namespace.objects.insert(number);
                of_namespace.wanted_pods > 0
            }
            Written::Cluster(_) => true,
        };
        let groups = self.of_number.remove(&number).map(|before| before.groups).unwrap_or_default();
        self.of_number.insert(number, Object { written, subject: None, groups, is_active: false });
        is_awake
    }

    pub(crate) fn remove(&mut self, name: &ObjectName) {
        let Some(number) = self.numbers.remove(name) else { return };
        self.of_number.remove(&number);
        if let ObjectName::Network(namespace, _) = name
            && let Some(of_namespace) = self.of_namespace.get_mut(namespace)
        {
            of_namespace.objects.remove(&number);
            self.forget(namespace);
        }
    }

    /// A wanted pod is in a namespace: who wakes.
    pub(crate) fn enter(&mut self, namespace: &str) -> Vec<ObjectNo> {
        let of_namespace = self.of_namespace.entry(namespace.into()).or_default();
        of_namespace.wanted_pods += 1;
        let is_first = of_namespace.wanted_pods == 1;
        of_namespace.objects.iter().copied().filter(|_| is_first).collect()
    }

    /// A wanted pod is gone: who goes to sleep.
    pub(crate) fn leave(&mut self, namespace: &str) -> Vec<ObjectNo> {
        let Some(of_namespace) = self.of_namespace.get_mut(namespace) else { return Vec::new() };
        of_namespace.wanted_pods -= 1;
        let was_last = of_namespace.wanted_pods == 0;
        let asleep = of_namespace.objects.iter().copied().filter(|_| was_last).collect();
        self.forget(namespace);
        asleep
    }

    /// Forgets a namespace that nobody speaks of.
    fn forget(&mut self, namespace: &str) {
        if self.of_namespace.get(namespace).is_some_and(|it| it.objects.is_empty() && it.wanted_pods == 0) {
            self.of_namespace.remove(namespace);
        }
    }
}
