//! What is a service, and who serves it?

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::network_policy::NumberOrName;
use crate::object::{Checked, InvalidField, ObjectError, check_label, each, start};
use crate::pod::{Pod, Protocol, check_port, check_port_name, is_unicast};
use crate::selector::Labels;
use crate::{NetworkName, ObjectName};

/// A service as a person writes it: the API's fields, and the network whose pods it is for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The network whose pods reach it; their gateway takes them there, so the network has a router.
    pub network: String,
    /// Its addresses, in no subnet of a network.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePortSpec>,
    /// The pods of its namespace that serve it: those that have all these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Who serves it where no selector says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<IpAddr>,
    /// Whether all connections of a client go to one endpoint.
    #[serde(default, skip_serializing_if = "SessionAffinity::is_none")]
    pub session_affinity: SessionAffinity,
    /// For how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfigSpec>,
    /// Addresses outside of the cluster that stand for it, too, where packets for them reach a node.
    #[serde(default, rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<IpAddr>,
    /// Those that somebody's load balancer gave it.
    #[serde(default, rename = "loadBalancerIPs", skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who serves those who come from outside, by a node's port or such an address.
    #[serde(default, skip_serializing_if = "TrafficPolicy::is_cluster")]
    pub external_traffic_policy: TrafficPolicy,
    /// Who serves pods and nodes, by the service's own addresses.
    #[serde(default, skip_serializing_if = "TrafficPolicy::is_cluster")]
    pub internal_traffic_policy: TrafficPolicy,
}

/// Which endpoints serve those who come by a node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
pub enum TrafficPolicy {
    /// All.
    #[default]
    Cluster,
    /// Those on the node itself; none: nobody does.
    Local,
}

impl TrafficPolicy {
    fn is_cluster(&self) -> bool {
        *self == Self::Cluster
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServicePortSpec {
    /// Its name; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// What clients connect to.
    pub port: u32,
    /// Where endpoints listen: a number, or the name that each pod gives the port; none: the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<NumberOrName>,
    /// The port that each node has it at, on all its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u32>,
}

/// Whether all connections of a client go to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum SessionAffinity {
    /// Each connection by itself.
    #[default]
    None,
    /// All of a client's address, for a time, while the endpoint stays.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

/// For how long clients are kept at one endpoint, as the API writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionAffinityConfigSpec {
    /// Those that are kept by address.
    #[serde(default, rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIpConfigSpec>,
}

/// For how long clients are kept by address.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClientIpConfigSpec {
    /// Seconds from the client's last connection on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

impl SessionAffinity {
    /// True if connections go by themselves.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// A checked service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    name: ObjectName,
    network: NetworkName,
    addresses: Vec<IpAddr>,
    ports: Vec<ServicePort>,
    selector: Option<Labels>,
    endpoints: Vec<IpAddr>,
    /// Seconds.
    affinity_timeout_s: Option<u32>,
    external: Vec<IpAddr>,
    external_policy: TrafficPolicy,
    internal_policy: TrafficPolicy,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its protocol.
    pub protocol: Protocol,
    /// What clients connect to.
    pub port: u16,
    /// The port that each node has it at.
    pub node_port: Option<u16>,
    target: Target,
}

/// Where endpoints listen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Number(u16),
    Name(Box<str>),
}

impl Service {
    /// Checks a spec.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn new(spec: &ServiceSpec) -> Result<Self, ObjectError> {
        let name = |wrong: crate::object::Wrong| {
            wrong.of_object(format_args!("Service {}/{}", start(&spec.namespace), start(&spec.name)))
        };
        Self::check(spec).map_err(name)
    }

    fn check(spec: &ServiceSpec) -> Checked<Self> {
        check_label("namespace", &spec.namespace)?;
        check_label("name", &spec.name)?;
        let network = spec.network.parse().map_err(|error| InvalidField::Network(error).of("network"))?;
        if spec.cluster_ips.is_empty() {
            return Err(InvalidField::Empty("at least one address").of("clusterIPs"));
        }
        if spec.ports.is_empty() {
            return Err(InvalidField::Empty("at least one port").of("ports"));
        }
        for (field, addresses) in [
            ("clusterIPs", &spec.cluster_ips),
            ("endpoints", &spec.endpoints),
            ("externalIPs", &spec.external_ips),
            ("loadBalancerIPs", &spec.load_balancer_ips),
        ] {
            if let Some(address) = addresses.iter().find(|address| !is_unicast(**address)) {
                return Err(InvalidField::Address(*address).of(field));
            }
        }
        if !spec.selector.is_empty() && !spec.endpoints.is_empty() {
            return Err(InvalidField::NotOne { given: 2, fields: "selector and endpoints" }.of("endpoints"));
        }
        let is_local = spec.external_traffic_policy == TrafficPolicy::Local;
        if is_local && spec.ports.iter().any(|port| port.node_port.is_none()) {
            return Err(InvalidField::LocalWithoutNodePort.of("externalTrafficPolicy"));
        }
        Ok(Self {
            name: ObjectName { namespace: spec.namespace.clone(), name: spec.name.clone() },
            network,
            addresses: spec.cluster_ips.clone(),
            ports: each("ports", &spec.ports, port)?,
            selector: Some(&spec.selector).filter(|it| !it.is_empty()).map(Labels::new).transpose()?,
            endpoints: spec.endpoints.clone(),
            affinity_timeout_s: affinity_timeout_s(spec)?,
            external: spec.external_ips.iter().chain(&spec.load_balancer_ips).copied().collect(),
            external_policy: spec.external_traffic_policy,
            internal_policy: spec.internal_traffic_policy,
        })
    }

    /// Its namespace and name.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// The network whose pods reach it.
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// True if it has an address of its own of that family.
    pub fn has_family(&self, is_v4: bool) -> bool {
        self.addresses.iter().any(|address| address.is_ipv4() == is_v4)
    }

    /// Its addresses outside of the cluster.
    pub fn external_addresses(&self) -> &[IpAddr] {
        &self.external
    }

    /// Who serves those who come from outside.
    pub fn external_policy(&self) -> TrafficPolicy {
        self.external_policy
    }

    /// Who serves pods and nodes.
    pub fn internal_policy(&self) -> TrafficPolicy {
        self.internal_policy
    }

    /// Its ports.
    pub fn ports(&self) -> &[ServicePort] {
        &self.ports
    }

    /// For how many seconds a client's next connection goes where its last one went; none: each goes by itself.
    pub fn affinity_timeout_s(&self) -> Option<u32> {
        self.affinity_timeout_s
    }

    /// Who serves `port`, of all `pods`.
    pub fn endpoints<'a>(
        &self,
        port: &ServicePort,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Vec<(IpAddr, u16)> {
        let Some(selector) = &self.selector else {
            let Target::Number(target) = port.target else { return Vec::new() };
            return self.endpoints.iter().map(|address| (*address, target)).collect();
        };
        let is_chosen = |pod: &&Pod| {
            *pod.name().namespace == *self.name.namespace
                && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
        };
        let serving = pods.filter(is_chosen).filter_map(|pod| Some((pod, port.target_of(pod)?)));
        serving.flat_map(|(pod, target)| pod.addresses().iter().map(move |it| (*it, target))).collect()
    }
}

impl ServicePort {
    fn target_of(&self, pod: &Pod) -> Option<u16> {
        match &self.target {
            Target::Number(number) => Some(*number),
            Target::Name(name) => {
                let named = pod.named_ports().iter();
                let mut named = named.filter(|it| it.name == *name && it.protocol == self.protocol);
                named.next().map(|it| it.port)
            }
        }
    }
}

/// The API's default, and its limits.
fn affinity_timeout_s(spec: &ServiceSpec) -> Checked<Option<u32>> {
    const DEFAULT_S: u32 = 3 * 3600;
    const MAX_S: u32 = 86_400;
    let given = spec.session_affinity_config.as_ref();
    if spec.session_affinity.is_none() {
        return match given {
            Some(_) => Err(InvalidField::WithoutAffinity.of("sessionAffinityConfig")),
            None => Ok(None),
        };
    }
    let given = given.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let timeout_s = given.unwrap_or(DEFAULT_S);
    if !(1..=MAX_S).contains(&timeout_s) {
        let field = "sessionAffinityConfig.clientIP.timeoutSeconds";
        return Err(InvalidField::AffinityTimeout { seconds: timeout_s, most: MAX_S }.of(field));
    }
    Ok(Some(timeout_s))
}

fn port(spec: &ServicePortSpec) -> Checked<ServicePort> {
    let port = check_port("port", spec.port)?;
    let target = match &spec.target_port {
        None => Target::Number(port),
        Some(NumberOrName::Number(target)) => Target::Number(check_port("targetPort", *target)?),
        Some(NumberOrName::Name(name)) => {
            check_port_name("targetPort", name)?;
            Target::Name(name.as_str().into())
        }
    };
    let node_port = spec.node_port.map(|number| check_port("nodePort", number)).transpose()?;
    Ok(ServicePort { protocol: spec.protocol, port, node_port, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(rest: &str) -> Result<Option<u32>, String> {
        let text = format!(
            "{{namespace: shop, name: web, network: pods, clusterIPs: [172.30.0.10], ports: [{{port: 80}}], {rest}}}"
        );
        let spec: ServiceSpec = serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())?;
        let service = Service::new(&spec).map_err(|error| error.to_string())?;
        Ok(service.affinity_timeout_s())
    }

    #[test]
    fn affinity_lasts_as_long_as_the_api_says() {
        let timeout = |seconds: &str| {
            let config = format!("sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}");
            affinity(&format!("sessionAffinity: ClientIP, {config}"))
        };
        assert_eq!((affinity(""), affinity("sessionAffinity: None")), (Ok(None), Ok(None)));
        assert_eq!(affinity("sessionAffinity: ClientIP"), Ok(Some(10_800)));
        assert_eq!(affinity("sessionAffinity: ClientIP, sessionAffinityConfig: {}"), Ok(Some(10_800)));
        assert_eq!((timeout("1"), timeout("86400")), (Ok(Some(1)), Ok(Some(86_400))));
        let error = "Service shop/web: sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is no time to keep a client: \
                     choose 1 to 86400 seconds";
        assert_eq!(timeout("86401").unwrap_err(), error);
        assert!(timeout("0").is_err() && timeout("-1").is_err());
    }

    #[test]
    fn an_affinitys_time_without_affinity_is_refused() {
        let error = affinity("sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}").unwrap_err();
        assert_eq!(
            error,
            "Service shop/web: sessionAffinityConfig: is for sessionAffinity ClientIP: write that, or remove this"
        );
    }
}
