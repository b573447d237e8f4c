//! Who is there? Namespaces and pods, with what was found out of each.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{Labels, Namespace, Pod, PodName};
use vswitch::program::{IdentityNo, PolicyNo};

use crate::hash::Map;
use crate::selectors::{NamespaceSelectorNo, SelectorNo};

/// A pod; the number is another's when it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PodNo(u32);

/// All namespaces and pods.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) namespaces: Map<Box<str>, NamespaceState>,
    numbers: Map<PodName, PodNo>,
    pods: Vec<Option<PodState>>,
    free: Vec<PodNo>,
    /// Who has which address; several only while one takes it over from another.
    addresses: BTreeSet<(IpAddr, PodNo)>,
}

#[derive(Debug)]
pub(crate) struct NamespaceState {
    pub(crate) labels: Labels,
    /// Somebody wrote it.
    is_written: bool,
    /// The choices of namespaces that it matches, sorted.
    pub(crate) matched: Vec<NamespaceSelectorNo>,
    pub(crate) pods: BTreeSet<PodNo>,
}

#[derive(Debug)]
pub(crate) struct PodState {
    pub(crate) pod: Pod,
    /// The choices of pods that it matches, sorted.
    pub(crate) matched: Vec<SelectorNo>,
    /// Of each address.
    pub(crate) identities: Vec<Option<IdentityNo>>,
    pub(crate) policy: Option<PolicyNo>,
}

impl World {
    /// Puts a namespace; true if its labels are others.
    pub(crate) fn put_namespace(&mut self, namespace: &Namespace) -> bool {
        let labels = namespace.labels();
        match self.namespaces.get_mut(namespace.name()) {
            Some(state) => {
                state.is_written = true;
                let differs = state.labels != *labels;
                state.labels = labels.clone();
                differs
            }
            None => {
                let state = NamespaceState { is_written: true, ..NamespaceState::new(labels.clone()) };
                self.namespaces.insert(namespace.name().into(), state);
                true
            }
        }
    }

    /// Forgets a namespace's labels, and the namespace if nobody is in it; true if it is still there.
    pub(crate) fn delete_namespace(&mut self, name: &str) -> bool {
        let Some(state) = self.namespaces.get_mut(name) else { return false };
        if state.pods.is_empty() {
            self.namespaces.remove(name);
            return false;
        }
        state.is_written = false;
        state.labels = Namespace::unwritten(&PodName::new(name, "")).labels().clone();
        true
    }

    /// Puts a pod: its number, the pod of that name before it, and whether its namespace is new.
    pub(crate) fn put_pod(&mut self, pod: Pod) -> Put {
        let before = self.find(pod.name()).and_then(|number| self.take_pod(number));
        let number = self.free.pop().unwrap_or(PodNo(self.pods.len() as u32));
        self.addresses.extend(pod.addresses().iter().map(|address| (*address, number)));
        self.numbers.insert(pod.name().clone(), number);
        let namespace = &pod.name().namespace;
        let is_new_namespace = !self.namespaces.contains_key(namespace);
        if is_new_namespace {
            let labels = Namespace::unwritten(pod.name()).labels().clone();
            self.namespaces.insert(namespace.clone(), NamespaceState::new(labels));
        }
        if let Some(state) = self.namespaces.get_mut(namespace) {
            state.pods.insert(number);
        }
        let identities = vec![None; pod.addresses().len()];
        let state = PodState { pod, matched: Vec::new(), identities, policy: None };
        match self.pods.get_mut(number.0 as usize) {
            Some(place) => *place = Some(state),
            None => self.pods.push(Some(state)),
        }
        Put { number, before, is_new_namespace }
    }

    /// Takes a pod out, and its namespace if it was the last of one that nobody wrote.
    pub(crate) fn take_pod(&mut self, number: PodNo) -> Option<PodState> {
        let state = self.pods.get_mut(number.0 as usize)?.take()?;
        self.free.push(number);
        self.numbers.remove(state.pod.name());
        for address in state.pod.addresses() {
            self.addresses.remove(&(*address, number));
        }
        let name = &state.pod.name().namespace;
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.pods.remove(&number);
            if namespace.pods.is_empty() && !namespace.is_written {
                self.namespaces.remove(name);
            }
        }
        Some(state)
    }

    pub(crate) fn find(&self, name: &PodName) -> Option<PodNo> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn pod(&self, number: PodNo) -> Option<&PodState> {
        self.pods.get(number.0 as usize)?.as_ref()
    }

    pub(crate) fn pod_mut(&mut self, number: PodNo) -> Option<&mut PodState> {
        self.pods.get_mut(number.0 as usize)?.as_mut()
    }

    /// All pods, in no order.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (PodNo, &PodState)> {
        let numbered = self.pods.iter().enumerate();
        numbered.filter_map(|(number, state)| Some((PodNo(number as u32), state.as_ref()?)))
    }

    /// The pods that have an address of `net`.
    pub(crate) fn pods_in(&self, net: &IpNet) -> impl Iterator<Item = PodNo> {
        let range = (net.network(), PodNo(0))..=(net.broadcast(), PodNo(u32::MAX));
        self.addresses.range(range).map(|(_, number)| *number)
    }

    /// The pod whose address it is: of several, that of the least name.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<PodNo> {
        let range = (address, PodNo(0))..=(address, PodNo(u32::MAX));
        let mut owners = self.addresses.range(range).map(|(_, number)| *number);
        let first = owners.next()?;
        let name = |number: &PodNo| self.pod(*number).map(|state| state.pod.name());
        owners.chain([first]).min_by_key(|number| name(number).cloned())
    }
}

/// What became of a pod that was put.
pub(crate) struct Put {
    pub(crate) number: PodNo,
    pub(crate) before: Option<PodState>,
    pub(crate) is_new_namespace: bool,
}

impl NamespaceState {
    fn new(labels: Labels) -> Self {
        Self { labels, is_written: false, matched: Vec::new(), pods: BTreeSet::new() }
    }
}
