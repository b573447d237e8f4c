//! Which shapes can a rule have? All of them, one case each, in the manner of cyclonus.

use model::{NamespaceSpec, NetworkPolicySpec};

use crate::world::{Step, World, standard};

/// A world and what happens to it; all is asked after each part.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What it is about.
    pub name: String,
    /// The world before.
    pub world: World,
    /// What happens, in parts.
    pub parts: Vec<Vec<Step>>,
}

const PODS: [&str; 9] = ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c"];
const DIRECTIONS: [&str; 2] = ["ingress", "egress"];
const POD_SELECTORS: [&str; 5] = [
    "",
    "podSelector: {}",
    "podSelector: {matchLabels: {pod: a}}",
    "podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}",
    "podSelector: {matchLabels: {pod: none}}",
];
const NAMESPACE_SELECTORS: [&str; 5] = [
    "",
    "namespaceSelector: {}",
    "namespaceSelector: {matchLabels: {ns: y}}",
    "namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}",
    "namespaceSelector: {matchExpressions: [{key: ns, operator: DoesNotExist}]}",
];
const BLOCKS: [&str; 8] = [
    "ipBlock: {cidr: 0.0.0.0/0}",
    "ipBlock: {cidr: '::/0'}",
    "ipBlock: {cidr: 10.2.0.0/16}",
    "ipBlock: {cidr: 10.2.0.1/24, except: [10.2.0.2/32]}",
    "ipBlock: {cidr: 'fd00::2:0/112', except: ['fd00::2:2/127']}",
    "ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}",
    "ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/30]}",
    "ipBlock: {cidr: 192.0.2.0/24}",
];
const PORTS: [&str; 14] = [
    "",
    "{}",
    "{port: 80}",
    "{protocol: TCP, port: 81}",
    "{protocol: UDP, port: 80}",
    "{protocol: SCTP, port: 81}",
    "{protocol: UDP}",
    "{protocol: SCTP}",
    "{port: serve-80-tcp}",
    "{protocol: UDP, port: serve-81-udp}",
    "{protocol: TCP, port: serve-81-udp}",
    "{port: 79, endPort: 80}",
    "{protocol: SCTP, port: 80, endPort: 81}",
    "{port: 80}, {protocol: UDP, port: 81}, {protocol: SCTP, port: serve-80-sctp}",
];
/// Two policies of one namespace, of which each says something else.
const CONFLICTS: [[&str; 2]; 8] = [
    ["ingress: []", "ingress: [{}]"],
    ["policyTypes: [Egress]", "egress: [{}]"],
    ["ingress: []", "policyTypes: [Egress]"],
    [
        "ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]",
        "ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]",
    ],
    ["ingress: [{ports: [{port: 80}]}]", "ingress: [{ports: [{port: 81, protocol: UDP}]}]"],
    ["ingress: [{from: [{namespaceSelector: {}}]}]", "policyTypes: [Ingress, Egress]"],
    [
        "policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16]}}]}]",
        "policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.2.0.2/32}}]}]",
    ],
    [
        "ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}, {from: [{namespaceSelector: {matchLabels: {ns: z}}}]}]",
        "ingress: [{from: [{ipBlock: {cidr: 10.3.0.3/32}}], ports: [{protocol: SCTP}]}]",
    ],
];
const TYPES: [&str; 4] =
    ["", "policyTypes: [Ingress]", "policyTypes: [Egress]", "policyTypes: [Egress, Ingress]"];

/// All cases.
pub fn shapes() -> Vec<Shape> {
    let parts = [peers(), ports(), targets(), types(), conflicts(), several(), actions()];
    parts.into_iter().flatten().collect()
}

/// A policy of namespace x.
fn policy(name: &str, rest: &str) -> Step {
    let text = format!("{{namespace: x, name: {name}, {rest}}}");
    let spec: NetworkPolicySpec =
        serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Step::Policy(spec)
}

fn shape(name: String, parts: Vec<Vec<Step>>) -> Shape {
    Shape { name, world: standard(&PODS), parts }
}

fn one(rest: &str) -> Shape {
    shape(rest.to_owned(), vec![vec![policy("it", rest)]])
}

/// `podSelector: …, ingress: [{from: [PEERS], ports: [PORTS]}]`, or the same of egress.
fn rule(direction: &str, peers: &str, ports: &str) -> String {
    let side = if direction == "ingress" { "from" } else { "to" };
    let types = if direction == "ingress" { "Ingress" } else { "Egress" };
    format!(
        "policyTypes: [{types}], podSelector: {{matchLabels: {{pod: a}}}}, {direction}: [{{{side}: [{peers}], ports: [{ports}]}}]"
    )
}

fn peers() -> Vec<Shape> {
    let mut peers: Vec<String> = BLOCKS.iter().map(|block| format!("{{{block}}}")).collect();
    for pods in POD_SELECTORS {
        for namespaces in NAMESPACE_SELECTORS {
            let both: Vec<_> = [pods, namespaces].into_iter().filter(|text| !text.is_empty()).collect();
            if !both.is_empty() {
                peers.push(format!("{{{}}}", both.join(", ")));
            }
        }
    }
    let with = |direction| {
        let ports = ["", "{port: 80}, {protocol: UDP, port: serve-81-udp}"];
        let peers = &peers;
        ports
            .into_iter()
            .flat_map(move |ports| peers.iter().map(move |peer| one(&rule(direction, peer, ports))))
    };
    DIRECTIONS.into_iter().flat_map(with).collect()
}

fn ports() -> Vec<Shape> {
    let peers = ["", "{namespaceSelector: {matchLabels: {ns: y}}}", "{ipBlock: {cidr: 10.2.0.0/16}}"];
    let of_peer = |direction, peer| PORTS.into_iter().map(move |ports| one(&rule(direction, peer, ports)));
    DIRECTIONS
        .into_iter()
        .flat_map(|direction| peers.into_iter().flat_map(move |peer| of_peer(direction, peer)))
        .collect()
}

fn targets() -> Vec<Shape> {
    let selectors = POD_SELECTORS.into_iter().filter(|selector| !selector.is_empty());
    selectors
        .flat_map(|selector| DIRECTIONS.map(|direction| (selector, direction)))
        .map(|(selector, direction)| {
            let types = if direction == "ingress" { "Ingress" } else { "Egress" };
            one(&format!("{selector}, policyTypes: [{types}]"))
        })
        .collect()
}

fn types() -> Vec<Shape> {
    let rules =
        ["", "ingress: []", "ingress: [{}]", "egress: []", "egress: [{}]", "ingress: [{}], egress: [{}]"];
    let join = |types: &str, rules: &str| {
        let parts: Vec<_> =
            ["podSelector: {}", types, rules].into_iter().filter(|it| !it.is_empty()).collect();
        one(&parts.join(", "))
    };
    TYPES.into_iter().flat_map(|types| rules.map(|rules| join(types, rules))).collect()
}

fn conflicts() -> Vec<Shape> {
    let both = |[first, second]: [&str; 2]| {
        let parts = vec![vec![policy("first", first)], vec![policy("second", second)]];
        let deleted = Step::DeletePolicy("x".into(), "first".into());
        shape(format!("{first} and {second}"), [parts, vec![vec![deleted]]].concat())
    };
    CONFLICTS.into_iter().flat_map(|[a, b]| [both([a, b]), both([b, a])]).collect()
}

/// Several rules and several peers in one policy.
fn several() -> Vec<Shape> {
    let mut all = Vec::new();
    for direction in DIRECTIONS {
        let side = if direction == "ingress" { "from" } else { "to" };
        for rest in [
            format!(
                "{direction}: [{{{side}: [{{podSelector: {{}}}}, {{namespaceSelector: {{matchLabels: {{ns: z}}}}}}]}}]"
            ),
            format!("{direction}: [{{{side}: [{{podSelector: {{}}}}]}}, {{ports: [{{port: 81}}]}}]"),
            format!(
                "{direction}: [{{ports: [{{port: serve-80-tcp}}]}}, {{{side}: [{{ipBlock: {{cidr: 10.3.0.0/16}}}}]}}]"
            ),
            format!(
                "{direction}: [{{{side}: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}, {{ipBlock: {{cidr: 'fd00::/16'}}}}], ports: [{{port: 80}}]}}]"
            ),
        ] {
            all.push(one(&rest));
        }
    }
    all
}

/// What changes under a policy that is there.
fn actions() -> Vec<Shape> {
    let allow = "ingress: [{from: [{podSelector: {matchLabels: {new: 'yes'}}}, {namespaceSelector: {matchLabels: {new: 'yes'}}}]}]";
    let put = || vec![policy("it", allow)];
    let mut labelled = standard(&["y/b"]).pods.remove(0);
    labelled.labels.insert("new".into(), "yes".into());
    let mut own = standard(&["x/b"]).pods.remove(0);
    own.labels.insert("new".into(), "yes".into());
    let mut moved = standard(&["x/b"]).pods.remove(0);
    moved.addresses = vec![[10, 1, 0, 99].into()];
    let mut renamed = standard(&["x/a"]).pods.remove(0);
    renamed.container_ports.iter_mut().for_each(|port| port.container_port = 161 - port.container_port);
    let namespace = NamespaceSpec { name: "z".into(), labels: [("new".to_owned(), "yes".to_owned())].into() };
    let named = "ingress: [{ports: [{port: serve-80-tcp}]}]";
    let parts: Vec<(&str, Vec<Vec<Step>>)> = vec![
        ("a pod gets a label", vec![put(), vec![Step::Pod(own)]]),
        ("a pod elsewhere gets a label", vec![put(), vec![Step::Pod(labelled.clone())]]),
        (
            "a pod comes and goes",
            vec![
                vec![Step::DeletePod("y".into(), "b".into())],
                put(),
                vec![Step::Pod(labelled)],
                vec![Step::DeletePod("y".into(), "b".into())],
            ],
        ),
        ("a pod gets another address", vec![put(), vec![Step::Pod(moved)]]),
        (
            "a namespace gets a label and goes",
            vec![put(), vec![Step::Namespace(namespace)], vec![Step::DeleteNamespace("z".into())]],
        ),
        ("a port gets another number", vec![vec![policy("it", named)], vec![Step::Pod(renamed)]]),
        (
            "a policy is written again and goes",
            vec![
                put(),
                vec![policy("it", "ingress: [{}]")],
                vec![policy("it", "podSelector: {matchLabels: {pod: c}}")],
                vec![Step::DeletePolicy("x".into(), "it".into())],
            ],
        ),
    ];
    parts.into_iter().map(|(name, parts)| shape(name.to_owned(), parts)).collect()
}
