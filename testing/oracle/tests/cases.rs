//! Cases that say what they expect: what the policies mean naively, what was compiled and what the switch does is that.

use oracle::{Case, Trial, cases, tier_cases};

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
