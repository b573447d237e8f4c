//! What did people write, and what is asked of it?

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use model::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, ContainerPortSpec, Namespace, NamespaceSpec,
    NetworkPolicy, NetworkPolicySpec, Pod, PodName, PodSpec, Protocol,
};
use policy::Change;

/// Everything that was written, by name.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct World {
    /// Namespaces.
    pub namespaces: Vec<NamespaceSpec>,
    /// Pods.
    pub pods: Vec<PodSpec>,
    /// NetworkPolicies.
    pub policies: Vec<NetworkPolicySpec>,
    /// ClusterNetworkPolicies.
    pub cluster_policies: Vec<ClusterNetworkPolicySpec>,
}

/// What happens to a world.
#[derive(Debug, Clone)]
pub enum Step {
    /// A namespace is written.
    Namespace(NamespaceSpec),
    /// A namespace goes.
    DeleteNamespace(String),
    /// A pod is written.
    Pod(PodSpec),
    /// A pod goes.
    DeletePod(String, String),
    /// A NetworkPolicy is written.
    Policy(NetworkPolicySpec),
    /// A NetworkPolicy goes.
    DeletePolicy(String, String),
    /// A ClusterNetworkPolicy is written.
    ClusterPolicy(ClusterNetworkPolicySpec),
    /// A ClusterNetworkPolicy goes.
    DeleteClusterPolicy(String),
}

/// May this connection be?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Who begins it.
    pub client: IpAddr,
    /// With whom.
    pub server: IpAddr,
    /// By which protocol; none: ICMP, which has no ports.
    pub protocol: Option<Protocol>,
    /// To which of the server's ports.
    pub port: u16,
}

/// What is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// It may.
    pub allowed: bool,
    /// Who decided, of the side that was asked last; none: nothing is against it.
    pub by: Option<String>,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Some(protocol) => write!(f, "{} -> {} {protocol:?} {}", self.client, self.server, self.port),
            None => write!(f, "{} -> {} ICMP", self.client, self.server),
        }
    }
}

impl World {
    /// Changes what is written.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Namespace(it) => put(&mut self.namespaces, it, |old| old.name == it.name),
            Step::DeleteNamespace(name) => self.namespaces.retain(|it| it.name != *name),
            Step::Pod(it) => {
                put(&mut self.pods, it, |old| (&old.namespace, &old.name) == (&it.namespace, &it.name));
            }
            Step::DeletePod(namespace, name) => {
                self.pods.retain(|it| (&it.namespace, &it.name) != (namespace, name));
            }
            Step::Policy(it) => {
                put(&mut self.policies, it, |old| (&old.namespace, &old.name) == (&it.namespace, &it.name));
            }
            Step::DeletePolicy(namespace, name) => {
                self.policies.retain(|it| (&it.namespace, &it.name) != (namespace, name));
            }
            Step::ClusterPolicy(it) => put(&mut self.cluster_policies, it, |old| old.name == it.name),
            Step::DeleteClusterPolicy(name) => self.cluster_policies.retain(|it| it.name != *name),
        }
    }

    /// The steps that make it of nothing.
    pub fn steps(&self) -> Vec<Step> {
        let namespaces = self.namespaces.iter().cloned().map(Step::Namespace);
        let pods = self.pods.iter().cloned().map(Step::Pod);
        let policies = self.policies.iter().cloned().map(Step::Policy);
        let cluster = self.cluster_policies.iter().cloned().map(Step::ClusterPolicy);
        namespaces.chain(pods).chain(policies).chain(cluster).collect()
    }

    /// The pod whose address it is: of several, that of the least name.
    pub fn pod_at(&self, address: IpAddr) -> Option<&PodSpec> {
        let having = self.pods.iter().filter(|pod| !pod.host_network && pod.addresses.contains(&address));
        having.min_by_key(|pod| (&pod.namespace, &pod.name))
    }

    /// The pod `NAMESPACE/NAME`.
    pub fn pod(&self, name: &str) -> Option<&PodSpec> {
        self.pods.iter().find(|pod| format!("{}/{}", pod.namespace, pod.name) == name)
    }
}

impl Step {
    /// The same, as the compiler takes it.
    pub fn change(&self) -> Change {
        match self {
            Self::Namespace(it) => Change::PutNamespace(legal(Namespace::new(it))),
            Self::DeleteNamespace(name) => Change::DeleteNamespace(name.clone()),
            Self::Pod(it) => Change::PutPod(legal(Pod::new(it))),
            Self::DeletePod(namespace, name) => Change::DeletePod(PodName::new(namespace, name)),
            Self::Policy(it) => Change::PutPolicy(legal(NetworkPolicy::new(it))),
            Self::DeletePolicy(namespace, name) => {
                Change::DeletePolicy { namespace: namespace.clone(), name: name.clone() }
            }
            Self::ClusterPolicy(it) => Change::PutClusterPolicy(legal(ClusterNetworkPolicy::new(it))),
            Self::DeleteClusterPolicy(name) => Change::DeleteClusterPolicy(name.clone()),
        }
    }
}

fn legal<T>(checked: Result<T, model::ObjectError>) -> T {
    checked.unwrap_or_else(|error| panic!("a case is not legal: {error}"))
}

fn put<T: Clone>(all: &mut Vec<T>, it: &T, is_same: impl Fn(&T) -> bool) {
    match all.iter_mut().find(|old| is_same(old)) {
        Some(old) => *old = it.clone(),
        None => all.push(it.clone()),
    }
}

/// The node of all pods a.
pub(crate) const NODE: &str = "n";

/// The world that Kubernetes' suite and cyclonus ask about: namespaces x, y, z with pods a, b, c, of which each serves 80 and
/// 81 by all protocols, under the names `serve-80-tcp` and the like. Pod b of y is 10.2.0.2 and fd00::2:2.
pub fn standard(pods: &[&str]) -> World {
    let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let namespaces =
        ["x", "y", "z"].map(|name| NamespaceSpec { name: name.into(), labels: labels("ns", name) });
    let port = |(protocol, number): (Protocol, u32)| ContainerPortSpec {
        name: Some(format!("serve-{number}-{protocol:?}").to_lowercase()),
        container_port: number,
        protocol,
    };
    let ports = Protocol::ALL.into_iter().flat_map(|protocol| [(protocol, 80), (protocol, 81)]);
    let ports: Vec<_> = ports.map(port).collect();
    let pod = |name: &&str| {
        let (namespace, name) = name.split_once('/').expect("a pod is NAMESPACE/NAME");
        let number = |text: &str, first: u8| u16::from(text.as_bytes()[0] - first) + 1;
        let (high, low) = (number(namespace, b'x'), number(name, b'a'));
        PodSpec {
            namespace: namespace.into(),
            name: name.into(),
            labels: labels("pod", name),
            addresses: vec![[10, high as u8, 0, low as u8].into(), [0xfd00, 0, 0, 0, 0, 0, high, low].into()],
            container_ports: ports.clone(),
            node_name: (name == "a").then(|| NODE.to_owned()),
            host_network: false,
        }
    };
    World { namespaces: namespaces.into(), pods: pods.iter().map(pod).collect(), ..World::default() }
}
