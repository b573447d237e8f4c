//! How does the world change, and what is the switch to be told of it?

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use model::{ClusterNetworkPolicy, Namespace, NetworkPolicy, Pod, PodName};
use vswitch::program::{IdentityNo, IdentitySpec, PolicyNo, PolicySpec, Prefix, Scope};

use crate::blocks::Blocks;
use crate::groups::Groups;
use crate::hash::{Map, NumberSet, Set};
use crate::identities::Identities;
use crate::names::Names;
use crate::objects::{ObjectName, ObjectNo, Objects, Written};
use crate::selectors::Selectors;
use crate::world::{PodNo, PodState, World};

/// What happened to the world. An object that is put replaces the one of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A namespace is there, with these labels.
    PutNamespace(Namespace),
    /// A namespace is gone. Pods that are left in it match by its name alone.
    DeleteNamespace(String),
    /// A pod is there. One that has its node's network counts for nothing.
    PutPod(Pod),
    /// A pod is gone.
    DeletePod(PodName),
    /// A NetworkPolicy is there.
    PutPolicy(NetworkPolicy),
    /// A NetworkPolicy is gone.
    DeletePolicy {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A ClusterNetworkPolicy is there.
    PutClusterPolicy(ClusterNetworkPolicy),
    /// A ClusterNetworkPolicy is gone.
    DeleteClusterPolicy(String),
}

/// Whose policies are wanted. Policies that select none of these pods cost nothing, and make no identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// Those of all pods.
    Everywhere,
    /// Those of the pods of one node, as an agent wants them.
    Node(String),
}

/// What the switch is to be told. The numbers of one answer belong together: they are to become one program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// Addresses whose identity is new or another.
    pub put_identities: Vec<IdentitySpec>,
    /// Addresses that have none any more.
    pub delete_identities: Vec<Prefix>,
    /// Policies that are new or say something else: [`Compiler::policy`] has them.
    pub put_policies: BTreeSet<PolicyNo>,
    /// Policies that no pod has any more.
    pub delete_policies: BTreeSet<PolicyNo>,
    /// Pods that have another policy, or none any more. Pods that are gone are not listed.
    pub pods: BTreeMap<PodName, Option<PolicyNo>>,
}

impl Changed {
    /// True if the switch need not be told anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The world, and what is compiled of it.
#[derive(Debug)]
pub struct Compiler {
    pub(crate) scope: Scope,
    pub(crate) span: Span,
    pub(crate) world: World,
    pub(crate) objects: Objects,
    pub(crate) selectors: Selectors,
    pub(crate) blocks: Blocks,
    pub(crate) names: Names,
    pub(crate) groups: Groups,
    pub(crate) identities: Identities,
    /// Those of the prefixes themselves.
    pub(crate) of_prefix: Map<IpNet, IdentityNo>,
    /// What the switch has.
    pub(crate) entries: Map<IpNet, IdentityNo>,
    pub(crate) pending: Pending,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Namespaces with other labels.
    pub(crate) namespaces: Set<Box<str>>,
    /// Pods with other labels, or in such a namespace.
    pub(crate) unmatched: NumberSet<PodNo>,
    /// Pods whose facts or group may be others.
    pub(crate) pods: NumberSet<PodNo>,
    /// Policies that say something else, or select others.
    pub(crate) objects: BTreeSet<ObjectNo>,
    /// Addresses whose identity may be another, perhaps several times.
    pub(crate) entries: Vec<IpNet>,
    /// The policies that pods had before, where they have others now.
    pub(crate) before: BTreeMap<PodName, Option<PolicyNo>>,
}

impl Compiler {
    /// An empty world, whose addresses mean something in `scope`.
    pub fn new(scope: Scope, span: Span) -> Self {
        Self {
            scope,
            span,
            world: World::default(),
            objects: Objects::default(),
            selectors: Selectors::default(),
            blocks: Blocks::default(),
            names: Names::default(),
            groups: Groups::default(),
            identities: Identities::default(),
            of_prefix: Map::default(),
            entries: Map::default(),
            pending: Pending::default(),
        }
    }

    /// Changes the world, in order, and says what is to be told of all changes together.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Changed {
        for change in changes {
            self.change(change);
        }
        self.settle()
    }

    /// All identities.
    pub fn identities(&self) -> Vec<IdentitySpec> {
        let mut all: Vec<_> =
            self.entries.iter().map(|(net, identity)| self.entry(*net, *identity)).collect();
        all.sort_unstable_by_key(|entry| (entry.addresses.address, entry.addresses.len));
        all
    }

    /// How many identities can be told apart, whoever has them.
    pub fn identity_count(&self) -> usize {
        self.identities.len()
    }

    /// All policies.
    pub fn policies(&self) -> BTreeMap<PolicyNo, PolicySpec> {
        self.groups.iter().filter_map(|number| Some((number, self.policy(number)?))).collect()
    }

    /// The policy of a pod; none: everything may be.
    pub fn policy_of(&self, pod: &PodName) -> Option<PolicyNo> {
        self.world.pod(self.world.find(pod)?)?.policy
    }

    pub(crate) fn entry(&self, net: IpNet, identity: IdentityNo) -> IdentitySpec {
        IdentitySpec { scope: self.scope, addresses: prefix(net), identity }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::PutNamespace(namespace) => {
                if self.world.put_namespace(&namespace) {
                    self.pending.namespaces.insert(namespace.name().into());
                }
            }
            Change::DeleteNamespace(name) => {
                if self.world.delete_namespace(&name) {
                    self.pending.namespaces.insert(name.into());
                }
            }
            Change::PutPod(pod) if pod.is_host_network() => self.delete_pod(pod.name()),
            Change::PutPod(pod) => self.put_pod(pod),
            Change::DeletePod(name) => self.delete_pod(&name),
            Change::PutPolicy(policy) => self.put_object(Written::Network(policy)),
            Change::DeletePolicy { namespace, name } => {
                self.delete_object(&ObjectName::Network(namespace.into(), name.into()));
            }
            Change::PutClusterPolicy(policy) => self.put_object(Written::Cluster(policy)),
            Change::DeleteClusterPolicy(name) => self.delete_object(&ObjectName::Cluster(name.into())),
        }
    }

    fn put_pod(&mut self, pod: Pod) {
        let namespace = pod.name().namespace.clone();
        // Before the one of that name leaves: a namespace does not sleep in between.
        self.enter(&pod);
        let put = self.world.put_pod(pod);
        if let Some(before) = put.before {
            self.let_go(&before);
        }
        if put.is_new_namespace {
            self.pending.namespaces.insert(namespace);
        }
        self.pending.unmatched.insert(put.number);
        self.touch_addresses(put.number);
    }

    fn delete_pod(&mut self, name: &PodName) {
        let state = self.world.find(name).and_then(|number| self.world.take_pod(number));
        if let Some(state) = state {
            self.let_go(&state);
        }
    }

    /// Nobody has what a pod had.
    fn let_go(&mut self, state: &PodState) {
        self.leave(&state.pod);
        state.identities.iter().for_each(|identity| self.identities.release(*identity));
        if let Some(policy) = state.policy {
            self.groups.leave(policy);
        }
        for address in state.pod.addresses() {
            let net = IpNet::from(*address);
            self.pending.entries.push(net);
            self.pending.pods.extend(self.world.pods_in(&net));
        }
        if state.policy.is_some() {
            self.pending.before.entry(state.pod.name().clone()).or_insert(state.policy);
        }
    }

    /// Others may have, or have had, an address of the pod.
    fn touch_addresses(&mut self, number: PodNo) {
        let Some(state) = self.world.pod(number) else { return };
        for address in state.pod.addresses() {
            let net = IpNet::from(*address);
            self.pending.pods.extend(self.world.pods_in(&net));
            self.pending.entries.push(net);
        }
    }

    fn put_object(&mut self, written: Written) {
        let number = self.objects.number(written.name());
        self.deactivate(number);
        self.unselect(number);
        if self.objects.put(number, written) {
            self.select(number);
        }
        self.pending.objects.insert(number);
    }

    fn delete_object(&mut self, name: &ObjectName) {
        let Some(number) = self.objects.find(name) else { return };
        self.deactivate(number);
        self.unselect(number);
        self.objects.remove(name);
    }
}

pub(crate) fn prefix(net: IpNet) -> Prefix {
    Prefix { address: net.addr(), len: net.prefix_len() }
}
