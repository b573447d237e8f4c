//! What do the policies of a world say, read as they are written?
//!
//! Straight from the two APIs' documentation, over their specs. Nothing is prepared: each question reads everything.

use std::net::IpAddr;

use model::{
    Action, ClusterNetworkPolicySpec, ClusterPeerSpec, ClusterProtocolSpec, IpBlockSpec, LabelSelectorSpec,
    NamespacedPodsSpec, NetworkPolicySpec, NumberOrName, Operator, PeerSpec, PodSpec, PolicyPortSpec,
    PolicyType, Protocol, Tier, TransportSpec,
};

use crate::world::{Answer, Question, World};

/// A direction, seen from the pod whose policies are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ingress,
    Egress,
}

/// Whether a connection may be, and who says so: the client's policies, then the server's.
pub fn ask(world: &World, question: &Question) -> Answer {
    let mut answer = Answer { allowed: true, by: None };
    let sides =
        [(question.client, question.server, Side::Egress), (question.server, question.client, Side::Ingress)];
    for (own, peer, side) in sides {
        if let Some(pod) = world.pod_at(own) {
            answer = ask_pod(world, pod, peer, side, question);
        }
        if !answer.allowed {
            return answer;
        }
    }
    answer
}

fn ask_pod(world: &World, pod: &PodSpec, peer: IpAddr, side: Side, question: &Question) -> Answer {
    let asked = Asked { world, peer, side, question };
    if let Some(answer) = asked.cluster(pod, Tier::Admin) {
        return answer;
    }
    if let Some(answer) = asked.network(pod) {
        return answer;
    }
    asked.cluster(pod, Tier::Baseline).unwrap_or(Answer { allowed: true, by: None })
}

struct Asked<'a> {
    world: &'a World,
    peer: IpAddr,
    side: Side,
    question: &'a Question,
}

impl Asked<'_> {
    /// What the first rule of a tier that matches says; `None`: the next tier is asked.
    fn cluster(&self, pod: &PodSpec, tier: Tier) -> Option<Answer> {
        let mut policies: Vec<_> = self.world.cluster_policies.iter().filter(|it| it.tier == tier).collect();
        policies.sort_by_key(|it| (it.priority, &it.name));
        for policy in policies {
            let SubjectOf { namespaces, pods } = SubjectOf::new(policy);
            if !self.is_chosen(pod, namespaces, pods) {
                continue;
            }
            for (index, rule) in cluster_rules(policy, self.side).into_iter().enumerate() {
                if !self.cluster_rule_matches(&rule) {
                    continue;
                }
                let name = if rule.name.is_empty() { String::new() } else { format!(" {:?}", rule.name) };
                let side = self.side_word();
                let by = format!("ClusterNetworkPolicy {} {side} rule {}{name}", policy.name, index + 1);
                return match rule.action {
                    Action::Accept => Some(Answer { allowed: true, by: Some(by) }),
                    Action::Deny => Some(Answer { allowed: false, by: Some(by) }),
                    Action::Pass => None,
                };
            }
        }
        None
    }

    fn cluster_rule_matches(&self, rule: &ClusterRule<'_>) -> bool {
        let ports = rule.protocols;
        rule.peers.iter().any(|peer| self.is_cluster_peer(peer))
            && (ports.is_empty() || ports.iter().any(|it| self.is_cluster_port(it)))
    }

    fn is_cluster_peer(&self, peer: &ClusterPeerSpec) -> bool {
        let is_pod = self.world.pod_at(self.peer).is_some_and(|pod| {
            (peer.namespaces.is_some() || peer.pods.is_some())
                && self.is_chosen(pod, peer.namespaces.as_ref(), peer.pods.as_ref())
        });
        is_pod || peer.networks.iter().any(|net| net.contains(&self.peer))
    }

    fn is_cluster_port(&self, spec: &ClusterProtocolSpec) -> bool {
        let number = |protocol: Protocol, transport: &Option<TransportSpec>| {
            let port = transport.as_ref().and_then(|it| it.destination_port.as_ref());
            self.question.protocol == Some(protocol)
                && port.is_some_and(|port| {
                    let asked = u32::from(self.question.port);
                    port.number == Some(asked)
                        || port.range.as_ref().is_some_and(|it| it.start <= asked && asked <= it.end)
                })
        };
        number(Protocol::Tcp, &spec.tcp)
            || number(Protocol::Udp, &spec.udp)
            || number(Protocol::Sctp, &spec.sctp)
            || spec.destination_named_port.as_ref().is_some_and(|name| self.serves(name, None))
    }

    /// What NetworkPolicies say, if any selects the pod in this direction.
    fn network(&self, pod: &PodSpec) -> Option<Answer> {
        let mut policies: Vec<_> = self.world.policies.iter().filter(|it| self.selects(it, pod)).collect();
        policies.sort_by_key(|it| (&it.namespace, &it.name));
        let title =
            |policy: &NetworkPolicySpec| format!("NetworkPolicy {}/{}", policy.namespace, policy.name);
        for policy in &policies {
            let rules: Vec<(&[PolicyPortSpec], &[PeerSpec])> = match self.side {
                Side::Ingress => policy.ingress.iter().map(|it| (&*it.ports, &*it.from)).collect(),
                Side::Egress => policy.egress.iter().map(|it| (&*it.ports, &*it.to)).collect(),
            };
            for (index, (ports, peers)) in rules.into_iter().enumerate() {
                let of_peer = peers.is_empty() || peers.iter().any(|it| self.is_peer(it, &policy.namespace));
                let of_port = ports.is_empty() || ports.iter().any(|it| self.is_port(it));
                if of_peer && of_port {
                    let by = format!("{} {} rule {}", title(policy), self.side_word(), index + 1);
                    return Some(Answer { allowed: true, by: Some(by) });
                }
            }
        }
        let titles: Vec<_> = policies.into_iter().map(title).collect();
        (!titles.is_empty()).then(|| Answer { allowed: false, by: Some(titles.join(", ")) })
    }

    fn selects(&self, policy: &NetworkPolicySpec, pod: &PodSpec) -> bool {
        let types = &policy.policy_types;
        let is_about = match self.side {
            Side::Ingress => types.is_empty() || types.contains(&PolicyType::Ingress),
            Side::Egress if types.is_empty() => !policy.egress.is_empty(),
            Side::Egress => types.contains(&PolicyType::Egress),
        };
        is_about && policy.namespace == pod.namespace && chooses(&policy.pod_selector, |key| label(pod, key))
    }

    fn is_peer(&self, peer: &PeerSpec, own_namespace: &str) -> bool {
        if let Some(IpBlockSpec { cidr, except }) = &peer.ip_block {
            return cidr.contains(&self.peer) && !except.iter().any(|net| net.contains(&self.peer));
        }
        let Some(pod) = self.world.pod_at(self.peer) else { return false };
        let of_namespace = match &peer.namespace_selector {
            Some(selector) => self.is_of_namespace(pod, selector),
            None => pod.namespace == own_namespace,
        };
        of_namespace && peer.pod_selector.as_ref().is_none_or(|it| chooses(it, |key| label(pod, key)))
    }

    fn is_port(&self, spec: &PolicyPortSpec) -> bool {
        if self.question.protocol != Some(spec.protocol) {
            return false;
        }
        let asked = u32::from(self.question.port);
        match (&spec.port, spec.end_port) {
            (None, _) => true,
            (Some(NumberOrName::Number(first)), Some(last)) => *first <= asked && asked <= last,
            (Some(NumberOrName::Number(port)), None) => *port == asked,
            (Some(NumberOrName::Name(name)), _) => self.serves(name, Some(spec.protocol)),
        }
    }

    /// The server is a pod that gives the port that name.
    fn serves(&self, name: &str, protocol: Option<Protocol>) -> bool {
        let Some(pod) = self.world.pod_at(self.question.server) else { return false };
        pod.container_ports.iter().any(|port| {
            port.name.as_deref() == Some(name)
                && Some(port.protocol) == self.question.protocol
                && protocol.is_none_or(|protocol| protocol == port.protocol)
                && port.container_port == u32::from(self.question.port)
        })
    }

    fn is_chosen(
        &self,
        pod: &PodSpec,
        namespaces: Option<&LabelSelectorSpec>,
        pods: Option<&NamespacedPodsSpec>,
    ) -> bool {
        namespaces.is_none_or(|selector| self.is_of_namespace(pod, selector))
            && pods.is_none_or(|both| {
                self.is_of_namespace(pod, &both.namespace_selector)
                    && chooses(&both.pod_selector, |key| label(pod, key))
            })
    }

    fn is_of_namespace(&self, pod: &PodSpec, selector: &LabelSelectorSpec) -> bool {
        let written = self.world.namespaces.iter().find(|it| it.name == pod.namespace);
        chooses(selector, |key| match key {
            "kubernetes.io/metadata.name" => Some(&pod.namespace),
            _ => written.and_then(|it| it.labels.get(key)),
        })
    }

    fn side_word(&self) -> &'static str {
        match self.side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        }
    }
}

struct SubjectOf<'a> {
    namespaces: Option<&'a LabelSelectorSpec>,
    pods: Option<&'a NamespacedPodsSpec>,
}

impl<'a> SubjectOf<'a> {
    fn new(policy: &'a ClusterNetworkPolicySpec) -> Self {
        Self { namespaces: policy.subject.namespaces.as_ref(), pods: policy.subject.pods.as_ref() }
    }
}

/// A rule of either direction.
struct ClusterRule<'a> {
    name: &'a str,
    action: Action,
    peers: &'a [ClusterPeerSpec],
    protocols: &'a [ClusterProtocolSpec],
}

fn cluster_rules(policy: &ClusterNetworkPolicySpec, side: Side) -> Vec<ClusterRule<'_>> {
    let ingress = policy.ingress.iter().map(|it| ClusterRule {
        name: &it.name,
        action: it.action,
        peers: &it.from,
        protocols: &it.protocols,
    });
    let egress = policy.egress.iter().map(|it| ClusterRule {
        name: &it.name,
        action: it.action,
        peers: &it.to,
        protocols: &it.protocols,
    });
    match side {
        Side::Ingress => ingress.collect(),
        Side::Egress => egress.collect(),
    }
}

fn label<'a>(pod: &'a PodSpec, key: &str) -> Option<&'a String> {
    pod.labels.get(key)
}

fn chooses<'a>(selector: &LabelSelectorSpec, value: impl Fn(&str) -> Option<&'a String>) -> bool {
    let expressions = &selector.match_expressions;
    selector.match_labels.iter().all(|(key, wanted)| value(key) == Some(wanted))
        && expressions.iter().all(|it| match (it.operator, value(&it.key)) {
            (Operator::In, value) => value.is_some_and(|value| it.values.contains(value)),
            (Operator::NotIn, value) => value.is_none_or(|value| !it.values.contains(value)),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
        })
}
