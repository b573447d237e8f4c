//! What does a ClusterNetworkPolicy say (`policy.networking.k8s.io/v1alpha2`)? What an administrator lets pods do before, or
//! behind, what their namespaces' policies say.
//!
//! Left out: the API's experimental peers `nodes` and `domainNames`. An object that names them is refused as a whole,
//! with a reason; the API asks for no less ("fail closed").

use ipnet::IpNet;

use crate::object::{Checked, InvalidField, ObjectError, at_most, check_subdomain, each, start};
use crate::pod::check_port;
use crate::rule::{Action, Block, NamespaceChoice, Peer, PodChoice, PortMatch, Ports, Rule};
use crate::{LabelSelector, LabelSelectorSpec, Protocol};

/// The most entries of each of the API's lists.
const MAX_ITEMS: usize = 25;
/// The most characters of a rule's name.
const MAX_NAME: usize = 100;
/// What is asked last.
const MAX_PRIORITY: u32 = 1000;

/// A ClusterNetworkPolicy as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// Its name.
    pub name: String,
    /// Before or behind NetworkPolicies.
    pub tier: Tier,
    /// Its place in the tier: 0 to 1000, the least first. Of two with one priority, that of the lesser name.
    pub priority: u32,
    /// The pods that it is about.
    pub subject: SubjectSpec,
    /// What may be begun with them, the first rule that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ClusterIngressRuleSpec>,
    /// What they may begin, the first rule that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ClusterEgressRuleSpec>,
}

/// When a policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// Where no NetworkPolicy selects the pod.
    Baseline,
}

/// Pods: one of the two fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SubjectSpec {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelectorSpec>,
    /// Some pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPodsSpec>,
}

/// Some pods of some namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NamespacedPodsSpec {
    /// The namespaces; empty: all.
    #[serde(default)]
    pub namespace_selector: LabelSelectorSpec,
    /// The pods; empty: all.
    #[serde(default)]
    pub pod_selector: LabelSelectorSpec,
}

/// A rule about what is begun with the pods.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterIngressRuleSpec {
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it says.
    pub action: Action,
    /// Of whom; not empty.
    pub from: Vec<ClusterPeerSpec>,
    /// Of which ports; none: of all, and of protocols without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocolSpec>,
}

/// A rule about what the pods begin.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterEgressRuleSpec {
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it says.
    pub action: Action,
    /// Of whom; not empty.
    pub to: Vec<ClusterPeerSpec>,
    /// Of which of their ports; none: of all, and of protocols without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocolSpec>,
}

/// Pods or networks: one of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterPeerSpec {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelectorSpec>,
    /// Some pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPodsSpec>,
    /// Whoever has these addresses, pods too; in egress rules only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// Not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelectorSpec>,
    /// Not supported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domain_names: Vec<String>,
}

/// Destination ports: one of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterProtocolSpec {
    /// Of TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TransportSpec>,
    /// Of UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<TransportSpec>,
    /// Of SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<TransportSpec>,
    /// By the name that the destination pod gives it, of any protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TransportSpec {
    /// The destination's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<PortSpec>,
}

/// One port, or several: one of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PortSpec {
    /// One.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRangeSpec>,
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PortRangeSpec {
    /// The first.
    pub start: u32,
    /// The last.
    pub end: u32,
}

/// A checked ClusterNetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNetworkPolicy {
    name: Box<str>,
    tier: Tier,
    priority: u16,
    subject: PodChoice,
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
}

impl ClusterNetworkPolicy {
    /// Checks a spec.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn new(spec: &ClusterNetworkPolicySpec) -> Result<Self, ObjectError> {
        let name = start(&spec.name);
        Self::check(spec).map_err(|wrong| wrong.of_object(format_args!("ClusterNetworkPolicy {name}")))
    }

    fn check(spec: &ClusterNetworkPolicySpec) -> Checked<Self> {
        check_subdomain("name", &spec.name)?;
        let priority = u16::try_from(spec.priority).ok().filter(|_| spec.priority <= MAX_PRIORITY);
        let priority = priority.ok_or_else(|| InvalidField::Priority(spec.priority).of("priority"))?;
        let SubjectSpec { namespaces, pods } = &spec.subject;
        let subject = choice(namespaces.as_ref(), pods.as_ref()).map_err(|wrong| wrong.within("subject"))?;
        let subject = subject.ok_or_else(|| {
            let given = usize::from(namespaces.is_some()) + usize::from(pods.is_some());
            InvalidField::NotOne { given, fields: "namespaces and pods" }.of("subject")
        })?;
        at_most("ingress", &spec.ingress, MAX_ITEMS)?;
        at_most("egress", &spec.egress, MAX_ITEMS)?;
        let ingress = each("ingress", &spec.ingress, |rule| {
            at_most("from", &rule.from, MAX_ITEMS)?;
            let peers = each("from", &rule.from, source)?;
            check_rule((&rule.name, rule.action), ("from", peers), &rule.protocols)
        })?;
        let egress = each("egress", &spec.egress, |rule| {
            at_most("to", &rule.to, MAX_ITEMS)?;
            let peers = each("to", &rule.to, peer)?;
            check_rule((&rule.name, rule.action), ("to", peers), &rule.protocols)
        })?;
        Ok(Self { name: spec.name.as_str().into(), tier: spec.tier, priority, subject, ingress, egress })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Before or behind NetworkPolicies.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Its place in the tier, the least first.
    pub fn priority(&self) -> u16 {
        self.priority
    }

    /// The pods that it is about.
    pub fn subject(&self) -> &PodChoice {
        &self.subject
    }

    /// What may be begun with those pods.
    pub fn ingress(&self) -> &[Rule] {
        &self.ingress
    }

    /// What those pods may begin.
    pub fn egress(&self) -> &[Rule] {
        &self.egress
    }
}

/// The pods of one of two fields; `None` if it is not one.
fn choice(
    namespaces: Option<&LabelSelectorSpec>,
    pods: Option<&NamespacedPodsSpec>,
) -> Checked<Option<PodChoice>> {
    let selector =
        |spec: &LabelSelectorSpec, field: &str| LabelSelector::new(spec).map_err(|wrong| wrong.within(field));
    let (namespaces, pods) = match (namespaces, pods) {
        (Some(namespaces), None) => (selector(namespaces, "namespaces")?, LabelSelector::default()),
        (None, Some(both)) => (
            selector(&both.namespace_selector, "pods.namespaceSelector")?,
            selector(&both.pod_selector, "pods.podSelector")?,
        ),
        _ => return Ok(None),
    };
    Ok(Some(PodChoice { namespaces: NamespaceChoice::Matching(namespaces), pods }))
}

fn source(spec: &ClusterPeerSpec) -> Checked<Vec<Peer>> {
    if !spec.networks.is_empty() {
        return Err(InvalidField::EgressOnly.of("networks"));
    }
    peer(spec)
}

fn peer(spec: &ClusterPeerSpec) -> Checked<Vec<Peer>> {
    if spec.nodes.is_some() {
        return Err(InvalidField::Unsupported("write the nodes' addresses as networks").of("nodes"));
    }
    if !spec.domain_names.is_empty() {
        let instead = "write the domains' addresses as networks";
        return Err(InvalidField::Unsupported(instead).of("domainNames"));
    }
    at_most("networks", &spec.networks, MAX_ITEMS)?;
    let pods = choice(spec.namespaces.as_ref(), spec.pods.as_ref())?;
    let given = [spec.namespaces.is_some(), spec.pods.is_some(), !spec.networks.is_empty()];
    match (given.into_iter().filter(|given| *given).count(), pods) {
        (1, Some(pods)) => Ok(vec![Peer::Pods(pods)]),
        (1, None) => spec.networks.iter().map(|net| Block::new(*net, &[]).map(Peer::Block)).collect(),
        (given, _) => Err(InvalidField::NotOne { given, fields: "namespaces, pods and networks" }.of("peer")),
    }
}

fn check_rule(
    (name, action): (&str, Action),
    (field, peers): (&'static str, Vec<Vec<Peer>>),
    protocols: &[ClusterProtocolSpec],
) -> Checked<Rule> {
    let count = name.chars().count();
    if count > MAX_NAME {
        return Err(InvalidField::TooLong { count, max: MAX_NAME }.of("name"));
    }
    at_most("protocols", protocols, MAX_ITEMS)?;
    let peers = peers.concat();
    if peers.is_empty() {
        return Err(InvalidField::Empty("at least one peer; namespaces: {} is everybody").of(field));
    }
    let ports = each("protocols", protocols, check_protocol)?;
    let has_network = peers.iter().any(|peer| matches!(peer, Peer::Block(_)));
    if has_network && ports.iter().any(|ports| matches!(ports, PortMatch::Named { .. })) {
        return Err(InvalidField::NamedPortOfNetwork.of("protocols"));
    }
    let name = (!name.is_empty()).then(|| name.into());
    Ok(Rule { name, action, peers: Some(peers), ports: (!ports.is_empty()).then_some(ports) })
}

fn check_protocol(spec: &ClusterProtocolSpec) -> Checked<PortMatch> {
    let transports = [&spec.tcp, &spec.udp, &spec.sctp].into_iter().zip(Protocol::ALL);
    let mut given: Vec<_> =
        transports.filter_map(|(spec, protocol)| spec.as_ref().map(|spec| (protocol, spec))).collect();
    match (given.pop(), given.len(), &spec.destination_named_port) {
        (None, _, Some(name)) => PortMatch::named("destinationNamedPort", None, name),
        (Some((protocol, transport)), 0, None) => {
            let field = ["tcp", "udp", "sctp"][protocol as usize];
            let ports = check_transport(transport).map_err(|wrong| wrong.within(field))?;
            Ok(PortMatch::Range { protocol, ports })
        }
        (last, others, name) => {
            let given = usize::from(last.is_some()) + others + usize::from(name.is_some());
            let fields = "tcp, udp, sctp and destinationNamedPort";
            Err(InvalidField::NotOne { given, fields }.of("protocol"))
        }
    }
}

fn check_transport(spec: &TransportSpec) -> Checked<Ports> {
    let Some(port) = &spec.destination_port else {
        return Err(InvalidField::Empty("a number or a range").of("destinationPort"));
    };
    let ports = match (port.number, &port.range) {
        (Some(number), None) => check_port("number", number).map(Ports::one),
        (None, Some(range)) => Ports::new(["range.start", "range.end"], range.start, range.end),
        (number, range) => {
            let given = usize::from(number.is_some()) + usize::from(range.is_some());
            Err(InvalidField::NotOne { given, fields: "number and range" }.of("port"))
        }
    };
    ports.map_err(|wrong| wrong.within("destinationPort"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(yaml: &str) -> Result<ClusterNetworkPolicy, String> {
        let spec: ClusterNetworkPolicySpec =
            serde_yaml_ng::from_str(yaml).map_err(|error| error.to_string())?;
        ClusterNetworkPolicy::new(&spec).map_err(|error| error.to_string())
    }

    fn with(rest: &str) -> Result<ClusterNetworkPolicy, String> {
        policy(&format!("{{name: it, tier: Admin, priority: 7, subject: {{namespaces: {{}}}}, {rest}}}"))
    }

    #[test]
    fn a_policy_has_what_was_written() {
        let policy = with(
            "ingress: [{name: web, action: Pass, from: [{namespaces: {}}], protocols: \
             [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 9}}}}, \
             {destinationNamedPort: http}]}], egress: [{action: Deny, to: [{networks: [10.0.0.0/8, 'fd00::/8']}]}]",
        )
        .unwrap();
        assert_eq!((policy.name(), policy.tier(), policy.priority()), ("it", Tier::Admin, 7));
        let rule = &policy.ingress()[0];
        assert_eq!((rule.name.as_deref(), rule.action), (Some("web"), Action::Pass));
        let udp = PortMatch::Range { protocol: Protocol::Udp, ports: Ports { first: 1, last: 9 } };
        assert_eq!(rule.ports.as_ref().unwrap()[1], udp);
        assert_eq!(policy.egress()[0].peers.as_ref().map(Vec::len), Some(2));
        assert_eq!(policy.egress()[0].ports, None);
    }

    #[test]
    fn policies_when_wrong_are_refused_with_object_field_and_remedy() {
        let error = with("ingress: [{action: Deny, from: [{namespaces: {}}, {networks: [10.0.0.0/8]}]}]");
        assert_eq!(
            error.unwrap_err(),
            "ClusterNetworkPolicy it: ingress[0].from[1].networks: \
             can be named by egress rules only: write the sources as namespaces or pods"
        );
        for rest in [
            "ingress: [{action: Deny, from: []}]",
            "ingress: [{action: Deny, from: [{}]}]",
            "ingress: [{action: Allow, from: [{namespaces: {}}]}]",
            "ingress: [{action: Deny, from: [{namespaces: {}, pods: {podSelector: {}}}]}]",
            "egress: [{action: Deny, to: [{nodes: {}}]}]",
            "egress: [{action: Accept, to: [{domainNames: [example.com]}]}]",
            "egress: [{action: Accept, to: [{namespaces: {}, networks: [10.0.0.0/8]}]}]",
            "egress: [{action: Accept, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: http}]}]",
            "egress: [{action: Accept, to: [{namespaces: {}}], protocols: [{}]}]",
            "egress: [{action: Accept, to: [{namespaces: {}}], protocols: [{tcp: {}}]}]",
            "egress: [{action: Accept, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {}}}]}]",
        ] {
            assert!(with(rest).is_err(), "{rest}");
        }
        assert!(policy("{name: it, tier: Admin, priority: 1001, subject: {namespaces: {}}}").is_err());
        assert!(policy("{name: it, tier: Admin, priority: 1, subject: {}}").is_err());
        assert!(policy("{name: it, tier: Middle, priority: 1, subject: {namespaces: {}}}").is_err());
    }
}
