//! How long does it take, and how much memory, to compile a large cluster's policies, and to apply one change?
//!
//! `cargo run --release -p oracle --example scale [PODS POLICIES [NODE]]`: 100 000 pods and 75 000 policies if nothing is
//! said, on one core, for all pods or for those of one node (`n0` to `n999`). Namespaces have four pods each (Antrea's extra large bench has 25 000 namespaces); a policy has what the
//! policies of a large cluster have in the mean: a subject of a few pods, half a block, 0.9 ports, 0.6 selectors.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement reads clocks and says what it found"
)]

use std::time::Duration;

use model::{
    IngressRuleSpec, IpBlockSpec, LabelSelectorSpec, Namespace, NamespaceSpec, NetworkPolicy,
    NetworkPolicySpec, NumberOrName, PeerSpec, Pod, PodName, PodSpec, PolicyPortSpec,
};
use policy::{Change, Changed, Compiler, Span};
use vswitch::program::{RouterNo, Scope};

const NODES: usize = 1000;
const PODS_PER_NAMESPACE: usize = 4;
const CHANGES: usize = 500;

/// A generator without a seed of time: the same world each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize, otherwise| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (pods, policies) = (number(0, 100_000), number(1, 75_000));
    let span = arguments.get(2).map_or(Span::Everywhere, |node| Span::Node(node.clone()));
    println!("{pods} pods of {} namespaces on {NODES} nodes, {policies} policies", pods / PODS_PER_NAMESPACE);
    println!("{span:?}");
    run(span, pods, policies);
}

fn run(span: Span, pods: usize, policies: usize) {
    let before_kib = resident_kib();
    let changes = world(pods, policies);
    let mut compiler = Compiler::new(Scope::Router(RouterNo(1)), span);
    let start = now();
    let changed = compiler.apply(changes);
    let applied = now() - start;
    let rules = rules(&compiler, &changed);
    let all = now() - start;
    let identities = changed.put_identities.len();
    println!(
        "  from nothing: {applied:?}; with the text of all {} policies ({rules} rules): {all:?}",
        changed.put_policies.len()
    );
    println!("  {identities} addresses of {} identities", compiler.identity_count());
    drop(changed);
    println!("  memory: {} MiB, the objects among it", resident_kib().saturating_sub(before_kib) / 1024);
    let mut dice = Dice(7);
    measure("a pod comes, goes or is relabelled", &mut compiler, |_| pod_change(&mut dice, pods));
    let mut dice = Dice(8);
    measure("a policy is written again", &mut compiler, |_| policy(&mut dice, pods, policies));
    let mut dice = Dice(9);
    measure("a namespace is relabelled", &mut compiler, |turn| {
        namespace(dice.roll(pods / PODS_PER_NAMESPACE), turn % 3)
    });
}

/// The text of all policies that changed, as it would be sent; how many rules.
fn rules(compiler: &Compiler, changed: &Changed) -> usize {
    let policies = changed.put_policies.iter().filter_map(|number| compiler.policy(*number));
    policies.flat_map(|it| it.ingress.into_iter().chain(it.egress)).map(|tier| tier.rules.len()).sum()
}

fn measure(what: &str, compiler: &mut Compiler, mut change: impl FnMut(usize) -> Change) {
    let mut most = 0;
    let once = |turn| {
        let change = change(turn);
        let start = now();
        let changed = compiler.apply([change]);
        let applied = now() - start;
        rules(compiler, &changed);
        most = most.max(changed.put_policies.len());
        [applied, now() - start]
    };
    let times: Vec<[Duration; 2]> = (0..CHANGES).map(once).collect();
    let of = |kind: usize| {
        let mut times: Vec<_> = times.iter().map(|times| times[kind]).collect();
        times.sort_unstable();
        let at = |share: f64| times[((CHANGES - 1) as f64 * share) as usize];
        format!("p50 {:?}, p99 {:?}, most {:?}", at(0.5), at(0.99), at(1.0))
    };
    println!("  {what}: {}; with the text of the policies that changed, at most {most}: {}", of(0), of(1));
}

fn world(pods: usize, policies: usize) -> Vec<Change> {
    let mut dice = Dice(1);
    let namespaces = (0..pods / PODS_PER_NAMESPACE).map(|number| namespace(number, 0));
    let mut all: Vec<_> = namespaces.collect();
    all.extend((0..pods).map(|number| pod(number, number % PODS_PER_NAMESPACE)));
    all.extend((0..policies).map(|number| policy_of(&mut dice, number, pods)));
    all
}

fn namespace(number: usize, team: usize) -> Change {
    let team = format!("team-{}", (number + team) % 200);
    let spec = NamespaceSpec { name: format!("ns-{number}"), labels: [("team".to_owned(), team)].into() };
    Change::PutNamespace(Namespace::new(&spec).expect("a legal namespace"))
}

fn pod(number: usize, app: usize) -> Change {
    let labels =
        [("app", format!("app-{app}")), ("pod-template-hash", format!("{number:x}")), ("env", "prod".into())];
    let spec = PodSpec {
        namespace: format!("ns-{}", number / PODS_PER_NAMESPACE),
        name: format!("pod-{number}"),
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        addresses: vec![std::net::Ipv4Addr::from(0x0a80_0000 + number as u32).into()],
        container_ports: Vec::new(),
        node_name: Some(format!("n{}", number % NODES)),
        host_network: false,
    };
    Change::PutPod(Pod::new(&spec).expect("a legal pod"))
}

fn pod_change(dice: &mut Dice, pods: usize) -> Change {
    let number = dice.roll(pods);
    match dice.roll(3) {
        0 => Change::DeletePod(PodName::new(
            &format!("ns-{}", number / PODS_PER_NAMESPACE),
            &format!("pod-{number}"),
        )),
        _ => pod(number, dice.roll(PODS_PER_NAMESPACE + 1)),
    }
}

fn policy(dice: &mut Dice, pods: usize, policies: usize) -> Change {
    let number = dice.roll(policies);
    policy_of(dice, number, pods)
}

fn policy_of(dice: &mut Dice, number: usize, pods: usize) -> Change {
    let namespaces = pods / PODS_PER_NAMESPACE;
    let mut from = Vec::new();
    if dice.roll(100) < 54 {
        from.push(block(dice));
    }
    if dice.roll(100) < 62 {
        from.push(peer(dice, namespaces));
    }
    let port = PolicyPortSpec {
        port: Some(NumberOrName::Number([80, 443, 8080, 5432][dice.roll(4)])),
        ..Default::default()
    };
    let ports = if dice.roll(100) < 88 { vec![port] } else { Vec::new() };
    // A quarter are empty: they isolate.
    let rules = if from.is_empty() { Vec::new() } else { vec![IngressRuleSpec { ports, from }] };
    let app = format!("app-{}", dice.roll(PODS_PER_NAMESPACE));
    let pods = if dice.roll(3) == 0 { LabelSelectorSpec::default() } else { one_label("app", app) };
    let spec = NetworkPolicySpec {
        namespace: format!("ns-{}", number % namespaces),
        name: format!("policy-{number}"),
        pod_selector: pods,
        ingress: rules,
        ..NetworkPolicySpec::default()
    };
    Change::PutPolicy(NetworkPolicy::new(&spec).expect("a legal policy"))
}

/// Mostly a host or a subnet that few others name, now and then everybody outside.
fn block(dice: &mut Dice) -> PeerSpec {
    let text = match dice.roll(100) {
        0..2 => "0.0.0.0/0".to_owned(),
        2..50 => format!("203.{}.{}.{}/32", dice.roll(4), dice.roll(16), dice.roll(256)),
        _ => format!("198.{}.{}.0/24", dice.roll(2) + 18, dice.roll(256)),
    };
    let except = if text == "0.0.0.0/0" { vec!["10.0.0.0/8".parse().expect("a prefix")] } else { Vec::new() };
    let block = IpBlockSpec { cidr: text.parse().expect("a prefix"), except };
    PeerSpec { ip_block: Some(block), ..PeerSpec::default() }
}

/// Mostly pods of the own namespace or of one other, now and then of a team, seldom of all namespaces.
fn peer(dice: &mut Dice, namespaces: usize) -> PeerSpec {
    let pods = Some(one_label("app", format!("app-{}", dice.roll(PODS_PER_NAMESPACE))));
    let namespace_selector = match dice.roll(1000) {
        0..600 => None,
        600..900 => Some(one_label(model::NAMESPACE_NAME_LABEL, format!("ns-{}", dice.roll(namespaces)))),
        900..990 => Some(one_label("team", format!("team-{}", dice.roll(200)))),
        _ => Some(LabelSelectorSpec::default()),
    };
    PeerSpec { pod_selector: pods, namespace_selector, ip_block: None }
}

fn one_label(key: &str, value: String) -> LabelSelectorSpec {
    LabelSelectorSpec { match_labels: [(key.to_owned(), value)].into(), match_expressions: Vec::new() }
}

/// The processor's time, of which others on the machine take none.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What the process has in memory.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
