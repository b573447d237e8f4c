//! The order: administrators' rules by priority, then those of namespaces, then the baseline.

use super::{bed, cluster, of, policy, words};

#[test]
fn tiers_and_priorities_are_the_order_of_rules() {
    let mut compiler = bed();
    let rule = |action: &str| format!("ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]");
    let subject = "subject: {pods: {podSelector: {matchLabels: {app: db}}}}";
    compiler.apply([
        cluster(&format!("name: last, tier: Baseline, priority: 0, {subject}, {}", rule("Deny"))),
        cluster(&format!("name: second, tier: Admin, priority: 10, {subject}, {}", rule("Pass"))),
        policy("namespace: x, name: own, podSelector: {}, ingress: [{}]"),
        cluster(&format!("name: first, tier: Admin, priority: 9, {subject}, {}", rule("Accept"))),
    ]);
    let policy = of(&compiler, "x", "b").unwrap();
    let tiers: Vec<_> = policy.ingress.iter().map(|tier| words(&compiler, tier)).collect();
    let everybody = "10.0.0.1/32 10.0.0.2/32 10.0.0.3/32 fd00::3/128 | any";
    assert_eq!(
        tiers,
        [
            vec![
                format!("Allow ClusterNetworkPolicy first ingress rule 1 | {everybody}"),
                format!("Pass ClusterNetworkPolicy second ingress rule 1 | {everybody}"),
            ],
            vec!["Allow NetworkPolicy x/own ingress rule 1 | any | any".to_owned()],
            vec![format!("Deny ClusterNetworkPolicy last ingress rule 1 | {everybody}")],
        ]
    );
    let isolated: Vec<_> = policy.ingress.iter().map(|tier| tier.isolated_by.as_deref()).collect();
    assert_eq!(isolated, [None, Some("NetworkPolicy x/own"), None]);
}

#[test]
fn rules_have_the_names_that_were_given_to_them() {
    let mut compiler = bed();
    compiler.apply([cluster(
        "name: dns, tier: Admin, priority: 1, subject: {namespaces: {}}, \
         egress: [{name: to-dns, action: Accept, to: [{networks: [10.9.0.0/16]}], \
                   protocols: [{udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {range: {start: 53, end: 54}}}}]}]",
    )]);
    let policy = of(&compiler, "y", "c").unwrap();
    assert_eq!(
        words(&compiler, &policy.egress[0]),
        ["Allow ClusterNetworkPolicy dns egress rule 1 \"to-dns\" | 10.9.0.0/16 | 17:53-53 6:53-54"]
    );
    assert_eq!(policy.egress[0].isolated_by, None);
}
