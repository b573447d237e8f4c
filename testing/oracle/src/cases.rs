//! What do people expect? Cases as data: the 48 of Kubernetes' own suite (`test/e2e/network/netpol`) in `cases/netpol.yaml`,
//! and those of tiers and priorities in `cases/tiers.yaml`.
//!
//! A case has pods, and steps: what is written or deleted, then what is expected. An expectation holds for one protocol and
//! port; everything is reachable but for what its lines say, the later the stronger: `x/* -> y/a no`.

use std::collections::BTreeMap;

use model::{ClusterNetworkPolicySpec, NetworkPolicySpec, Protocol};

use crate::world::{Question, Step, World, standard};

/// A case.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Case {
    /// What it is about.
    pub name: String,
    pods: Vec<String>,
    steps: Vec<CaseStep>,
    /// Its blocks are of IPv4, and say nothing of IPv6.
    #[serde(default)]
    ipv4_only: bool,
}

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CaseStep {
    #[serde(default)]
    put: Vec<NetworkPolicySpec>,
    #[serde(default)]
    put_cluster: Vec<ClusterNetworkPolicySpec>,
    /// `NAMESPACE/NAME`, or the name of a ClusterNetworkPolicy.
    #[serde(default)]
    delete: Vec<String>,
    /// Added to namespaces.
    #[serde(default)]
    namespace_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// Added to pods, `NAMESPACE/NAME`.
    #[serde(default)]
    pod_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// By `PROTOCOL PORT`.
    expect: BTreeMap<String, Vec<String>>,
}

/// All cases of Kubernetes' suite.
pub fn cases() -> Vec<Case> {
    serde_yaml_ng::from_str(include_str!("../cases/netpol.yaml")).expect("the cases can be read")
}

/// The cases of ClusterNetworkPolicies, with NetworkPolicies between their tiers.
pub fn tier_cases() -> Vec<Case> {
    serde_yaml_ng::from_str(include_str!("../cases/tiers.yaml")).expect("the cases can be read")
}

impl Case {
    /// The world before.
    pub fn world(&self) -> World {
        let pods: Vec<_> = self.pods.iter().map(String::as_str).collect();
        standard(&pods)
    }

    /// What happens in each step, and what is expected then.
    pub fn steps(&self) -> impl Iterator<Item = (Vec<Step>, Vec<(Question, bool)>)> {
        let mut world = self.world();
        self.steps.iter().map(move |step| {
            let steps = step.steps(&world);
            steps.iter().for_each(|step| world.apply(step));
            (steps, self.expected(&world, &step.expect))
        })
    }

    fn expected(&self, world: &World, expect: &BTreeMap<String, Vec<String>>) -> Vec<(Question, bool)> {
        let mut all = Vec::new();
        for (kind, lines) in expect {
            let (protocol, port) = kind.split_once(' ').expect("an expectation is about PROTOCOL PORT");
            let protocol: Protocol = serde_yaml_ng::from_str(protocol).expect("a protocol");
            let port = port.parse().expect("a port");
            for (client, server) in self.pairs() {
                let (from, to) =
                    [client, server].map(|name| world.pod(name).expect("the pod is there")).into();
                let allowed = is_expected(lines, client, server);
                for (client, server) in from.addresses.iter().copied().zip(to.addresses.iter().copied()) {
                    if client.is_ipv4() || !self.ipv4_only {
                        all.push((Question { client, server, protocol: Some(protocol), port }, allowed));
                    }
                }
            }
        }
        all
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.pods.iter().flat_map(|client| self.pods.iter().map(move |server| (client, server)));
        pairs.filter(|(client, server)| client != server).map(|(client, server)| (&**client, &**server))
    }
}

impl CaseStep {
    fn steps(&self, world: &World) -> Vec<Step> {
        let put = self.put.iter().cloned().map(Step::Policy);
        let cluster = self.put_cluster.iter().cloned().map(Step::ClusterPolicy);
        let delete = self.delete.iter().map(|name| match name.split_once('/') {
            Some((namespace, name)) => Step::DeletePolicy(namespace.into(), name.into()),
            None => Step::DeleteClusterPolicy(name.clone()),
        });
        let namespaces = self.namespace_labels.iter().map(|(name, labels)| {
            let spec = world.namespaces.iter().find(|it| it.name == *name);
            let mut spec = spec.expect("the namespace is there").clone();
            spec.labels.extend(labels.clone());
            Step::Namespace(spec)
        });
        let pods = self.pod_labels.iter().map(|(name, labels)| {
            let mut spec = world.pod(name).expect("the pod is there").clone();
            spec.labels.extend(labels.clone());
            Step::Pod(spec)
        });
        put.chain(cluster).chain(delete).chain(namespaces).chain(pods).collect()
    }
}

fn is_expected(lines: &[String], client: &str, server: &str) -> bool {
    let is_about = |line: &str| {
        let (ends, answer) = line.rsplit_once(' ').expect("a line ends with yes or no");
        let (from, to) = ends.split_once(" -> ").expect("a line is FROM -> TO");
        (is_meant(from, client) && is_meant(to, server)).then(|| match answer {
            "yes" => true,
            "no" => false,
            _ => panic!("{line:?} ends with yes or no"),
        })
    };
    lines.iter().filter_map(|line| is_about(line)).next_back().unwrap_or(true)
}

/// `*` is everybody, `x/*` everybody of x.
fn is_meant(pattern: &str, pod: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == pod, |front| pod.starts_with(front))
}
