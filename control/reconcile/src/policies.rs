//! Which policy has each attachment? The compiler's world, kept as the files and the attachments are, and what of its answer
//! the switch has to be told.
//!
//! Policies are about the pods of networks that say `policies: true`, all of one scope. A pod's labels are the files'; its
//! addresses are those that the files list, and those of its attachments on such networks. Only the policies of pods that are
//! attached here are compiled: each node asks those of its own pods, about what they begin and what is begun with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{NetworkName, Objects, Pod, PodName, PodSpec};
use policy::{Change, Changed, Compiler, Span};
use vswitch::program::{IdentitySpec, NetworkNo, PolicyNo, PolicySpec, RouterNo, Scope};

use crate::desired::{Desired, Known};
use crate::program::router_of;
use crate::record::Attachment;

/// What the node of the pods that are attached here is called in here, whatever files call it: those have ports, and no others.
/// It is no node's name, so that a pod that a file says is here has no policy before it is attached.
const HERE: &str = "";

/// Pods, by name.
pub(crate) type Pods = BTreeMap<PodName, Pod>;

/// The compiler, and what it was told.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    compiler: Option<(Scope, Compiler)>,
    objects: Arc<Objects>,
    pods: Pods,
}

/// What the switch is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PolicyDelta {
    pub(crate) put: Vec<PolicySpec>,
    pub(crate) delete: Vec<PolicyNo>,
    pub(crate) put_identities: Vec<IdentitySpec>,
    pub(crate) delete_identities: Vec<(Scope, vswitch::program::Prefix)>,
    /// Pods whose ports have another policy.
    pub(crate) pods: BTreeSet<PodName>,
}

impl Policies {
    /// Takes over what is desired now. `None` if policies are about other networks than before: the switch is to be told
    /// everything.
    pub(crate) fn follow(&mut self, desired: &Desired, pods: Pods) -> Option<PolicyDelta> {
        let scope = scope(desired);
        if scope != self.compiler.as_ref().map(|(scope, _)| *scope) {
            *self = Self::default();
            self.compiler = scope.map(|scope| (scope, Compiler::new(scope, Span::Node(HERE.to_owned()))));
            self.take(desired, pods);
            return None;
        }
        let Some(changed) = self.take(desired, pods) else { return Some(PolicyDelta::default()) };
        Some(self.delta(changed))
    }

    fn take(&mut self, desired: &Desired, pods: Pods) -> Option<Changed> {
        let (_, compiler) = self.compiler.as_mut()?;
        let objects = Arc::clone(desired.objects());
        let mut changes = Vec::new();
        if !Arc::ptr_eq(&objects, &self.objects) {
            changes.extend(object_changes(&self.objects, &objects));
        }
        let gone = self.pods.keys().filter(|name| !pods.contains_key(*name));
        changes.extend(gone.cloned().map(Change::DeletePod));
        let new = pods.iter().filter(|(name, pod)| self.pods.get(*name) != Some(pod));
        changes.extend(new.map(|(_, pod)| Change::PutPod(pod.clone())));
        (self.objects, self.pods) = (objects, pods);
        Some(compiler.apply(changes))
    }

    fn delta(&self, changed: Changed) -> PolicyDelta {
        let Some((scope, compiler)) = &self.compiler else { return PolicyDelta::default() };
        PolicyDelta {
            put: changed.put_policies.iter().filter_map(|number| compiler.policy(*number)).collect(),
            delete: changed.delete_policies.into_iter().collect(),
            put_identities: changed.put_identities,
            delete_identities: changed.delete_identities.into_iter().map(|net| (*scope, net)).collect(),
            pods: changed.pods.into_keys().collect(),
        }
    }

    /// Everything.
    pub(crate) fn all(&self) -> (Vec<PolicySpec>, Vec<IdentitySpec>) {
        let Some((_, compiler)) = &self.compiler else { return (Vec::new(), Vec::new()) };
        (compiler.policies().into_values().collect(), compiler.identities())
    }

    /// The policy of an attachment's port.
    pub(crate) fn of(&self, attachment: &Attachment, known: &Known) -> Option<PolicyNo> {
        let (_, compiler) = self.compiler.as_ref().filter(|_| known.network.spec().policies)?;
        compiler.policy_of(&pod_name(attachment)?)
    }
}

/// The pod of an attachment, if the runtime said it.
pub(crate) fn pod_name(attachment: &Attachment) -> Option<PodName> {
    attachment.pod.as_ref().map(|pod| PodName::new(&pod.namespace, &pod.name))
}

/// Where the addresses of pods with policies mean one thing.
fn scope(desired: &Desired) -> Option<Scope> {
    let known = desired.networks().find(|known| known.defined && known.network.spec().policies)?;
    Some(scope_of(known, desired))
}

/// Where the addresses of a network mean one thing.
pub(crate) fn scope_of(known: &Known, desired: &Desired) -> Scope {
    match known.network.router() {
        Some(router) => Scope::Router(RouterNo(router_of(known, router, desired))),
        None => Scope::Network(NetworkNo(known.number)),
    }
}

/// The pods that files or attachments know, with all their addresses.
pub(crate) fn pods(desired: &Desired) -> Pods {
    let mut addresses: BTreeMap<PodName, BTreeSet<IpAddr>> = BTreeMap::new();
    let has_policies =
        |name: &NetworkName| desired.network(name).is_some_and(|known| known.network.spec().policies);
    for attachment in desired.attachments().filter(|it| has_policies(&it.network)) {
        if let Some(name) = pod_name(attachment) {
            let own = attachment.addresses.iter().map(|address| address.net.addr());
            addresses.entry(name).or_default().extend(own);
        }
    }
    let mut pods = desired.objects().pods.clone();
    for (name, own) in addresses {
        let known = pods.get(&name).cloned().or_else(|| unwritten(&name));
        if let Some(pod) = known {
            let all = pod.addresses().iter().copied().chain(own);
            pods.insert(name, pod.at(HERE, all.collect::<Vec<_>>()));
        }
    }
    pods
}

/// A pod that no file knows: it has no labels. A name that is no pod's has no policy.
fn unwritten(name: &PodName) -> Option<Pod> {
    let spec = PodSpec {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        container_ports: Vec::new(),
        node_name: None,
        host_network: false,
    };
    Pod::new(&spec).ok()
}

fn object_changes(old: &Objects, new: &Objects) -> Vec<Change> {
    let mut changes = Vec::new();
    let gone = |name: &&String| !new.namespaces.contains_key(*name);
    changes.extend(old.namespaces.keys().filter(gone).cloned().map(Change::DeleteNamespace));
    let put = new.namespaces.iter().filter(|(name, it)| old.namespaces.get(*name) != Some(it));
    changes.extend(put.map(|(_, it)| Change::PutNamespace(it.clone())));
    let gone = old.policies.keys().filter(|name| !new.policies.contains_key(*name));
    changes.extend(
        gone.map(|name| Change::DeletePolicy { namespace: name.namespace.clone(), name: name.name.clone() }),
    );
    let put = new.policies.iter().filter(|(name, it)| old.policies.get(*name) != Some(it));
    changes.extend(put.map(|(_, it)| Change::PutPolicy(it.clone())));
    let gone = old.cluster_policies.keys().filter(|name| !new.cluster_policies.contains_key(*name));
    changes.extend(gone.cloned().map(Change::DeleteClusterPolicy));
    let put = new.cluster_policies.iter().filter(|(name, it)| old.cluster_policies.get(*name) != Some(it));
    changes.extend(put.map(|(_, it)| Change::PutClusterPolicy(it.clone())));
    changes
}
