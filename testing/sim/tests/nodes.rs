//! Two joined switches against two joined references: any scenario, any order, on either node.

use proptest::prelude::*;
use sim::{Nodes, Step, scenario};

fn run(steps: &[Step], nodes: &[bool], workers: usize) -> Result<(), TestCaseError> {
    let mut both = Nodes::new(workers);
    for (number, (step, node)) in steps.iter().zip(nodes.iter().cycle()).enumerate() {
        let failed = |what| TestCaseError::fail(format!("step {number} on node {node}: {step:?}\n{what}"));
        both.step(usize::from(*node), step).map_err(failed)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_nodes_do_what_two_wired_references_do(
        steps in scenario(1..60), nodes in prop::collection::vec(any::<bool>(), 70)
    ) {
        run(&steps, &nodes, 1)?;
    }

    #[test]
    fn two_nodes_of_two_workers_do_what_two_wired_references_do(
        steps in scenario(1..60), nodes in prop::collection::vec(any::<bool>(), 70)
    ) {
        run(&steps, &nodes, 2)?;
    }
}
