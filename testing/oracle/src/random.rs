//! What could anybody write? Worlds and steps over few names, so that they meet.

use std::collections::BTreeMap;

use model::{
    Action, ClusterEgressRuleSpec, ClusterIngressRuleSpec, ClusterNetworkPolicySpec, ClusterPeerSpec,
    ClusterProtocolSpec, ContainerPortSpec, EgressRuleSpec, IngressRuleSpec, IpBlockSpec, LabelSelectorSpec,
    NamespaceSpec, NamespacedPodsSpec, NetworkPolicySpec, NumberOrName, Operator, PeerSpec, PodSpec,
    PolicyPortSpec, PolicyType, PortRangeSpec, PortSpec, Protocol, RequirementSpec, SubjectSpec, Tier,
    TransportSpec,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::world::Step;

/// Anything that may happen.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => namespace().prop_map(Step::Namespace),
        1 => name("xyz").prop_map(Step::DeleteNamespace),
        6 => pod().prop_map(Step::Pod),
        2 => (name("xyz"), name("abcd")).prop_map(|(namespace, name)| Step::DeletePod(namespace, name)),
        6 => policy().prop_map(Step::Policy),
        2 => (name("xyz"), name("pqr")).prop_map(|(namespace, name)| Step::DeletePolicy(namespace, name)),
        4 => cluster_policy().prop_map(Step::ClusterPolicy),
        1 => name("klmn").prop_map(Step::DeleteClusterPolicy),
    ]
}

fn name(letters: &'static str) -> impl Strategy<Value = String> {
    select(letters.chars().collect::<Vec<_>>()).prop_map(String::from)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(name("ef"), name("12"), 0..3)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(Protocol::ALL.to_vec())
}

fn namespace() -> impl Strategy<Value = NamespaceSpec> {
    (name("xyz"), labels()).prop_map(|(name, labels)| NamespaceSpec { name, labels })
}

fn pod() -> impl Strategy<Value = PodSpec> {
    let port = (option::of(select(vec!["http", "dns"])), select(vec![80, 81]), protocol()).prop_map(
        |(name, container_port, protocol)| ContainerPortSpec {
            name: name.map(Into::into),
            container_port,
            protocol,
        },
    );
    // Addresses meet now and then: two pods have one.
    let v4 = (1..4u8, 0..12u8).prop_map(|(net, host)| [10, net, 0, host].into());
    let v6 = (0..8u16).prop_map(|host| [0xfd00, 0, 0, 0, 0, 0, 0, host + 1].into());
    let addresses = (v4, option::of(v6)).prop_map(|(v4, v6)| std::iter::once(v4).chain(v6).collect());
    let node = option::of(name("nm"));
    (name("xyz"), name("abcd"), labels(), addresses, vec(port, 0..3), node, prop::bool::weighted(0.05))
        .prop_map(|(namespace, name, labels, addresses, container_ports, node_name, host_network)| PodSpec {
            namespace,
            name,
            labels,
            addresses,
            container_ports,
            node_name,
            host_network,
        })
}

fn selector() -> impl Strategy<Value = LabelSelectorSpec> {
    let operators = vec![Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist];
    let requirement =
        (name("ef"), select(operators), vec(name("12"), 1..3)).prop_map(|(key, operator, values)| {
            let needs_values = matches!(operator, Operator::In | Operator::NotIn);
            RequirementSpec { key, operator, values: if needs_values { values } else { Vec::new() } }
        });
    let by_name = name("xyz").prop_map(|it| [(model::NAMESPACE_NAME_LABEL.to_owned(), it)].into());
    let labels = prop_oneof![3 => btree_map(name("ef"), name("12"), 0..2), 1 => by_name];
    (labels, vec(requirement, 0..2))
        .prop_map(|(match_labels, match_expressions)| LabelSelectorSpec { match_labels, match_expressions })
}

fn block() -> impl Strategy<Value = IpBlockSpec> {
    let parse = |text: &str| text.parse().expect("a prefix");
    let blocks: Vec<(&str, &[&str])> = vec![
        ("0.0.0.0/0", &["10.0.0.0/8", "10.1.0.0/30", "192.0.2.0/24"]),
        ("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.4/30", "10.2.0.5/32"]),
        ("10.1.0.0/24", &["10.1.0.0/29", "10.1.0.2/31"]),
        ("10.2.0.5/32", &[]),
        ("10.2.0.0/29", &["10.2.0.4/30"]),
        ("192.0.2.0/25", &["192.0.2.4/30"]),
        ("::/0", &["fd00::/126"]),
        ("fd00::/125", &["fd00::2/127", "fd00::4/128"]),
    ];
    select(blocks).prop_flat_map(move |(cidr, except)| {
        let except = proptest::sample::subsequence(except.to_vec(), 0..=except.len());
        except.prop_map(move |except| IpBlockSpec {
            cidr: parse(cidr),
            except: except.into_iter().map(parse).collect(),
        })
    })
}

fn peer() -> impl Strategy<Value = PeerSpec> {
    let selectors =
        (option::of(selector()), option::of(selector())).prop_map(|(pods, namespaces)| PeerSpec {
            // One of them at least.
            pod_selector: if namespaces.is_none() { Some(pods.unwrap_or_default()) } else { pods },
            namespace_selector: namespaces,
            ip_block: None,
        });
    let block = block().prop_map(|block| PeerSpec { ip_block: Some(block), ..PeerSpec::default() });
    prop_oneof![2 => selectors, 1 => block]
}

fn ports() -> impl Strategy<Value = PolicyPortSpec> {
    let number = || select(vec![79, 80, 81]).prop_map(NumberOrName::Number);
    let named = select(vec!["http", "dns"]).prop_map(|name| NumberOrName::Name(name.into()));
    let port = prop_oneof![2 => option::of(number()), 1 => named.prop_map(Some)];
    let one =
        (protocol(), port).prop_map(|(protocol, port)| PolicyPortSpec { protocol, port, end_port: None });
    let several = protocol().prop_map(|protocol| PolicyPortSpec {
        protocol,
        port: Some(NumberOrName::Number(70)),
        end_port: Some(80),
    });
    prop_oneof![4 => one, 1 => several]
}

fn policy() -> impl Strategy<Value = NetworkPolicySpec> {
    let types = select(vec![
        vec![],
        vec![PolicyType::Ingress],
        vec![PolicyType::Egress],
        vec![PolicyType::Ingress, PolicyType::Egress],
    ]);
    let ingress =
        (vec(ports(), 0..3), vec(peer(), 0..3)).prop_map(|(ports, from)| IngressRuleSpec { ports, from });
    let egress = (vec(ports(), 0..3), vec(peer(), 0..3)).prop_map(|(ports, to)| EgressRuleSpec { ports, to });
    (name("xyz"), name("pqr"), selector(), types, vec(ingress, 0..3), vec(egress, 0..3)).prop_map(
        |(namespace, name, pod_selector, policy_types, ingress, egress)| NetworkPolicySpec {
            namespace,
            name,
            pod_selector,
            policy_types,
            ingress,
            egress,
        },
    )
}

fn pods() -> impl Strategy<Value = NamespacedPodsSpec> {
    (selector(), selector()).prop_map(|(namespace_selector, pod_selector)| NamespacedPodsSpec {
        namespace_selector,
        pod_selector,
    })
}

fn source() -> impl Strategy<Value = ClusterPeerSpec> {
    let namespaces = selector().prop_map(|it| ClusterPeerSpec { namespaces: Some(it), ..Default::default() });
    let pods = pods().prop_map(|it| ClusterPeerSpec { pods: Some(it), ..Default::default() });
    prop_oneof![namespaces, pods]
}

fn destination() -> impl Strategy<Value = ClusterPeerSpec> {
    let networks = vec(block().prop_map(|block| block.cidr), 1..3)
        .prop_map(|networks| ClusterPeerSpec { networks, ..Default::default() });
    prop_oneof![3 => source(), 1 => networks]
}

fn cluster_ports() -> impl Strategy<Value = ClusterProtocolSpec> {
    let number = select(vec![80, 81]).prop_map(|it| PortSpec { number: Some(it), range: None });
    let range = Just(PortSpec { number: None, range: Some(PortRangeSpec { start: 79, end: 80 }) });
    let of = (protocol(), prop_oneof![3 => number, 1 => range]).prop_map(|(protocol, port)| {
        let transport = Some(TransportSpec { destination_port: Some(port) });
        match protocol {
            Protocol::Tcp => ClusterProtocolSpec { tcp: transport, ..Default::default() },
            Protocol::Udp => ClusterProtocolSpec { udp: transport, ..Default::default() },
            Protocol::Sctp => ClusterProtocolSpec { sctp: transport, ..Default::default() },
        }
    });
    let named = select(vec!["http", "dns"]).prop_map(|name| ClusterProtocolSpec {
        destination_named_port: Some(name.into()),
        ..Default::default()
    });
    prop_oneof![3 => of, 1 => named]
}

fn cluster_policy() -> impl Strategy<Value = ClusterNetworkPolicySpec> {
    let action = || select(vec![Action::Accept, Action::Deny, Action::Pass]);
    let rule_name = || select(vec!["", "named"]).prop_map(String::from);
    let subject = prop_oneof![
        selector().prop_map(|it| SubjectSpec { namespaces: Some(it), pods: None }),
        pods().prop_map(|it| SubjectSpec { namespaces: None, pods: Some(it) }),
    ];
    let ingress = (rule_name(), action(), vec(source(), 1..3), vec(cluster_ports(), 0..3))
        .prop_map(|(name, action, from, protocols)| ClusterIngressRuleSpec { name, action, from, protocols });
    let egress = (rule_name(), action(), vec(destination(), 1..3), vec(cluster_ports(), 0..3)).prop_map(
        |(name, action, to, protocols)| {
            // Networks have no named ports.
            let has_network = to.iter().any(|peer| !peer.networks.is_empty());
            let is_legal = |it: &ClusterProtocolSpec| !has_network || it.destination_named_port.is_none();
            let protocols = protocols.into_iter().filter(is_legal).collect();
            ClusterEgressRuleSpec { name, action, to, protocols }
        },
    );
    let head = (name("klmn"), select(vec![Tier::Admin, Tier::Baseline]), 0..3u32, subject);
    (head, vec(ingress, 0..4), vec(egress, 0..4)).prop_map(
        |((name, tier, priority, subject), ingress, egress)| ClusterNetworkPolicySpec {
            name,
            tier,
            priority,
            subject,
            ingress,
            egress,
        },
    )
}
