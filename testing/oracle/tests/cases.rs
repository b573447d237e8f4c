//! Cases that say what they expect: what the policies mean naively, what was compiled and what the switch does is that.

use model::{NetworkPolicySpec, PolicyType, Protocol};
use oracle::{Case, Question, Trial, cases, standard, tier_cases};

fn check(case: &Case) {
    let mut trial = Trial::new(&case.world());
    for (number, (steps, expected)) in case.steps().enumerate() {
        trial.apply(&steps);
        assert!(!expected.is_empty(), "{}: step {number} expects something", case.name);
        for (question, allowed) in expected {
            let answer = trial.ask(&question);
            assert_eq!(answer.allowed, allowed, "{}, step {number}: {question}: {answer:?}", case.name);
        }
        trial.ask_all();
    }
}

#[test]
fn kubernetes_suite_has_all_its_cases_and_everybody_answers_as_it_expects() {
    let cases = cases();
    assert_eq!(cases.len(), 48);
    cases.iter().for_each(check);
}

#[test]
fn tiers_and_priorities_are_as_the_api_says() {
    tier_cases().iter().for_each(check);
}

#[test]
fn what_is_denied_is_an_answer_once_the_other_end_begins() {
    let mute = NetworkPolicySpec {
        namespace: "x".into(),
        name: "mute".into(),
        policy_types: vec![PolicyType::Egress],
        ..NetworkPolicySpec::default()
    };
    let mut world = standard(&["x/a", "y/b"]);
    world.policies.push(mute);
    let mut trial = Trial::new(&world);
    let [client, server] = [[10, 1, 0, 1], [10, 2, 0, 2]].map(Into::into);
    let question = Question { client, server, protocol: Some(Protocol::Udp), port: 80 };
    assert!(!trial.ask(&question).allowed);
    assert_eq!(trial.turns(&question), Some([false, true, true]));
    assert!(!trial.ask(&question).allowed, "it may begin none all the same");
}
