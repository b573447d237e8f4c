//! Addresses: blocks in blocks, exceptions, and pods inside of them.

use super::{bed, of, pod, policy, words};

fn egress(name: &str, blocks: &str) -> crate::Change {
    policy(&format!(
        "namespace: x, name: {name}, podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{{to: {blocks}}}]"
    ))
}

#[test]
fn a_block_has_what_is_nested_in_it_but_for_its_exceptions() {
    let mut compiler = bed();
    compiler.apply([
        egress("all", "[{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.0.2.0/24]}}]"),
        egress(
            "some",
            "[{ipBlock: {cidr: 10.0.0.0/30, except: [10.0.0.2/32]}}, {ipBlock: {cidr: 192.0.2.0/25}}]",
        ),
    ]);
    let policy = of(&compiler, "x", "a").unwrap();
    assert_eq!(
        words(&compiler, &policy.egress[0]),
        [
            "Allow NetworkPolicy x/all egress rule 1 | 0.0.0.0/0 | any",
            // 10.0.0.2 is a pod and excepted; 10.0.0.0/30 is what is left of it around the pods.
            "Allow NetworkPolicy x/some egress rule 1 | 10.0.0.0/30 10.0.0.1/32 10.0.0.3/32 192.0.2.0/25 | any",
        ]
    );
    let has = |net: &str| {
        let net = net.split_once('/').unwrap();
        compiler
            .identities()
            .iter()
            .any(|it| it.addresses.address.to_string() == net.0 && it.addresses.len.to_string() == net.1)
    };
    assert!(has("10.0.0.0/8") && has("192.0.2.0/24"), "an exception hides what encloses it");
}

#[test]
fn a_block_that_comes_and_goes_changes_the_pods_inside_and_nobody_else() {
    let mut compiler = bed();
    compiler.apply([egress("one", "[{ipBlock: {cidr: 10.0.0.0/31}}]")]);
    let before = compiler.identities();
    let changed = compiler.apply([egress("two", "[{ipBlock: {cidr: 10.0.0.2/31}}]")]);
    let told: Vec<_> = changed.put_identities.iter().map(|it| it.addresses.address.to_string()).collect();
    assert_eq!(told, ["10.0.0.2", "10.0.0.2", "10.0.0.3"], "the prefix, and two pods");
    let gone = compiler.apply([crate::Change::DeletePolicy { namespace: "x".into(), name: "two".into() }]);
    assert_eq!(gone.delete_identities.len(), 3);
    assert_eq!(compiler.identities(), before);
}

#[test]
fn an_address_of_two_pods_is_that_of_the_lesser_name_until_it_goes() {
    let mut compiler = bed();
    compiler.apply([policy(
        "namespace: x, name: own, podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: new}}}]}]",
    )]);
    compiler.apply([pod("namespace: x, name: z, labels: {app: new}, addresses: [10.0.0.2]")]);
    let rules = |compiler: &crate::Compiler| of(compiler, "x", "a").unwrap().ingress[0].rules.len();
    assert_eq!((rules(&compiler), compiler.identities().len()), (0, 0), "b has the address");
    compiler.apply([crate::Change::DeletePod(model::PodName::new("x", "b"))]);
    assert_eq!((rules(&compiler), compiler.identities().len()), (1, 1), "and now z");
}
