//! Changes: what they touch, what they leave alone, and that numbers stand.

use super::{Mirror, bed, namespace, of, pod, policy, words};
use crate::Change;

const WEB: &str = "namespace: x, name: web, podSelector: {matchLabels: {app: db}}, \
                   ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]";

#[test]
fn a_pod_that_comes_with_the_same_labels_changes_its_address_and_no_policy() {
    let mut compiler = bed();
    compiler.apply([policy(WEB)]);
    let changed = compiler.apply([pod("namespace: x, name: e, labels: {app: web}, addresses: [10.0.0.5]")]);
    assert_eq!((changed.put_identities.len(), changed.put_policies.len(), changed.pods.len()), (1, 0, 0));
    let again = compiler.apply([pod("namespace: x, name: e, labels: {app: web}, addresses: [10.0.0.5]")]);
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn a_pod_that_gets_other_labels_changes_sides() {
    let mut compiler = bed();
    let mut mirror = Mirror::default();
    let changed = compiler.apply([policy(WEB)]);
    mirror.follow(&compiler, &changed);
    let number = compiler.policy_of(&model::PodName::new("x", "b")).unwrap();
    let changed = compiler.apply([pod("namespace: x, name: a, labels: {app: db}, addresses: [10.0.0.1]")]);
    mirror.follow(&compiler, &changed);
    assert_eq!(changed.pods.into_values().collect::<Vec<_>>(), [Some(number)], "it joins those of its kind");
    assert_eq!(of(&compiler, "x", "a").unwrap().ingress[0].rules, [], "and no client is left");
    assert_eq!(mirror, Mirror::of(&compiler));
}

#[test]
fn a_namespace_that_gets_other_labels_is_another_peer() {
    let mut compiler = bed();
    let by_team = "namespace: x, name: team, podSelector: {}, \
                   ingress: [{from: [{namespaceSelector: {matchLabels: {team: green}}}]}]";
    compiler.apply([policy(by_team)]);
    assert_eq!(of(&compiler, "x", "a").unwrap().ingress[0].rules, []);
    let changed = compiler.apply([namespace("y", "{team: green}")]);
    assert_eq!((changed.put_identities.len(), changed.put_policies.len()), (2, 1));
    let rules = words(&compiler, &of(&compiler, "x", "a").unwrap().ingress[0]);
    assert_eq!(rules, ["Allow NetworkPolicy x/team ingress rule 1 | 10.0.0.3/32 fd00::3/128 | any"]);
    compiler.apply([Change::DeleteNamespace("y".into())]);
    assert_eq!(of(&compiler, "x", "a").unwrap().ingress[0].rules, []);
}

#[test]
fn a_policy_that_is_put_again_keeps_its_numbers() {
    let mut compiler = bed();
    let mut mirror = Mirror::default();
    let changed = compiler.apply([policy(WEB)]);
    mirror.follow(&compiler, &changed);
    let other = WEB.replace("}}}]}]", "}}}], ports: [{port: 80}]}]");
    let changed = compiler.apply([policy(&other)]);
    mirror.follow(&compiler, &changed);
    assert_eq!((changed.put_policies.len(), changed.put_identities.len(), changed.pods.len()), (1, 0, 0));
    assert_eq!(mirror, Mirror::of(&compiler));
    let changed =
        compiler.apply([Change::DeletePolicy { namespace: "x".into(), name: "web".into() }, policy(WEB)]);
    mirror.follow(&compiler, &changed);
    assert_eq!(changed.put_identities, [], "gone and back in one step");
    assert_eq!(mirror, Mirror::of(&compiler));
}

#[test]
fn a_policy_that_is_gone_leaves_nothing_behind() {
    let mut compiler = bed();
    let mut mirror = Mirror::default();
    let names = "namespace: x, name: names, podSelector: {}, policyTypes: [Egress, Ingress], \
                 ingress: [{ports: [{port: http}]}], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: http}]}]";
    for change in [
        policy(WEB),
        policy(names),
        Change::DeletePolicy { namespace: "x".into(), name: "web".into() },
        Change::DeletePolicy { namespace: "x".into(), name: "names".into() },
        Change::DeletePolicy { namespace: "x".into(), name: "names".into() },
    ] {
        let changed = compiler.apply([change]);
        mirror.follow(&compiler, &changed);
        assert_eq!(mirror, Mirror::of(&compiler));
    }
    assert_eq!(mirror, Mirror::default());
    assert_eq!(compiler.identity_count(), 0);
}
