//! What does a NetworkPolicy say (`networking.k8s.io/v1`)? Who may talk with the pods that it selects, and nobody else.

use ipnet::IpNet;

use crate::object::{Checked, InvalidField, ObjectError, check_label, check_subdomain, each, start};
use crate::rule::{Action, Block, NamespaceChoice, Peer, PodChoice, PortMatch, Ports, Rule};
use crate::{LabelSelector, LabelSelectorSpec, Protocol};

/// A NetworkPolicy as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// Its namespace, of which it selects pods.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Those pods; empty: all of the namespace.
    #[serde(default)]
    pub pod_selector: LabelSelectorSpec,
    /// The directions that it is about; none: ingress, and egress if it has rules about that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
    /// From whom; no rule: from nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRuleSpec>,
    /// To whom; no rule: to nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRuleSpec>,
}

/// A direction, seen from the pods that are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PolicyType {
    /// To them.
    Ingress,
    /// From them.
    Egress,
}

/// Who may begin what.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IngressRuleSpec {
    /// To which ports; none: to all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPortSpec>,
    /// Who; none: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<PeerSpec>,
}

/// What may be begun with whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EgressRuleSpec {
    /// To which of their ports; none: to all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPortSpec>,
    /// With whom; none: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<PeerSpec>,
}

/// Destination ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyPortSpec {
    /// Their protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// By number or name; none: all of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NumberOrName>,
    /// The last, where `port` is the first of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u32>,
}

/// A port as the API writes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum NumberOrName {
    /// Its number.
    Number(u32),
    /// The name that the destination pod gives it.
    Name(String),
}

/// Pods, or addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PeerSpec {
    /// Pods of the policy's own namespace, or of those that `namespace_selector` chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelectorSpec>,
    /// All pods of these namespaces, or those of them that `pod_selector` chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelectorSpec>,
    /// Addresses; then no selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlockSpec>,
}

/// Addresses, but for some of them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IpBlockSpec {
    /// The addresses; bits behind the prefix count for nothing.
    pub cidr: IpNet,
    /// Those of them that are not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<IpNet>,
}

/// A checked NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    namespace: Box<str>,
    name: Box<str>,
    pods: LabelSelector,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

impl NetworkPolicy {
    /// Checks a spec.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn new(spec: &NetworkPolicySpec) -> Result<Self, ObjectError> {
        let (namespace, name) = (start(&spec.namespace), start(&spec.name));
        Self::check(spec).map_err(|wrong| wrong.of_object(format_args!("NetworkPolicy {namespace}/{name}")))
    }

    fn check(spec: &NetworkPolicySpec) -> Checked<Self> {
        check_label("namespace", &spec.namespace)?;
        check_subdomain("name", &spec.name)?;
        let pods = LabelSelector::new(&spec.pod_selector).map_err(|wrong| wrong.within("podSelector"))?;
        let own = spec.namespace.as_str();
        let ingress =
            each("ingress", &spec.ingress, |rule| check_rule(own, ("from", &rule.from), &rule.ports))?;
        let egress = each("egress", &spec.egress, |rule| check_rule(own, ("to", &rule.to), &rule.ports))?;
        // The API's defaults.
        let types = &spec.policy_types;
        let is_about_ingress = types.is_empty() || types.contains(&PolicyType::Ingress);
        let is_about_egress =
            if types.is_empty() { !egress.is_empty() } else { types.contains(&PolicyType::Egress) };
        Ok(Self {
            namespace: own.into(),
            name: spec.name.as_str().into(),
            pods,
            ingress: is_about_ingress.then_some(ingress),
            egress: is_about_egress.then_some(egress),
        })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pods that it selects.
    pub fn subject(&self) -> PodChoice {
        PodChoice { namespaces: NamespaceChoice::Named(self.namespace.clone()), pods: self.pods.clone() }
    }

    /// What may be begun with those pods, and nothing else; none: it is not about that.
    pub fn ingress(&self) -> Option<&[Rule]> {
        self.ingress.as_deref()
    }

    /// What those pods may begin, and nothing else; none: it is not about that.
    pub fn egress(&self) -> Option<&[Rule]> {
        self.egress.as_deref()
    }
}

fn check_rule(own: &str, (field, peers): (&str, &[PeerSpec]), ports: &[PolicyPortSpec]) -> Checked<Rule> {
    let peers = each(field, peers, |peer| check_peer(own, peer))?;
    let ports = each("ports", ports, check_ports)?;
    Ok(Rule {
        name: None,
        action: Action::Accept,
        peers: (!peers.is_empty()).then_some(peers),
        ports: (!ports.is_empty()).then_some(ports),
    })
}

fn check_peer(own: &str, spec: &PeerSpec) -> Checked<Peer> {
    let selector = |field: &'static str, spec: &Option<LabelSelectorSpec>| {
        let checked = spec.as_ref().map(LabelSelector::new).transpose();
        checked.map_err(|wrong| wrong.within(field))
    };
    let pods = selector("podSelector", &spec.pod_selector)?;
    let namespaces = selector("namespaceSelector", &spec.namespace_selector)?;
    match (&spec.ip_block, namespaces, pods) {
        (Some(block), None, None) => {
            let block = Block::new(block.cidr, &block.except);
            block.map(Peer::Block).map_err(|wrong| wrong.within("ipBlock"))
        }
        (Some(_), _, _) => Err(InvalidField::BlockAndSelector.of("ipBlock")),
        (None, None, None) => {
            let fields = "podSelector, namespaceSelector and ipBlock";
            Err(InvalidField::NotOne { given: 0, fields }.of("peer"))
        }
        (None, namespaces, pods) => {
            let namespaces =
                namespaces.map_or_else(|| NamespaceChoice::Named(own.into()), NamespaceChoice::Matching);
            Ok(Peer::Pods(PodChoice { namespaces, pods: pods.unwrap_or_default() }))
        }
    }
}

fn check_ports(spec: &PolicyPortSpec) -> Checked<PortMatch> {
    let protocol = spec.protocol;
    let ports = match (&spec.port, spec.end_port) {
        (Some(NumberOrName::Number(first)), end) => {
            Ports::new(["port", "endPort"], *first, end.unwrap_or(*first))?
        }
        (_, Some(_)) => return Err(InvalidField::EndWithoutPort.of("endPort")),
        (Some(NumberOrName::Name(name)), None) => return PortMatch::named("port", Some(protocol), name),
        (None, None) => Ports::ALL,
    };
    Ok(PortMatch::Range { protocol, ports })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(yaml: &str) -> Result<NetworkPolicy, String> {
        let spec: NetworkPolicySpec = serde_yaml_ng::from_str(yaml).map_err(|error| error.to_string())?;
        NetworkPolicy::new(&spec).map_err(|error| error.to_string())
    }

    fn with(rest: &str) -> Result<NetworkPolicy, String> {
        policy(&format!("{{namespace: shop, name: web, {rest}}}"))
    }

    #[test]
    fn policy_types_when_missing_are_those_of_the_api() {
        let directions = |rest: &str| {
            let policy = with(rest).unwrap();
            (policy.ingress().map(<[Rule]>::len), policy.egress().map(<[Rule]>::len))
        };
        assert_eq!(directions("podSelector: {}"), (Some(0), None));
        assert_eq!(directions("ingress: []"), (Some(0), None));
        assert_eq!(directions("egress: []"), (Some(0), None));
        assert_eq!(directions("egress: [{}]"), (Some(0), Some(1)));
        assert_eq!(directions("policyTypes: [Egress]"), (None, Some(0)));
        assert_eq!(directions("policyTypes: [Egress], ingress: [{}]"), (None, Some(0)));
        assert_eq!(directions("policyTypes: [Ingress, Egress]"), (Some(0), Some(0)));
    }

    #[test]
    fn rules_when_they_leave_something_out_mean_all_of_it() {
        let policy =
            with("ingress: [{}, {from: [], ports: []}, {from: [{podSelector: {}}], ports: [{}]}]").unwrap();
        let rules = policy.ingress().unwrap();
        assert_eq!((&rules[0].peers, &rules[0].ports), (&None, &None));
        assert_eq!(rules[0], rules[1]);
        let own =
            PodChoice { namespaces: NamespaceChoice::Named("shop".into()), pods: LabelSelector::default() };
        assert_eq!(rules[2].peers, Some(vec![Peer::Pods(own)]));
        assert_eq!(
            rules[2].ports,
            Some(vec![PortMatch::Range { protocol: Protocol::Tcp, ports: Ports::ALL }])
        );
    }

    #[test]
    fn policies_when_wrong_are_refused_with_object_field_and_remedy() {
        let error =
            with("ingress: [{}, {from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/8]}}]}]");
        assert_eq!(
            error.unwrap_err(),
            "NetworkPolicy shop/web: ingress[1].from[0].ipBlock.except: \
             11.0.0.0/8 is not a part of 10.0.0.0/8: remove it, or correct one of them"
        );
        for rest in [
            "ingress: [{from: [{}]}]",
            "ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]",
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]",
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]",
            "ingress: [{to: []}]",
            "ingress: [{ports: [{port: 0}]}]",
            "ingress: [{ports: [{port: 65536}]}]",
            "ingress: [{ports: [{port: 81, endPort: 80}]}]",
            "ingress: [{ports: [{port: http, endPort: 80}]}]",
            "ingress: [{ports: [{endPort: 80}]}]",
            "ingress: [{ports: [{port: Http}]}]",
            "ingress: [{ports: [{protocol: ICMP}]}]",
            "policyTypes: [Both]",
        ] {
            assert!(with(rest).is_err(), "{rest}");
        }
    }
}
