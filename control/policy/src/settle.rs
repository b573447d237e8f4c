//! What follows from what changed? Groups, the policies in use, facts and identities, in this order.

use std::collections::BTreeSet;

use ipnet::IpNet;
use model::{NamedPort, Peer, PortMatch};
use vswitch::program::IdentityNo;

use crate::compiler::{Changed, Compiler, prefix};
use crate::groups::Group;
use crate::hash::NumberSet;
use crate::identities::Fact;
use crate::objects::{Direction, ObjectNo, Written};
use crate::selectors::{SelectorNo, Use};
use crate::world::{PodNo, PodState};

impl Compiler {
    /// Works off what is pending.
    pub(crate) fn settle(&mut self) -> Changed {
        let mut changed = Changed::default();
        let mut touched = self.match_all();
        self.group(&mut changed);
        self.activate();
        touched.extend(self.match_all());
        self.touch_pods();
        self.forget(&touched);
        self.identify();
        self.touch_groups();
        self.tell(changed)
    }

    /// Puts pods into the groups that they are of now.
    fn group(&mut self, changed: &mut Changed) {
        for number in in_order(&self.pending.pods) {
            let Some(state) = self.world.pod(number) else { continue };
            let (group, before) = (self.group_of(state), state.policy);
            let policy = group.map(|group| self.join(group));
            if let Some(before) = before {
                self.groups.leave(before);
            }
            if let Some(state) = self.world.pod_mut(number)
                && policy != before
            {
                state.policy = policy;
                self.pending.before.entry(state.pod.name().clone()).or_insert(before);
            }
        }
        for (number, group) in self.groups.sweep() {
            // One that came and went in between is nothing to tell of.
            if !self.groups.touched.remove(&number) {
                changed.delete_policies.insert(number);
            }
            for object in &group.objects {
                if let Some(it) = self.objects.get_mut(*object) {
                    it.groups.remove(&number);
                    self.pending.objects.insert(*object);
                }
            }
        }
    }

    fn join(&mut self, group: Group) -> vswitch::program::PolicyNo {
        let objects = group.objects.clone();
        let (number, is_new) = self.groups.join(group);
        if is_new {
            for object in objects {
                if let Some(it) = self.objects.get_mut(object) {
                    it.groups.insert(number);
                    self.pending.objects.insert(object);
                }
            }
        }
        number
    }

    /// The group of a pod, if any policy selects it and it is wanted.
    fn group_of(&self, state: &PodState) -> Option<Group> {
        if !self.wants(&state.pod) {
            return None;
        }
        let mut objects: Vec<ObjectNo> =
            state.matched.iter().flat_map(|selector| self.selectors.subject_of(*selector)).collect();
        objects.sort_unstable();
        objects.dedup();
        if objects.is_empty() {
            return None;
        }
        let named = |port: &&NamedPort| {
            let written = objects.iter().filter_map(|object| self.objects.get(*object));
            let mut names = written.flat_map(|it| it.written.named_ports(Direction::Ingress));
            names.any(|ports| is_named(ports, port))
        };
        let ports = state.pod.named_ports().iter().filter(named).cloned().collect();
        Some(Group { objects: objects.into(), ports })
    }

    /// Brings the peers of policies that select somebody into use, and those of others out of it.
    fn activate(&mut self) {
        for number in self.pending.objects.clone() {
            let Some(object) = self.objects.get_mut(number) else { continue };
            match (object.groups.is_empty(), object.is_active) {
                (false, false) => {
                    // New, or another than before: who puts a policy takes its peers out of use.
                    object.is_active = true;
                    self.groups.touched.extend(&object.groups);
                    let Some(object) = self.objects.get(number) else { continue };
                    for peer in object.written.peers() {
                        match peer {
                            Peer::Pods(choice) => drop(self.selectors.add(choice, number, Use::Peer)),
                            Peer::Block(block) => self.blocks.add(block, number),
                        }
                    }
                    egress_names(&object.written).for_each(|name| self.names.add(name, number));
                }
                (true, true) => self.deactivate(number),
                _ => {}
            }
        }
        self.pending.objects.clear();
    }

    /// Takes the peers of a policy out of use.
    pub(crate) fn deactivate(&mut self, number: ObjectNo) {
        let Some(object) = self.objects.get_mut(number) else { return };
        if !std::mem::take(&mut object.is_active) {
            return;
        }
        let Some(object) = self.objects.get(number) else { return };
        for peer in object.written.peers() {
            match peer {
                Peer::Pods(choice) => {
                    if let Some(selector) = self.selectors.find(choice) {
                        self.selectors.remove(selector, number, Use::Peer);
                    }
                }
                Peer::Block(block) => self.blocks.remove(block, number),
            }
        }
        egress_names(&object.written).for_each(|name| self.names.remove(name, number));
    }

    /// Pods whose facts may be others for prefixes and names that came or went.
    fn touch_pods(&mut self) {
        for net in std::mem::take(&mut self.blocks.touched) {
            self.pending.pods.extend(self.world.pods_in(&net));
            let before = self.of_prefix.remove(&net);
            if self.blocks.has_prefix(&net)
                && let Some(identity) = self.identities.acquire(vec![Fact::In(net)])
            {
                self.of_prefix.insert(net, identity);
            }
            self.identities.release(before);
            self.pending.entries.push(net);
        }
        let names = std::mem::take(&mut self.names.touched);
        if !names.is_empty() {
            let is_named = |port: &NamedPort| names.contains(&port.name);
            let concerned = self.world.pods().filter(|(_, it)| it.pod.named_ports().iter().any(is_named));
            self.pending.pods.extend(concerned.map(|(number, _)| number));
        }
        self.names.sweep(&names);
    }

    /// Forgets selectors that nobody uses.
    fn forget(&mut self, touched: &NumberSet<SelectorNo>) {
        if touched.iter().any(|selector| !self.selectors.is_used(*selector)) {
            for number in &self.pending.pods {
                if let Some(state) = self.world.pod_mut(*number) {
                    state.matched.retain(|selector| self.selectors.is_used(*selector));
                }
            }
        }
        if self.selectors.sweep(touched) {
            for state in self.world.namespaces.values_mut() {
                state.matched.retain(|selector| self.selectors.has_namespaces(*selector));
            }
        }
    }

    /// Gives the addresses of pods the identities that they have now.
    fn identify(&mut self) {
        for number in in_order(&std::mem::take(&mut self.pending.pods)) {
            let Some(state) = self.world.pod(number) else { continue };
            let (shared, before) = (self.facts(state), state.identities.clone());
            let nets: Vec<IpNet> =
                state.pod.addresses().iter().map(|address| IpNet::from(*address)).collect();
            let mut now = Vec::with_capacity(nets.len());
            for net in &nets {
                let is_owner = self.world.owner(net.addr()) == Some(number);
                let facts = shared.iter().copied().chain(self.blocks.longest(*net).map(Fact::In));
                let facts = if is_owner { facts.collect() } else { Vec::new() };
                now.push(self.identities.acquire(facts));
            }
            for ((net, before), now) in nets.iter().zip(before).zip(&now) {
                self.identities.release(before);
                if before != *now {
                    self.pending.entries.push(*net);
                }
            }
            if let Some(state) = self.world.pod_mut(number) {
                state.identities = now;
            }
        }
        self.identities.sweep();
    }

    /// What holds of all addresses of a pod, sorted.
    fn facts(&self, state: &PodState) -> Vec<Fact> {
        let is_peer = |selector: &&SelectorNo| self.selectors.peer_of(**selector).next().is_some();
        let mut facts: Vec<_> = state.matched.iter().filter(is_peer).map(|it| Fact::Pod(*it)).collect();
        let ports = state.pod.named_ports().iter().filter_map(|port| {
            self.names.used(&port.name).map(|name| Fact::Port(name, port.protocol, port.port))
        });
        facts.extend(ports);
        facts.sort_unstable();
        facts
    }

    /// Groups whose rules are about identities that came or went.
    fn touch_groups(&mut self) {
        let (mut objects, mut nets) = (BTreeSet::new(), BTreeSet::new());
        for fact in std::mem::take(&mut self.identities.touched) {
            match fact {
                Fact::Pod(selector) => objects.extend(self.selectors.peer_of(selector)),
                Fact::Port(name, ..) => objects.extend(self.names.users(name)),
                Fact::In(net) => drop(nets.insert(net)),
            }
        }
        objects.extend(self.blocks.users(&nets));
        for object in objects.iter().filter_map(|object| self.objects.get(*object)) {
            self.groups.touched.extend(&object.groups);
        }
    }

    /// What the switch has to be told.
    fn tell(&mut self, mut changed: Changed) -> Changed {
        let mut entries = std::mem::take(&mut self.pending.entries);
        entries.sort_unstable();
        entries.dedup();
        for net in entries {
            let now = self.identity_of(net);
            let before = match now {
                Some(identity) => self.entries.insert(net, identity),
                None => self.entries.remove(&net),
            };
            match now {
                _ if now == before => {}
                Some(identity) => changed.put_identities.push(self.entry(net, identity)),
                None => changed.delete_identities.push(prefix(net)),
            }
        }
        changed.put_policies = std::mem::take(&mut self.groups.touched);
        for (name, before) in std::mem::take(&mut self.pending.before) {
            let Some(state) = self.world.find(&name).and_then(|number| self.world.pod(number)) else {
                continue;
            };
            if state.policy != before {
                changed.pods.insert(name, state.policy);
            }
        }
        changed
    }

    /// The identity of addresses: that of the pod that has the only one, or that of the prefix.
    fn identity_of(&self, net: IpNet) -> Option<IdentityNo> {
        let is_one = net.prefix_len() == net.max_prefix_len();
        let owner = is_one.then(|| self.world.owner(net.addr())).flatten();
        let Some(state) = owner.and_then(|number| self.world.pod(number)) else {
            return self.of_prefix.get(&net).copied();
        };
        let at = state.pod.addresses().iter().position(|address| *address == net.addr())?;
        state.identities[at]
    }
}

/// Pods as they lie in memory, which is faster than in any other order where they are many.
pub(crate) fn in_order(pods: &NumberSet<PodNo>) -> Vec<PodNo> {
    let mut pods: Vec<_> = pods.iter().copied().collect();
    pods.sort_unstable();
    pods
}

/// The names of ports in a policy's egress rules.
fn egress_names(written: &Written) -> impl Iterator<Item = &str> {
    written.named_ports(Direction::Egress).filter_map(|ports| match ports {
        PortMatch::Named { name, .. } => Some(&**name),
        PortMatch::Range { .. } => None,
    })
}

/// True if that is what the rule calls the port.
pub(crate) fn is_named(ports: &PortMatch, port: &NamedPort) -> bool {
    match ports {
        PortMatch::Named { protocol, name } => {
            *name == port.name && protocol.is_none_or(|protocol| protocol == port.protocol)
        }
        PortMatch::Range { .. } => false,
    }
}
