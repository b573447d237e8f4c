//! Any worlds and any changes: everybody agrees after each, and connections that were made go on or end.

use oracle::random::step;
use oracle::{Trial, World};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_agrees_after_any_changes(steps in vec(vec(step(), 1..6), 1..12)) {
        let mut trial = Trial::new(&World::default());
        for part in &steps {
            trial.apply(part);
            trial.check_connections();
        }
        trial.ask_all();
        trial.apply(&[]);
        trial.check_connections();
    }
}
