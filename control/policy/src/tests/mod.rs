//! Small worlds, and what is told of them.

mod blocks;
mod tiers;
mod updates;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, Namespace, NamespaceSpec, NetworkPolicy,
    NetworkPolicySpec, Pod, PodName, PodSpec,
};
use vswitch::program::{IdentityNo, IdentitySpec, PolicySpec, RouterNo, Scope, TierSpec};

use crate::{Change, Changed, Compiler, Span};

pub(crate) fn pod(yaml: &str) -> Change {
    let spec: PodSpec = serde_yaml_ng::from_str(&format!("{{{yaml}}}")).unwrap();
    Change::PutPod(Pod::new(&spec).unwrap())
}

pub(crate) fn namespace(name: &str, labels: &str) -> Change {
    let spec: NamespaceSpec =
        serde_yaml_ng::from_str(&format!("{{name: {name}, labels: {labels}}}")).unwrap();
    Change::PutNamespace(Namespace::new(&spec).unwrap())
}

pub(crate) fn policy(yaml: &str) -> Change {
    let spec: NetworkPolicySpec = serde_yaml_ng::from_str(&format!("{{{yaml}}}")).unwrap();
    Change::PutPolicy(NetworkPolicy::new(&spec).unwrap())
}

pub(crate) fn cluster(yaml: &str) -> Change {
    let spec: ClusterNetworkPolicySpec = serde_yaml_ng::from_str(&format!("{{{yaml}}}")).unwrap();
    Change::PutClusterPolicy(ClusterNetworkPolicy::new(&spec).unwrap())
}

/// Pods a and b of namespace x, pod c of namespace y.
pub(crate) fn bed() -> Compiler {
    let mut compiler = Compiler::new(Scope::Router(RouterNo(1)), Span::Everywhere);
    compiler.apply([
        namespace("x", "{team: red}"),
        namespace("y", "{team: blue}"),
        pod("namespace: x, name: a, labels: {app: web}, addresses: [10.0.0.1], nodeName: n1, \
             containerPorts: [{name: http, containerPort: 80}]"),
        pod("namespace: x, name: b, labels: {app: db}, addresses: [10.0.0.2], nodeName: n2, \
             containerPorts: [{name: http, containerPort: 8080}]"),
        pod("namespace: y, name: c, labels: {app: web}, addresses: [10.0.0.3, 'fd00::3'], nodeName: n2"),
    ]);
    compiler
}

/// The policy of a pod.
pub(crate) fn of(compiler: &Compiler, namespace: &str, name: &str) -> Option<PolicySpec> {
    compiler.policy(compiler.policy_of(&PodName::new(namespace, name))?)
}

/// Who has an identity: last number of the address, or all of it, and the prefix if it is no pod's.
pub(crate) fn who(compiler: &Compiler, identities: &[IdentityNo]) -> BTreeSet<String> {
    let entries = compiler.identities().into_iter();
    let having = entries.filter(|entry| identities.contains(&entry.identity));
    having.map(|entry| format!("{}/{}", entry.addresses.address, entry.addresses.len)).collect()
}

/// Each rule of a tier in a few words: name, who, ports.
pub(crate) fn words(compiler: &Compiler, tier: &TierSpec) -> Vec<String> {
    let rule = |rule: &vswitch::program::RuleSpec| {
        let peers = rule.peers.as_ref().map(|peers| {
            let who: Vec<_> = who(compiler, peers).into_iter().collect();
            who.join(" ")
        });
        let ports = rule.ports.as_ref().map(|ranges| {
            let range = |range: &vswitch::program::PortRangeSpec| {
                format!("{}:{}-{}", range.protocol.0, range.ports.start(), range.ports.end())
            };
            ranges.iter().map(range).collect::<Vec<_>>().join(" ")
        });
        let [peers, ports] = [peers, ports].map(|text| text.unwrap_or_else(|| "any".to_owned()));
        format!("{:?} {} | {peers} | {ports}", rule.action, rule.name)
    };
    tier.rules.iter().map(rule).collect()
}

/// What a switch has that is told of changes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Mirror {
    pub(crate) identities: BTreeMap<(std::net::IpAddr, u8), IdentityNo>,
    pub(crate) policies: BTreeMap<u32, PolicySpec>,
}

impl Mirror {
    pub(crate) fn follow(&mut self, compiler: &Compiler, changed: &Changed) {
        for entry in &changed.put_identities {
            self.identities.insert((entry.addresses.address, entry.addresses.len), entry.identity);
        }
        for gone in &changed.delete_identities {
            assert!(self.identities.remove(&(gone.address, gone.len)).is_some(), "{gone:?} was not there");
        }
        for number in &changed.put_policies {
            self.policies.insert(number.0, compiler.policy(*number).unwrap());
        }
        for number in &changed.delete_policies {
            assert!(self.policies.remove(&number.0).is_some(), "{number:?} was not there");
        }
    }

    pub(crate) fn of(compiler: &Compiler) -> Self {
        let entry = |it: IdentitySpec| ((it.addresses.address, it.addresses.len), it.identity);
        Self {
            identities: compiler.identities().into_iter().map(entry).collect(),
            policies: compiler.policies().into_iter().map(|(number, policy)| (number.0, policy)).collect(),
        }
    }
}

#[test]
fn without_policies_nothing_is_told() {
    let mut compiler = bed();
    assert_eq!((compiler.identities(), compiler.policies().len()), (vec![], 0));
    let changed = compiler.apply([pod("namespace: y, name: d, addresses: [10.0.0.4]")]);
    assert!(changed.is_empty(), "{changed:?}");
}

#[test]
fn a_rule_is_about_the_pods_that_its_peers_choose() {
    let mut compiler = bed();
    compiler.apply([policy(
        "namespace: x, name: web, podSelector: {matchLabels: {app: db}}, \
         ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}, \
                   {from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]",
    )]);
    let policy = of(&compiler, "x", "b").unwrap();
    assert_eq!(policy.name, "NetworkPolicy x/web");
    assert_eq!(policy.egress, []);
    assert_eq!(
        words(&compiler, &policy.ingress[0]),
        [
            "Allow NetworkPolicy x/web ingress rule 1 | 10.0.0.1/32 | 6:80-80",
            "Allow NetworkPolicy x/web ingress rule 2 | 10.0.0.3/32 fd00::3/128 | any",
        ]
    );
    assert_eq!(policy.ingress[0].isolated_by.as_deref(), Some("NetworkPolicy x/web"));
    assert_eq!((of(&compiler, "x", "a"), of(&compiler, "y", "c")), (None, None));
    assert_eq!(compiler.identity_count(), 2, "as many as the rules tell apart");
}

#[test]
fn a_named_port_is_the_destinations() {
    let mut compiler = bed();
    compiler.apply([
        policy("namespace: x, name: in, podSelector: {}, ingress: [{ports: [{port: http}]}]"),
        policy(
            "namespace: y, name: out, podSelector: {}, policyTypes: [Egress], \
                egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}, {port: 53, protocol: UDP}]}]",
        ),
    ]);
    let [a, b] = ["a", "b"].map(|name| words(&compiler, &of(&compiler, "x", name).unwrap().ingress[0]));
    assert_eq!(a, ["Allow NetworkPolicy x/in ingress rule 1 | any | 6:80-80"]);
    assert_eq!(b, ["Allow NetworkPolicy x/in ingress rule 1 | any | 6:8080-8080"]);
    let out = of(&compiler, "y", "c").unwrap();
    assert_eq!(
        words(&compiler, &out.egress[0]),
        [
            "Allow NetworkPolicy y/out egress rule 1 | 10.0.0.1/32 | 6:80-80",
            "Allow NetworkPolicy y/out egress rule 1 | 10.0.0.2/32 | 6:8080-8080",
            "Allow NetworkPolicy y/out egress rule 1 | 10.0.0.1/32 10.0.0.2/32 10.0.0.3/32 fd00::3/128 | 17:53-53",
        ]
    );
}

#[test]
fn a_node_compiles_what_its_own_pods_are_held_to() {
    let mut compiler = Compiler::new(Scope::Router(RouterNo(1)), Span::Node("n1".into()));
    let web = |namespace: &str| {
        policy(&format!(
            "namespace: {namespace}, name: web, podSelector: {{}}, ingress: [{{from: [{{podSelector: {{}}}}]}}]"
        ))
    };
    compiler.apply([
        web("x"),
        web("y"),
        pod("namespace: x, name: a, addresses: [10.0.0.1], nodeName: n1"),
        pod("namespace: x, name: b, addresses: [10.0.0.2], nodeName: n2"),
        pod("namespace: y, name: c, addresses: [10.0.0.3], nodeName: n2"),
    ]);
    assert_eq!(compiler.policies().len(), 1);
    assert_eq!(compiler.identities().len(), 2, "of x alone: no rule is about y");
    assert_eq!(compiler.policy_of(&PodName::new("x", "b")), None);
    compiler.apply([Change::DeletePod(PodName::new("x", "a"))]);
    assert_eq!((compiler.policies().len(), compiler.identities().len()), (0, 0));
}

#[test]
fn policies_of_a_namespace_count_from_its_first_pod_on_the_node_to_its_last() {
    let mut compiler = Compiler::new(Scope::Router(RouterNo(1)), Span::Node("n1".into()));
    let mut mirror = Mirror::default();
    let here = |name: &str, last: u8| {
        pod(&format!("namespace: x, name: {name}, addresses: [10.0.0.{last}], nodeName: n1"))
    };
    let gone = |name: &str| Change::DeletePod(PodName::new("x", name));
    let deny = |name: &str| policy(&format!("namespace: x, name: {name}, podSelector: {{}}, ingress: []"));
    for (change, titles) in [
        (deny("one"), ""),
        (pod("namespace: x, name: far, addresses: [10.0.0.9], nodeName: n2"), ""),
        (here("a", 1), "NetworkPolicy x/one"),
        (deny("two"), "NetworkPolicy x/one, NetworkPolicy x/two"),
        (here("a", 3), "NetworkPolicy x/one, NetworkPolicy x/two"),
        (here("b", 2), "NetworkPolicy x/one, NetworkPolicy x/two"),
        (gone("a"), "NetworkPolicy x/one, NetworkPolicy x/two"),
        (Change::DeletePolicy { namespace: "x".into(), name: "one".into() }, "NetworkPolicy x/two"),
        (gone("b"), ""),
        (deny("one"), ""),
        (here("b", 2), "NetworkPolicy x/one, NetworkPolicy x/two"),
    ] {
        let changed = compiler.apply([change]);
        mirror.follow(&compiler, &changed);
        assert_eq!(mirror, Mirror::of(&compiler));
        let names: Vec<_> = compiler.policies().into_values().map(|it| it.name).collect();
        assert_eq!(names.concat(), titles);
    }
}

#[test]
fn a_pod_of_the_nodes_network_is_nobodys_subject_and_nobodys_peer() {
    let mut compiler = bed();
    compiler.apply([
        policy("namespace: x, name: own, podSelector: {}, ingress: [{from: [{podSelector: {}}]}]"),
        pod("namespace: x, name: b, labels: {app: db}, addresses: [10.0.0.2], hostNetwork: true"),
    ]);
    assert_eq!(of(&compiler, "x", "b"), None);
    let rules = of(&compiler, "x", "a").unwrap();
    assert_eq!(
        words(&compiler, &rules.ingress[0]),
        ["Allow NetworkPolicy x/own ingress rule 1 | 10.0.0.1/32 | any"]
    );
}
