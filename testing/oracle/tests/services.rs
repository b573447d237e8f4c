//! Any services and any changes: connections go where they may, and stay there.

use std::collections::BTreeMap;

use oracle::service::naive::Question;
use oracle::service::{Pod, Step, Trial, endpoints, frontends, step};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use vswitch::program::{Affinity, EndpointSpec, RouterNo, Scope, ServiceNo, ServiceSpec};

/// The service that the tests by hand have: one of IPv4.
const NUMBER: u32 = 2;

fn service(endpoints: Vec<EndpointSpec>, affinity: Affinity) -> ServiceSpec {
    ServiceSpec {
        number: ServiceNo(NUMBER),
        name: "shop/web".into(),
        scope: Scope::Router(RouterNo(1)),
        frontends: frontends(NUMBER),
        endpoints,
        affinity,
    }
}

/// How many of `count` connections of each client went to each endpoint.
fn shares(trial: &mut Trial, count: usize) -> BTreeMap<EndpointSpec, usize> {
    let frontends = frontends(NUMBER);
    let mut shares = BTreeMap::new();
    for (client, at) in Pod::all().flat_map(|client| (0..count).map(move |at| (client, at))) {
        let question = Question { client, to: frontends[at % frontends.len()] };
        let endpoint = trial.connect(&question).expect("a service that is served");
        *shares.entry(endpoint).or_default() += 1;
    }
    shares
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connections_go_where_they_may_whatever_changes(steps in vec(step(), 1..60)) {
        let mut trial = Trial::default();
        for step in &steps {
            trial.apply(step);
        }
        trial.go_on();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn endpoints_have_about_the_same_share(endpoints in subsequence(endpoints(NUMBER), 1..=12)) {
        let mut trial = Trial::default();
        let served = endpoints.len();
        trial.apply(&Step::Put(service(endpoints, Affinity::None)));
        let shares = shares(&mut trial, 200);
        let fair = shares.values().sum::<usize>() / served;
        prop_assert_eq!(shares.len(), served);
        prop_assert!(shares.values().all(|share| (fair / 2..=fair * 2).contains(share)), "{:?}", shares);
    }
}

#[test]
fn clients_that_are_kept_together_are_not_all_at_one_endpoint() {
    let mut trial = Trial::default();
    trial.apply(&Step::Put(service(endpoints(NUMBER), Affinity::ClientIp { timeout_s: 10_800 })));
    assert!(shares(&mut trial, 20).len() > 1);
}

#[test]
fn clients_that_are_kept_together_stay_where_they_are_while_endpoints_come_and_others_go() {
    let affinity = Affinity::ClientIp { timeout_s: 60 };
    let all = endpoints(NUMBER);
    let first = Question { client: Pod(0), to: frontends(NUMBER)[0] };
    let mut trial = Trial::default();
    trial.apply(&Step::Put(service(all[..2].to_vec(), affinity)));
    let home = trial.connect(&first).unwrap();
    // The trial holds each connection to where the one before it went.
    for count in 2..=all.len() {
        let mut serving = all[..count].to_vec();
        serving.retain(|it| all[..2].contains(it) || count % 2 == 0 || *it == all[count - 1]);
        trial.apply(&Step::Put(service(serving, affinity)));
        assert_eq!(trial.connect(&first), Some(home));
        trial.apply(&Step::Pass(50));
    }
    let others: Vec<_> = all.iter().filter(|it| **it != home).copied().collect();
    trial.apply(&Step::Put(service(others.clone(), affinity)));
    let next = trial.connect(&first).unwrap();
    assert!(others.contains(&next), "its endpoint has gone");
    trial.apply(&Step::Put(service(all, affinity)));
    assert_eq!(trial.connect(&first), Some(next), "and is not the one that keeps it when it comes back");
}

#[test]
fn an_endpoint_that_goes_and_comes_back_gets_its_own_again() {
    let mut trial = Trial::default();
    let all = endpoints(NUMBER);
    let without_first = all[1..].to_vec();
    for endpoints in [all.clone(), without_first, all] {
        trial.apply(&Step::Put(service(endpoints, Affinity::None)));
        assert!(shares(&mut trial, 30).len() > 1);
        trial.go_on();
    }
}
